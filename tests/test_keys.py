"""Keys and certificates on the disk: cut off at any moment, on a full disk, or handed what does not belong together."""

import base64
import json
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from nodeagent import keys
from nodeagent.errors import BedplateError
from nodeagent.identity import load
from provisioner.pki import MachineIdentity, authority, csr_key, new_key

CA = authority(new_key(), now=time.time())
CHILD = [sys.executable, "-P", "-m", "nodeagent.keys"]


def child(state, command=CHILD, **request):
    done = subprocess.run(
        command, input=json.dumps({"state": str(state)} | request).encode(), capture_output=True, check=False
    )
    assert done.stderr == b""
    return json.loads(done.stdout)


def certified(csr, who="m-4kq7zt2x"):
    """What the agent hands over once the provisioner answered."""
    issued = CA.issue_machine(csr, MachineIdentity(who, 1), lifetime_s=86400, now=time.time())
    return {
        "machine_id": who,
        "incarnation": 1,
        "certificate": issued.certificate_pem.decode(),
        "ca": CA.roots_pem.decode(),
        "uplink_addresses": ["10.0.0.5:7443"],
        "token_id": "t-token",
        "kept_at": 1_800_000_000.0,
    }


def csrs(state, token_id=""):
    return [base64.b64decode(each["csr"]) for each in keys.request(state, token_id)]


def enrolled(state):
    keys.keep(state, keys.Kept(**certified(csrs(state)[-1])))
    return load(state)


def sound(identity):
    certificate = x509.load_pem_x509_certificate(identity.certificate_pem)
    return certificate.public_key() == load_pem_private_key(identity.key_pem, None).public_key()


def test_a_key_is_made_once_and_asked_for_again_until_it_has_its_certificate(tmp_path):
    first, second = child(tmp_path, do="request")["csrs"], child(tmp_path, do="request")["csrs"]
    assert [each["old"] for each in first] == [False]
    assert [each["old"] for each in second] == [True, False]
    keys_seen = {csr_key(base64.b64decode(each["csr"])).public_numbers() for each in first + second}
    assert len(keys_seen) == 1
    assert stat.S_IMODE((tmp_path / "next.key").stat().st_mode) == 0o600


def test_a_machine_that_has_a_certificate_makes_another_key_for_the_next(tmp_path):
    identity = enrolled(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["identity.json"]
    mine, following = csrs(tmp_path)
    assert csr_key(mine) == load_pem_private_key(identity.key_pem, None).public_key()
    assert csr_key(following) != csr_key(mine)


def test_by_each_join_token_it_goes_on_with_a_key_that_was_made_for_it(tmp_path):
    """What lay there may have been copied, also the key that was made for the token before. While nobody answers, the
    key for a token stays the same; what the provisioner may know is shown all the while.
    """
    enrolled(tmp_path)
    mine, copied = csrs(tmp_path)
    *_, second = csrs(tmp_path, "t-second")
    *_, third = csrs(tmp_path, "t-third")
    made = [csr_key(each) for each in (mine, copied, second, third)]
    assert all(made.count(key) == 1 for key in made)
    assert [csr_key(each) for each in csrs(tmp_path, "t-third")] == [*made, csr_key(third)]
    assert [csr_key(each) for each in csrs(tmp_path, "t-second")] == [*made, csr_key(second)]
    assert [each["old"] for each in keys.request(tmp_path, "t-third")] == [True, True, True, True, False]
    assert stat.S_IMODE((tmp_path / "join.key").stat().st_mode) == 0o600
    keys.keep(tmp_path, keys.Kept(**certified(third) | {"token_id": "t-third"}))
    assert [path.name for path in tmp_path.iterdir()] == ["identity.json"]
    assert csr_key(csrs(tmp_path)[-1]) not in made


def test_no_more_than_three_keys_for_tokens_are_kept(tmp_path):
    for number in range(5):
        csrs(tmp_path, f"t-{number}")
    assert [each["old"] for each in keys.request(tmp_path, "t-4")] == [True, True, True, False]


@pytest.mark.parametrize("by", ["the key that it has", "its next key"])
def test_whatever_key_it_is_answered_by_no_key_for_a_token_is_left(tmp_path, by):
    enrolled(tmp_path)
    mine, following = csrs(tmp_path)
    csrs(tmp_path, "t-another")
    answered = mine if by == "the key that it has" else following
    keys.keep(tmp_path, keys.Kept(**certified(answered) | {"token_id": "t-another"}))
    assert not (tmp_path / "join.key").exists()


def test_cut_off_while_it_comes_in_anew_the_copied_key_is_gone_wherever_the_new_certificate_is(tmp_path):
    state = tmp_path / "state"
    old = enrolled(state)
    copied = csr_key(csrs(state)[-1])
    credentials = certified(csrs(state, "t-another")[-1]) | {"token_id": "t-another"}
    after = _cut_off_everywhere(state, {"do": "keep", "state": str(state), "credentials": credentials})
    seen = [_left(tmp_path / str(one["count"]), one["left"]) for one in after]
    assert {identity.certificate for identity, _ in seen} == {old.certificate, credentials["certificate"]}
    for identity, folder in seen:
        if identity.certificate == old.certificate:
            keys.keep(folder, keys.Kept(**credentials))
        assert load(folder).certificate == credentials["certificate"]
        assert copied not in [csr_key(each) for each in csrs(folder)]


def test_cut_off_at_any_moment_there_is_the_old_pair_or_the_new_one(tmp_path):
    state = tmp_path / "state"
    old = enrolled(state)
    credentials = certified(csrs(state)[-1])
    after = _cut_off_everywhere(state, {"do": "keep", "state": str(state), "credentials": credentials})
    assert len(after) > 6
    seen = [_left(tmp_path / str(one["count"]), one["left"]) for one in after]
    assert all(sound(identity) for identity, _ in seen)
    certificates = [identity.certificate for identity, _ in seen]
    assert set(certificates) == {old.certificate, credentials["certificate"]}
    assert certificates == sorted(certificates, key=lambda one: one != old.certificate)
    for identity, folder in seen:
        if identity.certificate == old.certificate:  # the provisioner knows the new key already, and so do we
            keys.keep(folder, keys.Kept(**credentials))
            assert load(folder).certificate == credentials["certificate"]
        assert csr_key(csrs(folder)[-1]) != csr_key(csrs(folder)[0])


def test_cut_off_while_the_key_is_made_there_is_the_identity_that_there_was(tmp_path):
    state = tmp_path / "state"
    old = enrolled(state)
    for one in _cut_off_everywhere(state, {"do": "request", "state": str(state)}):
        identity, folder = _left(tmp_path / str(one["count"]), one["left"])
        assert identity == old
        assert len(csrs(folder)) >= 2


def _cut_off_everywhere(state, request):
    crash = Path(__file__).with_name("crash.py")
    command = [sys.executable, crash, str(state)]
    out = subprocess.run(command, input=json.dumps(request).encode(), capture_output=True, check=True).stdout
    after = [json.loads(line) for line in out.splitlines()]
    assert [one["code"] for one in after] == [9] * (len(after) - 1) + [0]
    return after


def _left(folder, files):
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(base64.b64decode(content))
    return load(folder), folder


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path):
    old = enrolled(tmp_path)
    credentials = certified(csrs(tmp_path)[-1])
    full = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *CHILD]
    answer = child(tmp_path, full, do="keep", credentials=credentials)
    path = tmp_path / "identity.json"
    assert answer == {"error": f"cannot write {path}: File too large; what was there is still there"}
    assert load(tmp_path) == old
    assert sorted(each.name for each in tmp_path.iterdir()) == ["identity.json", "next.key"]
    assert child(tmp_path, do="keep", credentials=credentials) == {}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"machine_id": "m-aaaaaaaa"}, "it is not for machine m-aaaaaaaa"),
        ({"incarnation": 2}, "it is not for machine m-4kq7zt2x"),
        ({"ca": authority(new_key(), now=time.time()).roots_pem.decode()}, "none of the roots"),
        ({"ca": ""}, "is not PEM"),
        ({"certificate": "garbage"}, "is not PEM"),
    ],
)
def test_what_does_not_belong_together_is_not_kept(tmp_path, changes, line):
    answer = child(tmp_path, do="keep", credentials=certified(csrs(tmp_path)[-1]) | changes)
    assert line in answer["error"]
    assert load(tmp_path) is None


def test_a_certificate_for_a_key_that_is_not_here_is_not_kept(tmp_path):
    _, csr = keys.make_key()
    csrs(tmp_path)
    assert "its key is not in" in child(tmp_path, do="keep", credentials=certified(csr))["error"]


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff\xfe"])
def test_a_key_file_that_is_none_is_one_line_that_says_what_to_do(tmp_path, content):
    (tmp_path / "next.key").write_bytes(content)
    answer = child(tmp_path, do="request")
    assert answer == {
        "error": f"cannot read {tmp_path}/next.key: it holds no private key; remove it, and another is made"
    }


def test_a_key_file_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "next.key").mkdir()
    assert child(tmp_path, do="request") == {"error": f"cannot read {tmp_path}/next.key: Is a directory"}


def test_a_simulated_machine_has_its_key_in_memory():
    key, csr = keys.make_key()
    identity = keys.identity_of(keys.Kept(**certified(csr)), key)
    assert sound(identity)
    assert "PRIVATE" not in repr(identity)
    with pytest.raises(BedplateError, match="it is for another key"):
        keys.identity_of(keys.Kept(**certified(csr)), keys.make_key()[0])
