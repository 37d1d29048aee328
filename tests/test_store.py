"""The store: what was written is what is read, in one transaction a batch, whatever happens in between."""

import shutil
import stat
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

import provisioner.store
from provisioner.store import Policy, Store, StoreError, UnknownInventoryError
from provisioner.store.schema import HEAD, metadata
from provisioner.world import (
    Accepted,
    Answered,
    Asked,
    Change,
    InventoryKept,
    Met,
    Noted,
    TokenMade,
    VitalsKept,
)
from tests.histories import HISTORIES

DAY_S = 86400.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "bedplate.db")
    opened.begin_epoch()
    yield opened
    opened.close()


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A store without anything, closed: a copy of it is quicker than its migrations."""
    store = Store.open(tmp_path / "empty.db")
    store.close()
    return store.path


def _asked(machine_id: str = "m-1") -> Asked:
    return Asked(machine_id, 1, b"k" * 32, b"evidence", "gpu-01", "DGX", "S1", "t-1", "", 1.0)


def _inventory(number: int, at: float, *, body: bool = True) -> InventoryKept:
    digest = bytes([number]) * 32
    return InventoryKept("m-1", digest, b"body" if body else None, "gpu-01", "", "", 8, "H100", 12, "", "", at)


def _noted(kind: str, machine_id: str = "m-1", at: float = 1.0) -> Noted:
    return Noted(kind, machine_id, "gpu-01", "because", "provisioner", at)


def test_the_migrations_make_the_tables_that_the_code_means(store: Store) -> None:
    engine = create_engine(f"sqlite:///{store.path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
    folder = Path(provisioner.store.__file__).parent / "migrations"
    assert ScriptDirectory(str(folder)).get_current_head() == HEAD


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=HISTORIES, data=st.data())
def test_the_world_that_is_loaded_is_the_one_that_the_changes_made(
    history: list[Change], data: st.DataObject, empty: Path
) -> None:
    with closing(Store.open(shutil.copy(empty, empty.with_name(f"{uuid.uuid4()}.db")))) as store:
        world = store.load(5.0)
        while history:
            size = data.draw(st.integers(1, len(history)), label="batch")
            batch, history = history[:size], history[size:]
            world = world.after(zip(store.write(batch), batch, strict=True))
        assert store.world == world
        assert store.load(5.0) == world
    with closing(Store.open(store.path)) as again:
        assert again.load(5.0) == world


def test_revisions_go_up_by_one_over_batches_and_lives(store: Store) -> None:
    first = store.write([_asked(), _noted("machine.asked")])
    store.close()
    again = Store.open(store.path)
    assert (first, again.begin_epoch(), again.write([_noted("x"), _noted("y")]), again.write([])) == (
        [1, 2],
        2,
        [3, 4],
        [],
    )
    again.close()


def test_of_many_vitals_in_a_batch_the_last_stands_and_each_has_its_revision(store: Store) -> None:
    store.write([_asked()])
    vitals = [VitalsKept("m-1", b"r" * 16, number, b"%d" % number, b"p", 0, float(number)) for number in range(1, 101)]
    assert store.write(vitals) == list(range(2, 102))
    row = store.vitals("m-1")
    assert row
    assert (row.run_id, row.sequence, row.vitals, row.problems, row.at) == (b"r" * 16, 100, b"100", b"p", 100.0)


def test_a_new_life_of_a_machine_has_no_vitals_of_the_old_one(store: Store) -> None:
    store.write([_asked(), VitalsKept("m-1", b"r" * 16, 1, b"v", b"p", 0, 1.0)])
    store.write([_asked()])
    assert store.vitals("m-1") is None
    assert store.evidence("m-1") == b"evidence"


def test_inventories_are_kept_by_digest_with_the_time_that_the_machine_had_them(store: Store) -> None:
    store.write([_asked(), _inventory(1, 2.0)])
    store.write([_inventory(2, 5.0), _inventory(1, 7.0, body=False)])
    seen = [(entry.digest[0], entry.first_seen_at, entry.last_seen_at) for entry in store.history("m-1")]
    assert seen == [(1, 2.0, 7.0), (2, 5.0, 7.0)]
    assert (store.inventory(b"\1" * 32), store.has_inventory(b"\3" * 32), store.inventory(b"\3" * 32)) == (
        b"body",
        False,
        None,
    )


def test_an_inventory_that_never_came_is_asked_for_and_nothing_of_the_batch_is_written(store: Store) -> None:
    store.write([_asked()])
    with pytest.raises(UnknownInventoryError) as error:
        store.write([Accepted("m-1", 2.0), _inventory(4, 2.0, body=False)])
    assert error.value.digests == (b"\4" * 32,)
    assert store.load(0.0).machines["m-1"].accepted_at is None
    assert store.write([_noted("x")]) == [2]


def test_a_change_that_makes_no_sense_takes_its_batch_along_and_nothing_else(store: Store) -> None:
    with pytest.raises(KeyError):
        store.write([_asked(), Accepted("m-9", 1.0)])
    with pytest.raises(StoreError, match="cannot write store"):
        store.write([_asked(), VitalsKept("m-1", b"r" * 16, 1 << 64, b"", b"", 0, 1.0)])
    assert store.load(0.0).machines == {}
    assert store.write([_asked()]) == [1]


def test_events_are_read_from_either_end_by_machine_and_by_kind(store: Store) -> None:
    kinds = ["machine.asked", "token.created", "machine.silent", "machine.silent", "token.revoked"]
    store.write([_noted(kind, f"m-{number % 2}") for number, kind in enumerate(kinds)])

    def revisions(**query: object) -> list[int]:
        return [event.revision for event in store.events(**query)]  # type: ignore[arg-type]

    assert revisions() == [1, 2, 3, 4, 5]
    assert revisions(after=2, limit=2) == [3, 4]
    assert revisions(newest_first=True, before=4, limit=2) == [3, 2]
    assert revisions(machine_id="m-1") == [2, 4]
    assert revisions(kind_prefix="machine.") == [1, 3, 4]
    assert revisions(kind_prefix="machine%") == []


def test_the_first_answer_to_a_request_id_stands(store: Store) -> None:
    answers = [Answered("alice", "r-1", "Forget", b"s" * 32, body, 1.0) for body in (b"first", b"second")]
    store.write(answers[:1])
    store.write(answers[1:])
    kept = store.answered("alice", "r-1")
    assert kept
    assert (kept.method, kept.response) == ("Forget", b"first")
    assert store.answered("bob", "r-1") is None


def test_what_is_old_goes_and_what_a_machine_has_now_stays(store: Store) -> None:
    store.write([_asked(), _noted("old", at=1.0), _inventory(1, 1.0), _inventory(2, 2.0)])
    store.write([_inventory(3, 60 * DAY_S), _inventory(1, 200 * DAY_S, body=False), _noted("new", at=200 * DAY_S)])
    store.write([Answered("alice", "r-1", "Forget", b"s" * 32, b"", 1.0)])
    pruned = store.prune(201 * DAY_S, Policy(inventory_s=90 * DAY_S, event_s=90 * DAY_S))
    assert (pruned.inventories, pruned.events, pruned.answers) == (1, 1, 1)
    assert [entry.digest[0] for entry in store.history("m-1")] == [1, 3]
    assert [event.kind for event in store.events()] == ["new"]
    assert (store.oldest_event_revision(), store.inventory(b"\2" * 32)) == (3, None)
    before = store.load(0.0)
    assert store.prune(900 * DAY_S, Policy(inventories=1)).events == 1
    assert store.load(0.0) == before
    assert [entry.digest[0] for entry in store.history("m-1")] == [1]


def test_no_more_inventories_are_kept_of_a_machine_than_the_policy_says(store: Store) -> None:
    store.write([_asked(), *(_inventory(number, float(number)) for number in range(1, 31))])
    assert store.prune(31.0, Policy(inventories=5)).inventories == 25
    assert [entry.digest[0] for entry in store.history("m-1")] == [30, 29, 28, 27, 26]


def test_the_files_are_for_their_owner_alone_from_the_first_byte(store: Store) -> None:
    store.write([_asked()])
    files = sorted(store.path.parent.glob("bedplate.db*"))
    assert [path.name for path in files] == ["bedplate.db", "bedplate.db-shm", "bedplate.db-wal"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_what_is_answered_is_on_the_disk_and_not_only_on_its_way(store: Store) -> None:
    with store._writing.connect() as connection:
        settings_ = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("synchronous", "foreign_keys")]
        journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
    assert (settings_, journal) == ([2, 1], "wal")


def test_an_older_life_of_the_provisioner_writes_no_more(store: Store) -> None:
    younger = Store.open(store.path)
    younger.begin_epoch()
    with pytest.raises(StoreError, match="another provisioner has taken it over"):
        store.write([_asked()])
    assert younger.write([_asked()]) == [1]
    younger.close()


def test_readers_in_threads_see_whole_batches_while_one_thread_writes(store: Store) -> None:
    store.write([_asked("m-0")])
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(len(store.events(limit=1000)))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        store.write([_noted("machine.changed") for _ in range(20)])
    done.set()
    for thread in threads:
        thread.join()
    assert seen
    assert all(count % 20 == 0 for count in seen)


def test_everything_of_a_machine_and_a_token_comes_back(store: Store) -> None:
    made = TokenMade("t-1", b"s" * 32, 1.0, 60.0, 0, review=True, created_by="alice")
    met = Met("m-1", "s-1", 1, b"r" * 16, "1.0", "boot", "10.0.0.7", -3.5, 2.0)
    world = store.load(9.0)
    changes: list[Change] = [made, _asked(), met, _inventory(1, 3.0)]
    world = world.after(zip(store.write(changes), changes, strict=True))
    assert store.load(9.0) == world
    assert store.load(9.0).tokens["t-1"].review is True
