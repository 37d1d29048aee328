"""`kill -9` of either program at any moment, 200 times by seed, and what holds after each; and that this bites."""

import shutil
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bedplate.v1 import fleet_pb2 as pb
from nodeagent import identity, keys
from provisioner.pki import MachineIdentity, authority, new_key
from provisioner.store import Store
from provisioner.world import Accepted, Answered, Asked, Audited, Certified, Noted, TokenMade, VitalsKept
from tests.kills import lying, records
from tests.kills.run import run
from tests.receiver import Post

KILLS = 25
LIGHT = Asked("m-aaaaaaaa", 1, b"k" * 32, b"", "light-0", "", "", "t-1", "", 1.0)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(8))
def test_killed_at_any_moment_nothing_acknowledged_is_lost_and_all_come_back_as_who_they_were(seed: int) -> None:
    outcome = run(seed, KILLS)
    assert outcome.broken == (), "\n".join(outcome.log)


# -- what is judged bites: a store and a folder that are as they must not be ----------------------------------------


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """What one write, one machine and one acknowledged delta leave."""
    store = Store.open(tmp_path / "bedplate.db")
    store.begin_epoch()
    vitals = records.vitals_of(4).SerializeToString(deterministic=True)
    store.write(
        [
            LIGHT,
            Accepted("m-aaaaaaaa", 1.0),
            Certified("m-aaaaaaaa", b"k" * 32, "1f", 9.0, 1.0),
            VitalsKept("m-aaaaaaaa", b"r" * 16, 4, vitals, b"", 0, 2.0),
        ]
    )
    made = TokenMade("t-1", b"s" * 32, 1.0, 9.0, 1, review=False, created_by="admin (admin)")
    noted = Noted("token.created", "", "", "", "admin (admin)", 1.0)
    entry = Audited("admin", "admin", "CreateToken", "r-1", "", "", '{"tokens":[{"token_id":"t-1"}]}', 1.0)
    store.write([made, noted, Answered("admin", "r-1", "CreateToken", b"", b"answer", 1.0), entry])
    stands = f'{{"standings":[{{"machine_id":"m-aaaaaaaa","key_sha256":"{(b"k" * 32).hex()}"}}]}}'
    store.write([Audited("t-1", "token", "Enrol", "", "m-aaaaaaaa", "", stands, 1.0)])
    store.close()
    return tmp_path


def _told(acknowledged: int = 4) -> records.Records:
    told = records.Told("m-aaaaaaaa", 1, b"k" * 32, b"r" * 16, acknowledged=acknowledged)
    answered = records.Answered("CreateToken", pb.CreateTokenRequest(), b"answer")
    return records.Records(answered={"r-1": answered}, told={"light-0": told}, epoch=1, revision=8)


def _wrong(state: Path, known: records.Records) -> str:
    scratch = state / "scratch"
    found = lying.of_the_provisioner(state, scratch, known)
    shutil.rmtree(scratch)
    return "\n".join(found)


def test_a_store_as_it_should_be_is_found_so(state: Path) -> None:
    assert _wrong(state, _told()) == ""


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (
            "DELETE FROM answers",
            "the answer to CreateToken r-1 is not the one that was given\naudit and answers differ",
        ),
        ("DELETE FROM tokens", "tokens in the audit and tokens differ"),
        ("DELETE FROM events", "1 CreateToken are in the audit, and 0 events tell of one"),
        ("DELETE FROM audit", "cannot trust the audit: it ends at entry 0, and 2 were written"),
        ("DELETE FROM vitals", "delta 4 was acknowledged, and none is stored"),
        ("UPDATE vitals SET vitals = x''", "the vitals that are stored are not those of delta 4"),
        ("UPDATE machines SET sequence = 3", "its facts say delta 3, and its vitals 4"),
        ("UPDATE machines SET key_sha256 = x'00'", "m-aaaaaaaa is not what its certificate says"),
        ("UPDATE counters SET epoch = 0", "epoch 0 is stored, and 1 was told"),
        ("UPDATE counters SET revision = 7", "revision 7 is stored, and 8 was told"),
        ("DELETE FROM certificates", "certified without a certificate"),
        ("UPDATE vitals SET machine_id = 'm-b'", "rows that point nowhere"),
        ("UPDATE machines SET id = 'm-b'", "machines in the audit and machines differ"),
    ],
)
def test_a_store_that_lost_something_or_has_half_of_it_is_found(state: Path, statement: str, says: str) -> None:
    database = sqlite3.connect(state / "bedplate.db")
    database.execute(statement)
    database.commit()
    database.close()
    assert says in _wrong(state, _told())


def test_a_certificate_of_which_the_audit_knows_nothing_is_found(state: Path) -> None:
    known = _told()
    known.told["light-0"].key_sha256 = b"another key".ljust(32)
    said = "light-0: m-aaaaaaaa got a certificate, and the audit has not that its key came in"
    assert said in _wrong(state, known)


def test_an_event_that_is_said_to_have_been_sent_and_never_arrived_is_found(state: Path) -> None:
    database = sqlite3.connect(state / "bedplate.db")
    database.execute("INSERT INTO sinks (name, revision, lost) VALUES ('webhook/pager', 8, 0)")
    database.commit()
    database.close()
    known = _told()
    known.posts = [Post({}, b'{"data": {"revision": 5}}')]
    assert "webhook/pager is said to have had events up to 8, and never got [6]" in _wrong(state, known)
    known.posts.append(Post({}, b'{"data": {"revision": 6}}'))
    assert _wrong(state, known) == ""


def test_a_file_that_was_left_over_is_found(state: Path) -> None:
    (state / "bedplate.db.7").touch()
    assert "a file that nobody needs: bedplate.db.7" in _wrong(state, _told())


def test_an_agent_that_is_somebody_else_or_whose_pair_is_none_is_found(tmp_path: Path) -> None:
    ca, key = authority(new_key(), now=time.time()), keys.make_key()
    issued = ca.issue_machine(key[1], MachineIdentity("m-aaaaaaaa", 1), lifetime_s=60, now=time.time())
    certificate, roots = issued.certificate_pem.decode(), ca.roots_pem.decode()
    kept = keys.Kept("m-aaaaaaaa", 1, certificate, roots, ("127.0.0.1:1",), "t-1", 1.0)
    mine = keys.identity_of(kept, key[0])
    identity.save(tmp_path, mine)
    assert lying.of_the_agent(tmp_path, mine) == []
    other = replace(mine, machine_id="m-bbbbbbbb")
    assert lying.of_the_agent(tmp_path, other) == ["it was m-bbbbbbbb/1, and is m-aaaaaaaa/1"]
    identity.save(tmp_path, replace(mine, key=keys.make_key()[0].decode()))
    assert lying.of_the_agent(tmp_path, mine) == ["certificate and key are of two pairs"]
    (tmp_path / "identity.json").unlink()
    assert lying.of_the_agent(tmp_path, mine) == ["its identity is gone"]
