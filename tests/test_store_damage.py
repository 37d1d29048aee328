"""A store whose files were damaged where they lie: the log beside it cut short anywhere, and bits that flipped.

What can be read without doubt is read, and all else is refused with what to do. Nothing is ever there by half.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from provisioner import onhost
from provisioner.store import Store, StoreError
from tests.power import work

pytestmark = pytest.mark.slow

BATCHES = 6
FRAME = 24 + 4096  # of SQLite's log: each page behind its own header, after one of 32 bytes
CUTS, FLIPS = 40, 200


@pytest.fixture(scope="module")
def lying(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A store as a dead provisioner leaves it, its last writes still in the log; and what it held after each batch."""
    folder = tmp_path_factory.mktemp("lying")
    store, held = Store.open(folder / "bedplate.db"), []
    for number in range(BATCHES):
        store.write(list(work.changes(number, 3000)))
        held.append(work.contents(store.path))
    left = folder / "left"
    left.mkdir()
    for name in ("bedplate.db", "bedplate.db-wal"):
        shutil.copyfile(folder / name, left / name)
    fresh = Store.open(folder / "empty.db")
    fresh.close()
    held.insert(0, work.contents(fresh.path))
    store.close()
    return left, held


def _seeded(count: int, end: int) -> Iterator[int]:
    random = Random(end)  # noqa: S311 - a seed
    return (random.randrange(end) for _ in range(count))


def _opened(folder: Path) -> str:
    """What is in it, opened with the real code: the audit whole."""
    Store.open(folder / "bedplate.db").close()
    onhost.verify(folder / "bedplate.db", ())
    return work.contents(folder / "bedplate.db")


@pytest.mark.slow
def test_a_log_that_is_cut_short_at_any_byte_leaves_whole_batches_up_to_there(
    lying: tuple[Path, list[str]], memory: Path
) -> None:
    left, held = lying
    whole = (left / "bedplate.db-wal").read_bytes()
    assert len(whole) > 20 * FRAME
    edges = {32 + frame * FRAME + off for frame in range(len(whole) // FRAME) for off in (-1, 0, 1)}
    found = []
    for end in sorted({0, 1, 31, 32, len(whole), *edges, *_seeded(CUTS, len(whole))}):
        folder = shutil.copytree(left, memory / str(end))
        (folder / "bedplate.db-wal").write_bytes(whole[:end])
        found.append(held.index(_opened(folder)))
        shutil.rmtree(folder)
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, BATCHES)


def test_a_bit_that_flipped_in_the_log_leaves_whole_batches_up_to_there(
    lying: tuple[Path, list[str]], memory: Path
) -> None:
    left, held = lying
    whole = (left / "bedplate.db-wal").read_bytes()
    for place in _seeded(CUTS, len(whole) * 8):
        folder = shutil.copytree(left, memory / str(place))
        (folder / "bedplate.db-wal").write_bytes(_flipped(whole, place))
        assert _opened(folder) in held
        shutil.rmtree(folder)


def _flipped(whole: bytes, place: int) -> bytes:
    changed = bytearray(whole)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


@pytest.mark.slow
def test_a_bit_that_flipped_in_the_store_is_a_line_that_says_what_to_do_or_changes_nothing_that_is_read(
    lying: tuple[Path, list[str]], memory: Path
) -> None:
    left, _ = lying
    settled = shutil.copytree(left, memory / "settled")
    Store.open(settled / "bedplate.db").close()
    whole, refused = (settled / "bedplate.db").read_bytes(), 0
    for place in [*range(0, 800, 5), *_seeded(FLIPS, len(whole) * 8)]:
        path = memory / "bedplate.db"
        path.write_bytes(_flipped(whole, place))
        refused += bool(refusal := _read_through(path))
        assert "\n" not in refusal
    assert refused > 20


def _read_through(path: Path) -> str:
    """All that a provisioner reads of it, and a write; the line where it is refused."""
    try:
        store = Store.open(path)
    except StoreError as error:
        return str(error)
    try:
        store.begin_epoch()
        for name, facts in store.load(0.0).machines.items():
            _ = store.vitals(name), store.history(name), store.evidence(name), store.inventory(facts.inventory_digest)
        _ = store.events(limit=1000), store.audit(limit=1000), store.answered("admin", "r-1")
        store.write(list(work.changes(50, 10)))
    except StoreError as error:
        return str(error)
    finally:
        store.close()
        for name in ("bedplate.db-wal", "bedplate.db-shm"):
            path.with_name(name).unlink(missing_ok=True)
    return ""
