"""The audit over a real connection: every write leaves one entry, whichever method it is, and no secret is in it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from bedplate.v1 import fleet_pb2 as pb
from provisioner import chain, onhost, tokens
from provisioner.cli.commands.audit import _kept
from provisioner.world import Change, TokenMade
from tests.served import Served, asked, present, refusal, served

ROOT = Path(__file__).resolve().parent.parent
Work = Callable[[Served], Awaitable[None]]
METHODS = pb.DESCRIPTOR.services_by_name["Fleet"].methods
READS = ("List", "Get", "Watch", "Explain")
# What each writing method is asked, in a fleet of a machine that waits, one that is present, and a token.
ASKED: dict[str, Callable[[], Any]] = {
    "AcceptMachine": lambda: pb.AcceptMachineRequest(machine="m-0001", request_id="r-1"),
    "ForgetMachine": lambda: pb.ForgetMachineRequest(machine="m-0002", request_id="r-1"),
    "RevokeMachine": lambda: pb.RevokeMachineRequest(machine="m-0002", request_id="r-1"),
    "RekeyMachine": lambda: pb.RekeyMachineRequest(machine="m-0002", request_id="r-1"),
    "CreateToken": lambda: pb.CreateTokenRequest(request_id="r-1", uses_allowed=2),
    "RevokeToken": lambda: pb.RevokeTokenRequest(token_id="t-1", request_id="r-1"),
    "RevokeCredential": lambda: pb.RevokeCredentialRequest(serial_number="0a:1b", request_id="r-1"),
}
FLEET = (asked(1), *present(2), TokenMade("t-1", b"s" * 32, 1.0, 2e9, 1, False, "alice (admin)"))  # noqa: FBT003


SAID = {  # what comes to be -> where the page says that it leaves an entry, or none
    "Asked": "a machine that comes in by a join token",
    "Accepted": "a machine accepted",
    "Certified": "| a younger certificate for a machine",
    "Forgotten": "rekeyed or forgotten",
    "Revoked": "revoked, rekeyed",
    "Met": "| what machines report: streams that begin",
    "Parted": "and end",
    "InventoryKept": "inventories",
    "VitalsKept": "vitals",
    "VitalsMoved": "vitals",
    "SilenceNoted": "silence",
    "Noted": "`bedplate events`",
    "TokenMade": "a token made",
    "TokenRevoked": "or ended",
    "TokenUsed": "a machine that comes in by a join token",
    "CredentialRevoked": "a credential taken back",
    "Answered": "A request that is repeated with its id leaves none more",
    "Audited": "Each write leaves one entry",
}


def _run(folder: Path, work: Work, *changes: Change) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20), served(folder, changes) as here:
            await work(here)

    asyncio.run(whole())


async def _entries(here: Served, **query: Any) -> list[Any]:
    return list((await here.stub().ListAudit(pb.ListAuditRequest(**query))).entries)


def test_every_method_that_is_no_read_is_a_write_with_a_request_id_and_is_asked_here() -> None:
    writes = {method.name: method.input_type for method in METHODS if not method.name.startswith(READS)}
    assert set(writes) == set(ASKED)
    assert all("request_id" in request.fields_by_name for request in writes.values())


def test_of_whatever_comes_to_be_the_page_says_whether_it_leaves_an_entry() -> None:
    page = " ".join((ROOT / "docs/audit.md").read_text().split())
    assert {kind.__name__ for kind in get_args(Change)} == set(SAID)
    assert {kind for kind, said in SAID.items() if said not in page} == set()


@pytest.mark.parametrize("method", ASKED)
def test_each_write_leaves_one_entry_and_none_when_it_is_asked_again(tmp_path: Path, method: str) -> None:
    async def work(here: Served) -> None:
        call = getattr(here.stub("olga", "admin"), method)
        first, again = await asyncio.gather(call(ASKED[method]()), call(ASKED[method]()))
        assert first == again == await call(ASKED[method]())
        (entry,) = await _entries(here)
        assert (entry.who, entry.role, entry.method, entry.request_id) == ("olga", "admin", method, "r-1")
        assert entry.at.seconds == int(here.clock.now)
        assert entry.before != entry.after
        other = ASKED[method]()
        other.request_id = "r-2"
        code = "" if method != "ForgetMachine" else (await refusal(call(other))).code
        if not code:
            await call(other)
        assert len(await _entries(here)) == (1 if code else 2)

    _run(tmp_path, work, *FLEET)
    assert onhost.verify(tmp_path / "bedplate.db", ()).sequence in {1, 2}


def test_an_entry_tells_what_the_write_found_and_what_it_left_and_no_more(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        stub = here.stub()
        for request in (ASKED["AcceptMachine"](), pb.AcceptMachineRequest(machine="m-0001", request_id="r-2")):
            await stub.AcceptMachine(request)
        await stub.RevokeToken(pb.RevokeTokenRequest(token_id="t-1", request_id="r-3"))
        await stub.ForgetMachine(pb.ForgetMachineRequest(machine="m-0002", request_id="r-4"))
        let_in, no_more, ended, forgotten = await _entries(here)
        assert json.loads(let_in.before) == {
            "machines": [{"machine_id": "m-0001", "phase": "PHASE_PENDING"}],
            "standings": [{"machine_id": "m-0001", "waits_because": "its token asks for review"}],
        }
        assert json.loads(let_in.after)["standings"] == [{"machine_id": "m-0001"}]
        (after,) = json.loads(let_in.after)["machines"]
        assert (after.pop("accepted_at")[:4], after) == ("2027", {"machine_id": "m-0001", "phase": "PHASE_ACCEPTED"})
        assert (no_more.machine_id, no_more.before, no_more.after) == ("m-0001", "", "")
        assert json.loads(ended.before) == {"tokens": [{"token_id": "t-1"}]}
        assert "revoked_at" in json.loads(ended.after)["tokens"][0]
        assert (forgotten.machine_id, forgotten.after) == ("m-0002", "")
        assert json.loads(forgotten.before)["machines"][0]["hostname"] == "gpu-02"

    _run(tmp_path, work, *FLEET)


def test_a_refused_write_leaves_nothing(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        await refusal(here.stub("vera", "viewer").CreateToken(ASKED["CreateToken"]()))
        await refusal(here.stub().RevokeToken(pb.RevokeTokenRequest(token_id="t-none", request_id="r-1")))
        assert await _entries(here) == []

    _run(tmp_path, work)


def test_the_secret_of_a_token_is_not_in_the_audit_nor_is_its_hash(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        made = await here.stub().CreateToken(ASKED["CreateToken"]())
        secret = tokens.decode(made.join_token).secret
        kept = here.fleet.world.tokens[made.token.token_id].secret_sha256
        (entry,) = await _entries(here)
        (token,) = json.loads(entry.after)["tokens"]
        assert token.keys() == {"token_id", "created_at", "expires_at", "uses_allowed", "created_by"}
        for hidden in (made.join_token, secret, secret.hex() if isinstance(secret, bytes) else secret, kept.hex()):
            assert str(hidden) not in str(entry)

    _run(tmp_path, work)


def test_the_audit_is_filtered_by_who_machine_and_time_and_comes_in_pages(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        alice, bob, start = here.stub(), here.stub("bob", "operator"), int(here.clock.now)
        await alice.AcceptMachine(ASKED["AcceptMachine"]())
        here.clock.now += 10
        await bob.ForgetMachine(ASKED["ForgetMachine"]())
        here.clock.now += 10
        await bob.CreateToken(pb.CreateTokenRequest(request_id="r-2"))

        async def numbers(**query: Any) -> list[int]:
            return [entry.sequence for entry in await _entries(here, **query)]

        assert await numbers(who="bob") == [2, 3]
        assert await numbers(machine="gpu-01") == [1]
        assert await numbers(machine="m-0002") == [2], "it was forgotten, and its whole id finds it"
        assert await numbers(since=Timestamp(seconds=start + 10)) == [2, 3]
        assert await numbers(until=Timestamp(seconds=start + 10)) == [1]
        assert await numbers(newest_first=True) == [3, 2, 1]
        assert await numbers(since=Timestamp(seconds=253402300799)) == []
        first = await alice.ListAudit(pb.ListAuditRequest(page_size=2))
        rest = await alice.ListAudit(pb.ListAuditRequest(page_size=2, page_token=first.next_page_token))
        assert [entry.sequence for entry in (*first.entries, *rest.entries)] == [1, 2, 3]
        assert (rest.next_page_token, rest.head_sequence) == ("", 3)
        no = await refusal(alice.ListAudit(pb.ListAuditRequest(who="x" * 129)))
        assert no.details["BadRequest"].field_violations[0].field == "who"
        no = await refusal(alice.ListAudit(pb.ListAuditRequest(who="bob", page_token=first.next_page_token)))
        assert no.details["BadRequest"].field_violations[0].field == "page_token"

    _run(tmp_path, work, *FLEET)


def test_what_the_api_answers_is_enough_to_verify_the_chain(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        stub = here.stub()
        for number in range(5):
            here.clock.now += 0.123456789
            await stub.CreateToken(pb.CreateTokenRequest(request_id=f"r-{number}"))
        answer = await stub.ListAudit(pb.ListAuditRequest())
        head = chain.Link(answer.head_sequence, answer.head_sha256)
        chain.close(chain.follow(chain.START, map(_kept, answer.entries)), head)
        answer.entries[2].who = "mallory"
        with pytest.raises(chain.ChainError, match="entry 3 was changed"):
            chain.follow(chain.START, map(_kept, answer.entries))

    _run(tmp_path, work)
