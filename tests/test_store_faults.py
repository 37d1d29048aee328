"""The store on its worst day: killed in mid-batch, full, read-only, cut short, of another version or program."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from provisioner.store import Store, StoreError
from provisioner.world import Asked, Noted

BATCH = 400

WRITE_FOR_EVER = f"""
import sys
from provisioner.store import Store
from provisioner.world import Asked, Noted
store = Store.open(sys.argv[1])
store.begin_epoch()
batch = len(store.load(0.0).machines)
while True:
    name = f"m-{{batch}}"
    asked = Asked(name, 1, b"k", b"", name, "", "", "", "", float(batch))
    store.write([asked, *(Noted("machine.asked", name, "", "x" * 50, "", 1.0) for _ in range({BATCH}))])
    print(batch, flush=True)
    batch += 1
"""

FILL_THE_DISK = """
import resource, sys
from provisioner.store import Store, StoreError
from provisioner.world import Asked, Noted
store = Store.open(sys.argv[1])
store.begin_epoch()
store.write([Asked("m-0", 1, b"k", b"", "", "", "", "", "", 1.0)])
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, unlimited[1]))
written = 0
try:
    while True:
        store.write([Noted("machine.changed", "m-0", "", "x" * 200, "", 1.0) for _ in range(100)])
        written += 100
except StoreError as error:
    print(error)
assert len(store.events(limit=1000000)) == written, "reading goes on, and half a batch is not there"
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
assert store.write([Noted("machine.changed", "m-0", "", "", "", 1.0)]) == [written + 2]
store.close()
"""

OPEN_WITHOUT_LEAVE = """
import ctypes, sys
from provisioner.store import Store, StoreError
header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capset(header, nothing) == 0  # root asks for leave too, from now on
try:
    Store.open(sys.argv[1])
except StoreError as error:
    print(error)
"""


def _run(script: str, path: Path) -> str:
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with something in it, closed."""
    store = Store.open(tmp_path / "bedplate.db")
    store.write([Asked("m-1", 1, b"k", b"", "", "", "", "", "", 1.0), *(Noted("x", "m-1", "", "", "", 1.0),) * 500])
    store.close()
    return store.path


def _refusal(path: Path) -> str:
    with pytest.raises(StoreError, match=r"^cannot open store [^\n]*$") as error:
        Store.open(path)
    return str(error.value)


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_in_the_middle_of_a_batch_leaves_all_of_it_or_nothing(tmp_path: Path, seed: int) -> None:
    path, moment = tmp_path / "bedplate.db", random.Random(seed)  # noqa: S311 - a seed, not a secret
    acknowledged = -1
    for _ in range(2):
        writer = subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, path], stdout=subprocess.PIPE, text=True)
        assert writer.stdout
        for line in writer.stdout:
            acknowledged = int(line)
            if moment.random() < 0.2:
                break
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
        writer.stdout.close()
        writer.wait()
        store = Store.open(path)
        world, events = store.load(0.0), store.events(limit=10**6)
        store.close()
        assert len(world.machines) in (acknowledged + 1, acknowledged + 2)
        assert Counter(event.machine_id for event in events) == dict.fromkeys(world.machines, BATCH)
        assert world.revision == len(world.machines) * (BATCH + 1)


def test_a_full_disk_is_said_nothing_is_half_written_and_it_goes_on_when_there_is_room(tmp_path: Path) -> None:
    line = _run(FILL_THE_DISK, tmp_path / "bedplate.db").strip()
    assert line.startswith(f"cannot write store {tmp_path}/bedplate.db: ")
    assert line.endswith("nothing of this batch was written")


def test_a_store_that_may_not_be_written_is_said(path: Path) -> None:
    path.chmod(0o400)
    assert _run(OPEN_WITHOUT_LEAVE, path).strip() == (
        f"cannot open store {path}: Permission denied; make it and its folder readable and writable for this user"
    )


@pytest.mark.parametrize("tenths", range(10))
def test_a_store_that_is_cut_short_is_not_opened_and_not_begun_anew(path: Path, tenths: int) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * tenths // 10])
    assert "restore it from a backup" in _refusal(path)
    assert path.stat().st_size == len(whole) * tenths // 10


def test_what_is_no_database_is_named_so(tmp_path: Path) -> None:
    path = tmp_path / "bedplate.db"
    path.write_text("listen = '127.0.0.1:7443'\n" * 100)
    assert "file is not a database" in _refusal(path)


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "bedplate.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE cookies (name TEXT)")
    database.close()
    assert "a database of something else" in _refusal(path)
    database = sqlite3.connect(path)
    assert [row[0] for row in database.execute("SELECT name FROM sqlite_master")] == ["cookies"]
    database.close()


def test_a_store_of_a_newer_provisioner_is_not_touched(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.commit()
    database.close()
    assert "a newer provisioner made it (version 9999); run that one" in _refusal(path)


def test_a_store_in_no_folder_or_that_is_one_or_elsewhere_is_said(tmp_path: Path) -> None:
    assert _refusal(tmp_path / "none" / "bedplate.db").endswith(
        "No such file or directory; make its folder first: provisioner init"
    )
    assert "Is a directory" in _refusal(tmp_path)
    with pytest.raises(StoreError, match="only SQLite is built in"):
        Store.open("postgresql://db.example/bedplate")


def test_a_store_may_be_named_by_url_and_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "50 % ?mode=ro#é.db"
    store = Store.open(f"sqlite:///{path}")
    store.close()
    assert path.stat().st_size > 0


def test_a_birth_that_was_cut_short_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "bedplate.db.new").write_bytes(b"half of it")
    store = Store.open(tmp_path / "bedplate.db")
    assert store.load(0.0).machines == {}
    store.close()
    assert not (tmp_path / "bedplate.db.new").exists()
