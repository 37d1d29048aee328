"""The agent's way to its certificate, against a real provisioner's doors: real TLS, real sockets, real key files."""

import asyncio
import base64
import contextlib
import json
import stat
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from enrolment_desk import Book, Desk, Settings, csr_of, showing

from bedplate.v1.snapshot_pb2 import Snapshot
from nodeagent.asking import ask_younger
from nodeagent.credentials import Want, plan
from nodeagent.decision import Settled, Wait
from nodeagent.enrolment import Newcomer, Pending, enrol, evidence_of, renew
from nodeagent.errors import BedplateError
from nodeagent.identity import load
from nodeagent.steps.enrol import Enrol
from provisioner.config import Config
from provisioner.pki import authority, new_key
from provisioner.world import Accepted, Forgotten, TokenRevoked

DAY = 86400.0


def enrolling(state, token, **evidence):
    return enrol(state, token, showing(**evidence), "0.1.0", now=time.time())


def sound(identity):
    """Key and certificate are a pair."""
    certificate = x509.load_pem_x509_certificate(identity.certificate_pem)
    return certificate.public_key() == load_pem_private_key(identity.key_pem, None).public_key()


@contextlib.contextmanager
def one_line(pattern):
    with pytest.raises(BedplateError, match=pattern) as caught:
        yield
    assert "\n" not in str(caught.value)


def test_a_machine_enrols_keeps_its_identity_and_renews_it(tmp_path):
    async def main():
        async with Desk() as desk:
            identity = await enrolling(tmp_path, await desk.token())
            assert sound(identity)
            assert load(tmp_path) == identity
            assert identity.not_after - time.time() == pytest.approx(7 * DAY, abs=60)
            younger = await renew(tmp_path, identity, now=time.time())
            assert sound(younger)
            assert load(tmp_path) == younger
            assert (younger.machine_id, younger.incarnation) == (identity.machine_id, 1)
            assert younger.key != identity.key
            assert younger.token_id == identity.token_id

    asyncio.run(main())
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {"identity.json": 0o600}


def test_the_state_folder_is_made_for_its_owner_alone(tmp_path):
    async def main():
        async with Desk() as desk:
            await enrolling(tmp_path / "a/b", await desk.token())

    asyncio.run(main())
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o700


def test_a_machine_that_waits_spends_its_token_once_and_is_let_in_by_a_person(tmp_path):
    async def main():
        async with Desk() as desk:
            token = await desk.token(review=True)
            first, second = await enrolling(tmp_path, token), await enrolling(tmp_path, token)
            assert isinstance(first, Pending)
            assert first == second
            assert "asks for review" in first.because
            await desk.book.write([TokenRevoked(t, desk.book.now()) for t in desk.book.world.tokens])
            await desk.book.write([Accepted(first.machine_id, desk.book.now())])
            assert (await enrolling(tmp_path, token)).machine_id == first.machine_id

    asyncio.run(main())


def test_a_machine_that_was_off_for_longer_than_its_certificate_lasts_comes_back_by_its_key(tmp_path):
    async def main():
        async with Desk(Book(settings=Settings(Config(certificate_days=1e-5)))) as desk:
            token = await desk.token()
            identity = await enrolling(tmp_path, token)
            await asyncio.sleep(max(0.0, identity.not_after - time.time()) + 0.1)
            with one_line("^cannot renew the certificate with "):
                await renew(tmp_path, identity, now=time.time())
            desk.book.settings = Settings(replace_days(desk.book.settings.config, 7.0))
            again = await enrolling(tmp_path, token)
            assert (again.machine_id, again.incarnation) == (identity.machine_id, 1)
            assert sound(again)

    asyncio.run(main())


def replace_days(config, days):
    return Config(listen=config.listen, certificate_days=days)


def test_a_machine_whose_younger_certificate_was_lost_on_the_way_is_still_known(tmp_path):
    """The provisioner has written the new key, the answer never came: the next key is shown before the token is."""

    async def main():
        async with Desk() as desk:
            token = await desk.token()
            identity = await enrolling(tmp_path, token)
            child = json.dumps({"do": "request", "state": str(tmp_path)}).encode()
            out = await asyncio.to_thread(keys, child)
            assert len(out["csrs"]) == 2
            lost = out["csrs"][-1]["csr"]
            await ask_younger(identity, identity.uplink_addresses[0], base64.b64decode(lost))
            again = await enrolling(tmp_path, token)
            assert again.machine_id == identity.machine_id
            assert again.key != identity.key
            assert sound(again)
            assert len(desk.book.world.machines) == 1

    asyncio.run(main())


def keys(request):
    command = [sys.executable, "-P", "-m", "nodeagent.keys"]
    return json.loads(subprocess.run(command, input=request, capture_output=True, check=True).stdout)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        ("expired", "expired at .* UTC; make another with `bedplate token create`$"),
        ("revoked", "was revoked at .*; make another"),
        ("used up", r"is used up \(1 of 1 machines came in by it\); make another"),
        ("of a lost store", "does not know the join token; make another"),
        ("for another CA", "it is another provisioner than the join token's: it shows the CA [0-9a-f]{16}…, "),
        ("garbled", "it was cut short or changed; copy all of it again$"),
        ("no token", "it does not begin with 'bedplate1.'; make another"),
    ],
)
def test_a_token_that_lets_nobody_in_is_one_line_that_says_what_to_do(tmp_path, spoil, line):
    async def main():
        async with Desk() as desk:
            token = await desk.token()
            if spoil == "expired":
                desk.book.skew = 7200
            if spoil == "revoked":
                await desk.book.write([TokenRevoked(t, desk.book.now()) for t in desk.book.world.tokens])
            if spoil == "used up":
                await enrolling(tmp_path / "other", token)
            if spoil == "of a lost store":
                desk.book.world = replace(desk.book.world, tokens={})
            if spoil == "for another CA":
                desk.ca = authority(new_key(), now=time.time())
                token = await desk.token()
            if spoil == "garbled":
                token = token[:-7]
            if spoil == "no token":
                token = "hunter2"
            with one_line(line):
                await enrolling(tmp_path, token)
        assert load(tmp_path) is None

    asyncio.run(main())


def test_a_forgotten_machine_does_not_come_back_by_its_old_token_and_does_by_a_new_one(tmp_path):
    async def main():
        async with Desk() as desk:
            old = await desk.token(uses=0)
            given = [old]
            newcomer = Newcomer(tmp_path, lambda: given[0], "0.1.0")
            newcomer.snapshot = lambda: snapshot_of("J1234567")
            assert plan(newcomer.have(), Want()).steps == (Enrol(),)
            await newcomer.enrol()
            name = newcomer.identity.machine_id
            assert isinstance(plan(newcomer.have(), Want()), Settled)
            await desk.book.write([Forgotten(name, desk.book.now())])
            with one_line("is not known here"):
                await newcomer.renew()
            decision = plan(newcomer.have(), Want())
            assert isinstance(decision, Wait)
            assert "enrol it again with a new join token" in decision.because
            given[0] = await desk.token()
            newcomer.put_off("", 0)
            assert plan(newcomer.have(), Want()).steps == (Enrol(),)
            await newcomer.enrol()
            assert (newcomer.identity.machine_id, newcomer.identity.incarnation) == (name, 2)
            assert isinstance(plan(newcomer.have(), Want()), Settled)

    asyncio.run(main())


def snapshot_of(serial):
    snapshot = Snapshot()
    snapshot.inventory.identity.product_serial = serial
    return snapshot


def test_what_failed_is_the_sentence_until_it_is_tried_again(tmp_path):
    newcomer = Newcomer(tmp_path, lambda: "hunter2", "0.1.0")
    assert "does not begin with" in plan(newcomer.have(), Want()).because
    with one_line("does not begin with"):
        asyncio.run(newcomer.enrol())
    assert 0 < newcomer.have().again_in_s <= 30
    assert "does not begin with" in newcomer.have().last


def test_a_state_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")

    async def main():
        async with Desk() as desk:
            with one_line(r"^cannot read .*file/state/.*: Not a directory$"):
                await enrolling(tmp_path / "file/state", await desk.token())
        assert not desk.book.world.machines

    asyncio.run(main())


def test_an_identity_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "identity.json").write_text("{")
    with one_line("^cannot read .*identity.json: it is not an identity .*; restore it, or remove it to enrol again$"):
        Newcomer(tmp_path, lambda: "", "0.1.0")
    (tmp_path / "identity.json").unlink()
    (tmp_path / "identity.json").mkdir()
    with one_line("^cannot read .*identity.json: Is a directory$"):
        Newcomer(tmp_path, lambda: "", "0.1.0")


def test_evidence_is_what_is_burned_in():
    snapshot = snapshot_of("J1")
    for mac in ("B0:7B:25:00:00:11", "b0:7b:25:00:00:10", "b0:7b:25:00:00:11", None):
        snapshot.inventory.links.add(name="eth", mac="52:54:00:00:00:01", permanent_mac=mac)
    evidence = evidence_of(snapshot)
    assert list(evidence.permanent_macs) == ["b0:7b:25:00:00:10", "b0:7b:25:00:00:11"]
    assert evidence.identity.product_serial == "J1"


def test_the_resident_agent_never_imports_the_library_of_the_keys():
    program = "import sys, nodeagent.enrolment, nodeagent.credentials; print('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"False\n"


def test_a_csr_of_somebody_elses_key_gets_no_certificate_that_is_kept(tmp_path):
    """What the provisioner sends is checked: a certificate for another key is not kept."""

    async def main():
        async with Desk() as desk:
            identity = await enrolling(tmp_path, await desk.token())
            return await ask_younger(identity, identity.uplink_addresses[0], csr_of())

    credentials = asyncio.run(main())
    before = (tmp_path / "identity.json").read_bytes()
    kept = {
        "machine_id": credentials.machine_id,
        "incarnation": 1,
        "certificate": credentials.certificate_pem.decode(),
        "ca": credentials.ca_pem.decode(),
        "uplink_addresses": [],
        "token_id": "t",
        "kept_at": 1.0,
    }
    answer = keys(json.dumps({"do": "keep", "state": str(tmp_path), "credentials": kept}).encode())
    assert "its key is not in" in answer["error"]
    assert (tmp_path / "identity.json").read_bytes() == before
