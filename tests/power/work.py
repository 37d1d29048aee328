"""`python -m tests.power.work STORE LOG short|long`: writes to a store, and marks each step once it returned."""

import hashlib
import marshal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from provisioner.store import Policy, Store
from provisioner.world import (
    Accepted,
    Answered,
    Asked,
    Audited,
    Certified,
    Change,
    InventoryKept,
    Met,
    Noted,
    TokenMade,
    TokenUsed,
    VitalsKept,
)
from tests.power.recording import mark

Step = Callable[[Store], object]
PRUNED = 6  # slices, each of what is left then
LONG = 40  # batches: enough that SQLite moves its log into the database more than once while it is written


def steps(length: str) -> Iterator[Step | None]:
    """What is done, one after the other; None: the provisioner ends and comes back."""
    yield lambda store: store.begin_epoch()
    batches = 4 if length == "short" else LONG
    for number in range(batches):
        yield _writes(number, body_bytes=500 if length == "short" else 120_000)
        if number % 20 == 1:
            yield lambda store: store.put_aside(_entry(f"beside {store.world.epoch}", 1.0))
        if number % 20 == 2:
            yield None
            yield lambda store: store.begin_epoch()
    for _ in range(PRUNED):
        yield lambda store: next(store.pruning(1e6, Policy(inventories=1, event_s=1e6 - 2.5), most=2), None)


def _writes(number: int, body_bytes: int) -> Step:
    made = list(changes(number, body_bytes))
    return lambda store: store.write(made)


def changes(number: int, body_bytes: int) -> Iterator[Change]:
    """What an enrolment, a stream and a person's write leave."""
    machine, key, at = f"m-{number % 3}", bytes([number]) * 32, float(number)
    body = Random(number).randbytes(body_bytes)  # noqa: S311 - bytes of no meaning
    digest = hashlib.sha256(body).digest()
    yield TokenMade(f"t-{number}", key, at, at + 60, 1, review=False, created_by="admin (admin)")
    yield Asked(machine, number + 1, key, b"", f"gpu-{number}", "DGX", "S1", f"t-{number}", "", at)
    yield TokenUsed(f"t-{number}", key, machine, at)
    yield Accepted(machine, at)
    yield Certified(machine, key, f"{number:x}", at + 60, at)
    yield Met(machine, f"s-{number}", 1, b"r" * 16, "0.1.0", "boot", "10.0.0.7", 0.0, at)
    yield InventoryKept(machine, digest, body, "h", "p", "s", 8, "H100", 8, "os", "6.1", at)
    yield VitalsKept(machine, b"r" * 16, number + 1, b"v" * 900, b"p", 0, at)
    yield Noted("machine.enrolled", machine, "h", "because", "machine", at)
    yield Answered("admin", f"r-{number}", "CreateToken", b"s" * 32, b"answer", at)
    yield _entry(f"r-{number}", at)


def _entry(request_id: str, at: float) -> Audited:
    return Audited("admin", "admin", "CreateToken", request_id, "", "", '{"tokens":[]}', at)


def done(path: Path, length: str) -> Iterator[Path]:
    """Does all of it; the store's path after it was opened, and after each step."""
    store = Store.open(path)
    try:
        yield path
        for step in steps(length):
            if step is None:
                store.close()
                store = Store.open(path)
                store.load(0.0)
            else:
                step(store)
            yield path
    finally:
        store.close()


def contents(path: Path) -> str:
    """Every row of every table, as one hash; but for the name that each store draws for itself."""
    database, told = sqlite3.connect(path), hashlib.sha256()
    try:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        for (table,) in tables:
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})") if row[1] != "fleet"]
            rows = database.execute(f"SELECT {', '.join(columns)} FROM {table}")  # noqa: S608 - its own names
            told.update(marshal.dumps((table, sorted(marshal.dumps(row) for row in rows))))
    finally:
        database.close()
    return told.hexdigest()


if __name__ == "__main__":
    for count, _ in enumerate(done(Path(sys.argv[1]), sys.argv[3])):
        mark(str(count), Path(sys.argv[2]))
