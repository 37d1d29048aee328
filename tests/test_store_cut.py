"""A store that was cut short while its last writes are in the log beside it: refused as it lies, or nothing is lost.

And none is refused that only looks so: one that has grown in its log, one that the power left as the log was moved into
it, and one that another program writes to.
"""

import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner import onhost
from provisioner.errors import BedplateError
from provisioner.store import Store, StoreError, cut, frames
from tests.power import work

pytestmark = pytest.mark.slow

PAGE, HEAD, FRAME = 4096, 32, 24 + 4096
FAT, SMALL = 20, 4  # batches before the store was closed, and after
REFUSAL = r"^cannot open store [^\n]*cut short or damaged: restore it from a backup[^\n]*$"
Left = tuple[Path, list[str]]

GROW = """
import random, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
for setting in ("journal_mode=WAL", "synchronous=OFF", "wal_autocheckpoint=20"):
    database.execute(f"PRAGMA {setting}")
database.execute("CREATE TABLE grown (body BLOB)")
print(flush=True)
for number in range(3000):
    database.execute("INSERT INTO grown VALUES (?)", (random.randbytes(number * 37 % 30_000),))
"""


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """As a dead provisioner leaves it, its last writes still in the log; and what it held from then on."""
    folder = tmp_path_factory.mktemp("cut")
    _write(folder, range(FAT), 20_000).close()
    held = [work.contents(folder / "bedplate.db")]
    store = Store.open(folder / "bedplate.db")
    for number in range(FAT, FAT + SMALL):
        store.write(list(work.changes(number, 300)))
        held.append(work.contents(store.path))
    _copied(folder, folder / "left")
    store.close()
    return folder / "left", held


def _write(folder: Path, numbers: range, body_bytes: int) -> Store:
    store = Store.open(folder / "bedplate.db")
    for number in numbers:
        store.write(list(work.changes(number, body_bytes)))
    return store


def _copied(of: Path, to: Path) -> Path:
    to.mkdir()
    for name in ("bedplate.db", "bedplate.db-wal"):
        shutil.copyfile(of / name, to / name)
    return to / "bedplate.db"


def _found(path: Path) -> str:
    """What is in it, opened with the real code; empty where it was refused, and then nothing was touched."""
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    try:
        Store.open(path).close()
    except StoreError:
        with pytest.raises(BedplateError, match=REFUSAL):
            onhost.verify(path, ())
        assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == before
        return ""
    onhost.verify(path, ())
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    return work.contents(path)


def test_a_store_that_is_cut_short_beside_its_log_is_refused_as_it_lies_or_loses_nothing(
    left: Left, memory: Path
) -> None:
    folder, held = left
    size = (folder / "bedplate.db").stat().st_size
    pages = [1, *range(2, size // PAGE, 17), *range(size // PAGE - 8, size // PAGE)]
    ends = {
        *(size * tenth // 10 for tenth in range(1, 10)),
        *(page * PAGE + off for page in pages for off in (-1, 0, 1)),
    }
    refused = 0
    for end in sorted({*ends, size - 1, size}):
        path = _copied(folder, memory / str(end))
        os.truncate(path, end)
        found = _found(path)
        assert found in {"", held[-1]}
        refused += not found
        shutil.rmtree(path.parent)
    assert found == held[-1], "a store that was not cut is opened"
    assert refused > len(ends) * 3 // 4


@settings(max_examples=60)
@given(data=st.data())
def test_a_store_and_a_log_that_were_both_damaged_are_refused_or_hold_whole_batches(
    left: Left, data: st.DataObject
) -> None:
    folder, held = left
    log, size = (folder / "bedplate.db-wal").read_bytes(), (folder / "bedplate.db").stat().st_size
    path = folder / "both" / "bedplate.db"
    shutil.rmtree(path.parent, ignore_errors=True)
    _copied(folder, path.parent)
    os.truncate(path, data.draw(st.integers(100, size) | st.integers(size - 9 * PAGE, size)))
    spoilt = bytearray(log[: data.draw(st.just(len(log)) | st.integers(0, len(log)))])
    for place in data.draw(st.lists(st.integers(0, len(spoilt) - 1), max_size=2)) if spoilt else ():
        spoilt[place] ^= 1 << place % 8
    path.with_name("bedplate.db-wal").write_bytes(spoilt)
    assert _found(path) in {"", *held}


@pytest.mark.parametrize("lacking", [1, 100, PAGE - 1, PAGE, PAGE + 1])
@pytest.mark.parametrize("log", [None, b"", b"\xa5" * 5000])
def test_a_store_that_lacks_the_end_of_its_last_page_is_refused_where_no_log_has_it(
    left: Left, tmp_path: Path, lacking: int, log: bytes | None
) -> None:
    path = _copied(left[0], tmp_path / "whole")
    Store.open(path).close()
    if log is not None:
        path.with_name("bedplate.db-wal").write_bytes(log)
    os.truncate(path, path.stat().st_size - lacking)
    with pytest.raises(StoreError, match=REFUSAL):
        Store.open(path)


@pytest.mark.parametrize("flipped", [False, True])
def test_a_page_is_missing_where_the_log_has_it_behind_what_sqlite_will_read(memory: Path, *, flipped: bool) -> None:
    with closing(sqlite3.connect(memory / "bedplate.db", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, body BLOB)")
        database.executemany("INSERT INTO t VALUES (?, ?)", ((n, bytes(3000)) for n in range(50)))
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("UPDATE t SET body = randomblob(3000) WHERE n = 1")
        database.execute("UPDATE t SET body = randomblob(3000) WHERE n = 49")
        path = _copied(memory, memory / "left")
    wal, last = path.with_name("bedplate.db-wal"), path.stat().st_size // PAGE
    log = frames.read(wal, summed=True)
    assert log
    assert [ends for _, ends in log.frames] == [last, last]
    assert log.frames[-1][0] == last
    os.truncate(path, (last - 1) * PAGE)
    if flipped:
        wal.write_bytes(wal.read_bytes()[:-1] + b"\xa5")
    with path.open("rb") as file:
        assert cut.is_cut(file.fileno(), path) is flipped


@pytest.mark.parametrize("with_its_log", [False, True])
@pytest.mark.parametrize(
    ("end", "says"), [(1, "the file is empty; restore it from a backup"), (2, "not a database|cut short")]
)
def test_a_store_of_which_nothing_is_left_is_not_begun_anew(
    left: Left, tmp_path: Path, *, with_its_log: bool, end: int, says: str
) -> None:
    path = _copied(left[0], tmp_path / "cut")
    if not with_its_log:
        path.with_name("bedplate.db-wal").unlink()
    os.truncate(path, end)
    with pytest.raises(StoreError, match=says):
        Store.open(path)
    assert path.stat().st_size == end


def test_a_log_that_is_none_is_not_heeded(left: Left, tmp_path: Path) -> None:
    path = _copied(left[0], tmp_path / "whole")
    Store.open(path).close()
    path.with_name("bedplate.db-wal").write_bytes(b"\xa5" * 5000)
    assert _found(path) == left[1][-1]


def test_a_store_that_the_power_left_as_its_log_was_moved_into_it_is_opened(tmp_path: Path, memory: Path) -> None:
    store = _write(tmp_path, range(6), 20_000)
    folder, held = tmp_path / "left", work.contents(store.path)
    _copied(tmp_path, folder)
    store.close()
    pages = dict(sorted(_pages((folder / "bedplate.db-wal").read_bytes())))
    assert len(pages) > 40
    for moved in range(0, len(pages) + 1, 3):
        for torn in (0, 700):
            path = _copied(folder, memory / f"{moved}-{torn}")
            with path.open("r+b") as file:
                for number, (page, body) in enumerate(pages.items()):
                    file.seek((page - 1) * PAGE)
                    file.write(body[: PAGE if number < moved else torn if number == moved else 0])
            assert _found(path) == held
            shutil.rmtree(path.parent)


def _pages(log: bytes) -> Iterator[tuple[int, bytes]]:
    """Each page as it was last written."""
    for at in range(HEAD, len(log) - FRAME + 1, FRAME):
        if log[at + 8 : at + 16] == log[16:24]:
            yield struct.unpack(">I", log[at : at + 4])[0], log[at + 24 : at + FRAME]


def test_a_store_that_another_program_writes_to_is_never_taken_for_a_cut_one(memory: Path) -> None:
    path, looks = memory / "grown.db", 0
    with subprocess.Popen([sys.executable, "-c", GROW, path], stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        writer.stdout.readline()
        with path.open("rb") as file:
            while writer.poll() is None:
                assert not cut.is_cut(file.fileno(), path)
                looks += 1
    assert writer.returncode == 0
    assert looks > 20
    assert path.stat().st_size > 20_000_000


def test_a_store_that_is_reached_by_a_link_has_its_log_beside_the_file(left: Left, tmp_path: Path) -> None:
    path, link = _copied(left[0], tmp_path / "there"), tmp_path / "bedplate.db"
    link.symlink_to(path)
    Store.open(link).close()
    os.truncate(_copied(left[0], tmp_path / "cut"), 200_000)
    link.unlink()
    link.symlink_to(tmp_path / "cut" / "bedplate.db")
    with pytest.raises(StoreError, match=REFUSAL):
        Store.open(link)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of pages of several sizes: what was taken back, pages that were freed, the frames of an older log."""
    return [_of_pages(tmp_path_factory.mktemp("logs"), page_bytes) for page_bytes in (512, 1024, 65536)]


def _of_pages(folder: Path, page_bytes: int) -> Path:
    random = Random(page_bytes)  # noqa: S311 - a seed
    with closing(sqlite3.connect(folder / "bedplate.db", isolation_level=None)) as database:
        settings_ = (f"page_size={page_bytes}", "journal_mode=WAL", "wal_autocheckpoint=30", "cache_size=5")
        for setting in settings_:
            database.execute(f"PRAGMA {setting}")
        database.execute("CREATE TABLE t (body BLOB)")
        for number in range(60):
            if number == 30:
                database.execute("PRAGMA wal_autocheckpoint=0")
            database.execute("BEGIN")
            database.execute("INSERT INTO t VALUES (?)", (random.randbytes(random.randrange(9 * page_bytes)),))
            database.execute("SAVEPOINT s")
            database.execute("INSERT INTO t VALUES (?)", (random.randbytes(20 * page_bytes),))
            database.execute("ROLLBACK TO s" if number % 2 else "DELETE FROM t WHERE rowid % 3 = 0")
            database.execute("COMMIT")
        _copied(folder, folder / "left")
    return folder / "left"


@settings(max_examples=100)
@given(data=st.data())
def test_the_batches_of_a_log_are_those_that_sqlite_finds(logs: list[Path], data: st.DataObject) -> None:
    folder = data.draw(st.sampled_from(logs))
    log = bytearray((folder / "bedplate.db-wal").read_bytes())
    del log[data.draw(st.just(len(log)) | st.integers(0, len(log))) :]
    for place in data.draw(st.lists(st.integers(0, max(0, len(log) - 1)), max_size=1)) if log else ():
        log[place] ^= 1 << place % 8
    shutil.rmtree(folder / "read", ignore_errors=True)
    path = _copied(folder, folder / "read")
    wal = path.with_name("bedplate.db-wal")
    wal.write_bytes(log)
    found = frames.read(wal, summed=True)
    ends = [ends for _, ends in found.frames if ends] if found else []
    if not ends:
        return  # SQLite goes by the head of the store
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA page_count").fetchone() == (ends[-1],)


@pytest.mark.parametrize("page_bytes", [512, 65536])
def test_the_page_of_the_locks_is_counted_and_never_written(page_bytes: int) -> None:
    lock = 0x40000000 // page_bytes + 1
    end = (lock - 1) * page_bytes
    assert list(cut.wholes(lock - 1, end, page_bytes, [(1, 0), (lock + 1, lock + 1)])) == [True, True]
    assert list(cut.wholes(lock - 1, end, page_bytes, [(1, 0), (lock + 2, lock + 2)])) == [True, False]
