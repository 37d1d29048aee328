"""The chain of the audit: what is changed in the store by hand is found, and what stands in it outlives everything."""

import shutil
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from provisioner import chain, onhost
from provisioner.errors import BedplateError
from provisioner.store import Policy, Store
from provisioner.world import Accepted, Asked, Audited

ENTRIES = 6
TEXTS = ("who", "role", "method", "request_id", "machine_id", "before", "after")
NUMBERS = ("sequence", "at_ns")
HASHES = ("previous_sha256", "sha256")


def _audited(number: int) -> Audited:
    before, after = '{"machines":[{"machine_id":"m-1"}]}', '{"machines":[{"machine_id":"m-1","hostname":"späne"}]}'
    return Audited("alice", "admin", "AcceptMachine", f"r-{number}", "m-1", before, after, 1_800_000_000.0 + number)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with some entries: written in one batch, in another, and from beside."""
    store = Store.open(tmp_path_factory.mktemp("chain") / "bedplate.db")
    store.begin_epoch()
    store.write([_audited(number) for number in range(ENTRIES - 2)])
    store.write([_audited(ENTRIES - 1)])
    store.put_aside(_audited(ENTRIES))
    store.close()
    return store.path


def _copy(whole: Path) -> Path:
    return Path(shutil.copy(whole, whole.with_name(f"{uuid.uuid4()}.db")))


def _edited(whole: Path, *statements: tuple[str, tuple[object, ...]]) -> Path:
    path = _copy(whole)
    with closing(sqlite3.connect(path)) as connection:
        for statement, values in statements:
            connection.execute(statement, values)
        connection.commit()
    return path


def _assert_found(path: Path) -> None:
    with pytest.raises(BedplateError, match=r"cannot (trust the audit|read store|open store)"):
        onhost.verify(path, ())
    path.unlink()


def test_a_chain_that_nobody_touched_is_whole(whole: Path) -> None:
    last = onhost.verify(whole, ())
    assert last.sequence == ENTRIES
    assert onhost.verify(whole, [last, chain.START]) == last


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequence=st.integers(1, ENTRIES), column=st.sampled_from([*TEXTS, *NUMBERS, *HASHES]), data=st.data())
def test_any_bit_that_changed_in_any_entry_is_found(
    sequence: int, column: str, data: st.DataObject, whole: Path
) -> None:
    path = _copy(whole)
    with closing(sqlite3.connect(path)) as connection:
        (old,) = connection.execute(
            f"SELECT CAST({column} AS BLOB) FROM audit WHERE sequence = ?",  # noqa: S608 - columns of our own
            (sequence,),
        ).fetchone()
        new: object
        if column in NUMBERS:
            new = int(old) ^ (1 << data.draw(st.integers(0, 61)))
        else:
            bit = data.draw(st.integers(0, len(old) * 8 - 1))
            new = (int.from_bytes(old, "big") ^ (1 << bit)).to_bytes(len(old), "big")
        kind = {"sequence": "?", "at_ns": "?"}.get(column, "?" if column in HASHES else "CAST(? AS TEXT)")
        try:
            connection.execute(f"UPDATE audit SET {column} = {kind} WHERE sequence = ?", (new, sequence))  # noqa: S608
        except sqlite3.IntegrityError:
            reject()  # two entries of one number cannot be
        connection.commit()
    _assert_found(path)


@pytest.mark.parametrize("sequence", range(1, ENTRIES + 1))
def test_an_entry_that_was_taken_out_is_found_and_so_is_the_last(whole: Path, sequence: int) -> None:
    gone = ("DELETE FROM audit WHERE sequence = ?", (sequence,))
    _assert_found(_edited(whole, gone))
    closed_up = ("UPDATE audit SET sequence = sequence - 1 WHERE sequence > ?", (sequence,))
    _assert_found(_edited(whole, gone, closed_up))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pair=st.lists(st.integers(1, ENTRIES), min_size=2, max_size=2, unique=True))
def test_two_entries_that_were_swapped_are_found(pair: list[int], whole: Path) -> None:
    move = "UPDATE audit SET sequence = ? WHERE sequence = ?"
    one, other = pair
    _assert_found(_edited(whole, (move, (99, one)), (move, (one, other)), (move, (other, 99))))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_head SET sequence = sequence - 1",
        "UPDATE audit_head SET sequence = sequence + 1",
        "UPDATE audit_head SET sha256 = zeroblob(32)",
        "DELETE FROM audit_head",
        "DELETE FROM audit",
    ],
)
def test_a_head_that_was_moved_and_a_chain_that_is_gone_are_found(whole: Path, statement: str) -> None:
    _assert_found(_edited(whole, (statement, ())))


def test_an_anchor_shows_a_chain_that_was_written_anew(whole: Path) -> None:
    kept = onhost.verify(whole, ())
    store = Store.open(whole.with_name("anew.db"))
    for number in range(ENTRIES + 1):
        store.put_aside(_audited(number + 1))
    store.close()
    onhost.verify(store.path, ())
    with pytest.raises(chain.ChainError, match=f"entry {ENTRIES} is not the one of the anchor"):
        onhost.verify(store.path, [kept])
    with pytest.raises(chain.ChainError, match="entry 99 was there once"):
        onhost.verify(whole, [chain.Link(99, bytes(32))])


@pytest.mark.parametrize("text", ["", "42", "42:abc", "x:" + "0" * 64, "1:" + "0" * 64 + "\n", "-1:" + "0" * 64])
def test_what_is_no_anchor_is_one_line(text: str) -> None:
    with pytest.raises(chain.AnchorError, match="cannot read anchor"):
        chain.anchor(text)
    link = chain.Link(7, b"a" * 32)
    assert chain.anchor(str(link)) == link


def test_pruning_leaves_every_entry_however_old(whole: Path) -> None:
    store = Store.open(_copy(whole))
    store.begin_epoch()
    store.prune(1e12, Policy(inventories=0, inventory_s=0, event_s=0, answer_s=0))
    store.close()
    assert onhost.verify(store.path, ()) == onhost.verify(whole, ())


def test_an_entry_is_there_with_its_effect_or_neither_is(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "bedplate.db")
    store.begin_epoch()
    asked = Asked("m-1", 1, b"k" * 32, b"", "gpu-01", "", "", "t-1", "", 1.0)
    with pytest.raises(KeyError):
        store.write([asked, _audited(1), Accepted("m-none", 1.0)])
    assert store.audit() == ([], chain.START)
    store.write([asked, _audited(1)])
    assert len(store.audit()[0]) == 1
    store.close()


def test_a_provisioner_writes_on_after_an_entry_from_beside(tmp_path: Path) -> None:
    running = Store.open(tmp_path / "bedplate.db")
    running.begin_epoch()
    running.write([_audited(1)])
    beside = Store.open(running.path)
    beside.put_aside(_audited(2))
    beside.close()
    running.write([_audited(3)])
    running.close()
    assert onhost.verify(running.path, ()).sequence == 3
