"""A power cut at any moment: of the provisioner's store, of the CA, of the agent's identity."""

import base64
import json
import shutil
import sqlite3
import time
from collections.abc import Container, Iterator
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from nodeagent import identity
from provisioner import credentials, onhost, onroots
from provisioner.errors import BedplateError
from provisioner.pki import MachineIdentity, authority, csr_key, new_key
from provisioner.rotation import steps
from provisioner.store import Store
from tests.power import work
from tests.power.disk import Disk, everything, nothing, put, some
from tests.power.recording import Call, calls, mark, recorded

pytestmark = pytest.mark.slow
SHORT_WAYS, LONG_CUTS = 3, 25


class Cut(dict[str, bytes | None]):
    """What is found on the disk, by name; where that was, and the last thing that was acknowledged before."""

    where: str
    marked: str


def _cuts(recording: list[Call], ways: int, at: Container[int] | None = None) -> Iterator[Cut]:
    """At each boundary: all that was not synced is gone, or there, or some of it, in so many ways; each disk once."""
    disk, marked, seen = Disk(), "", set[int]()
    boundaries = _boundaries(recording) if at is None else at
    for number, call in enumerate(recording):
        disk.do(call)
        marked = call.name if call.op == "!" else marked
        if number not in boundaries:
            continue
        for way in (nothing, everything, *(some(Random(f"{number}/{n}")) for n in range(ways))):  # noqa: S311 - seeds
            cut = Cut(disk.found(way))
            cut.where, cut.marked = f"after call {number}: {call.op} {call.name}", marked
            key = hash((marked, tuple(sorted((name, body) for name, body in cut.items() if body is not None))))
            if key not in seen:
                seen.add(key)
                yield cut


def _boundaries(recording: list[Call]) -> list[int]:
    """Between two of them only writes pile up, and those are lost in every way anyhow."""
    return [n for n in range(len(recording)) if any(call.op in "fdru!m" for call in recording[n : n + 2])]


def _store(folder: Path, length: str) -> tuple[list[Call], list[str]]:
    """What was recorded, and what the store must hold after each step."""
    root, log = folder / "root", folder / "log"
    root.mkdir()
    recorded(root, log, ["-m", "tests.power.work", str(root / "bedplate.db"), str(log), length])
    held = [work.contents(path) for path in work.done(folder / "model.db", length)]
    return calls(log), held


def _holds(folder: Path, cut: Cut, held: list[str]) -> None:
    """The real store opens, the chain is whole, and all that was acknowledged is there, and no half of the next."""
    put({name: body for name, body in cut.items() if not name.endswith("-shm")}, folder)
    path = folder / "bedplate.db"
    if (folder / "bedplate.db-wal").exists():
        (folder / "bedplate.db-shm").write_bytes(b"\xa5" * 32768)  # whatever: it is no part of what is kept
    Store.open(path).close()
    onhost.verify(path, ())
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()
    step = int(cut.marked or 0)
    assert work.contents(path) in held[step : step + 2], cut.where
    assert sorted(each.name for each in folder.iterdir()) == ["bedplate.db"], "nothing is left over"
    shutil.rmtree(folder)


@pytest.mark.timeout(180)
def test_the_store_holds_all_that_was_acknowledged_wherever_the_power_is_cut(memory: Path) -> None:
    recording, held = _store(memory, "short")
    assert sum(call.op == "f" for call in recording) >= 15
    _all_hold(memory / "found", recording, held)


def _all_hold(folder: Path, recording: list[Call], held: list[str]) -> None:
    for cut in _cuts(recording, SHORT_WAYS):
        _holds(folder, cut, held)


@pytest.mark.timeout(180)
def test_a_store_that_moves_its_log_into_the_database_holds_it_too(memory: Path) -> None:
    recording, held = _store(memory, "long")
    boundaries = _boundaries(recording)
    moved = [
        n
        for n in boundaries
        if recording[n].op == "f" and recording[n - 1].op == "w" and not recording[n - 1].offset % 4096
    ]
    assert len(moved) > 2, "SQLite has moved its log"
    chosen = {*moved, *(n - 1 for n in moved), *Random(1).sample(boundaries, LONG_CUTS)}  # noqa: S311 - a seed
    for cut in _cuts(recording, 1, chosen):
        _holds(memory / "found", cut, held)


def test_a_disk_that_lies_about_what_it_has_synced_is_found(memory: Path) -> None:
    recording, held = _store(memory, "short")
    lying = [call for call in recording if call.op != "f"]
    with pytest.raises((AssertionError, BedplateError)):
        _all_hold(memory / "found", lying, held)


INIT = """
import sys, time
from pathlib import Path
from provisioner import onhost
from tests.power.recording import mark
mark(onhost.init(Path(sys.argv[1]), "admin", time.time()).sha256.hex(), Path(sys.argv[2]))
"""


@pytest.mark.timeout(180)
def test_a_ca_is_whole_or_is_made_again_wherever_the_power_is_cut(memory: Path) -> None:
    root, log, found = memory / "root", memory / "log", memory / "found"
    root.mkdir()
    recorded(root, log, ["-c", INIT, str(root / "state"), str(log)])
    for cut in _cuts(calls(log), SHORT_WAYS):
        put(cut, found)
        state = found / "state"
        assert cut.marked == "" or (state / "ca.pem").exists(), cut.where
        if not (state / "ca.pem").exists():
            onhost.init(state, "admin", time.time())
        ca = credentials.load(state)
        assert cut.marked in {"", ca.sha256.hex()}, cut.where
        _of_one_pair(state, ca.roots_pem)
        shutil.rmtree(found)


def _of_one_pair(state: Path, roots: bytes) -> None:
    """The admin's credentials are of this CA, and the audit knows them."""
    files = {path.name: path.read_bytes() for path in (state / "admin").iterdir()}
    certificate = x509.load_pem_x509_certificate(files["cert.pem"])
    assert certificate.public_key() == load_pem_private_key(files["key.pem"], None).public_key()
    assert files["ca.pem"] == roots
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(roots))
    store = Store.open(state / "bedplate.db")
    entries, _ = store.audit()
    store.close()
    assert any(f"{certificate.serial_number:x}" in entry.after for entry in entries)


ROTATE = """
import sys, time
from pathlib import Path
from provisioner import onroots
from provisioner.rotation import Step
from tests.power.recording import mark
for step in Step:
    onroots.take(Path(sys.argv[1]), step, time.time())
    mark(step.name, Path(sys.argv[2]))
"""
LEAST = {"made": 1, "TRUST": 2, "SERVE": 1, "DROP": 1}  # roots, from when that was acknowledged


@pytest.mark.timeout(180)
def test_a_change_of_the_root_leaves_a_ca_that_serves_and_is_gone_on_with_wherever_the_power_is_cut(
    memory: Path,
) -> None:
    root, log, found = memory / "root", memory / "log", memory / "found"
    root.mkdir()
    recorded(root, log, ["-c", INIT, str(root / "state"), str(log)])
    mark("made", log)
    recorded(root, log, ["-c", ROTATE, str(root / "state"), str(log)])
    old = None
    for cut in _cuts(calls(log), 1):
        if cut.marked not in LEAST:
            continue
        put(cut, found)
        state = found / "state"
        ca = credentials.load(state)
        old = old or ca.certificate
        assert len(ca.roots) >= LEAST[cut.marked], cut.where
        assert (old in ca.roots) or cut.marked in {"SERVE", "DROP"}, cut.where
        assert ca.server.certificate in ca.roots, cut.where
        onhost.verify(state / "bedplate.db", ())
        for step in steps(onroots.have(state, time.time())):  # what is still ahead, to the end
            onroots.take(state, step, time.time())
        last = credentials.load(state)
        assert last.roots == (last.certificate,), cut.where
        assert last.certificate != old, cut.where
        shutil.rmtree(found)


def test_an_agent_has_the_key_of_whatever_left_it_wherever_the_power_is_cut(memory: Path) -> None:
    root, log, state = memory / "root", memory / "log", memory / "root" / "state"
    root.mkdir()
    ca, sent, certificates = authority(new_key(), now=time.time()), [], []
    for number, token_id in enumerate(("t", "", "t-another")):
        asked = {"do": "request", "state": str(state), "token_id": token_id}
        csr = base64.b64decode(_keys(root, log, asked)["csrs"][-1]["csr"])
        sent.append(csr_key(csr))
        mark(f"{number} sent", log)
        issued = ca.issue_machine(csr, MachineIdentity("m-aaaaaaaa", 1), lifetime_s=86400, now=time.time())
        certificates.append(issued.certificate_pem.decode())
        kept = {"certificate": certificates[-1], "ca": ca.roots_pem.decode(), "token_id": "t", "kept_at": time.time()}
        kept |= {"machine_id": "m-aaaaaaaa", "incarnation": 1, "uplink_addresses": ["127.0.0.1:1"]}
        assert _keys(root, log, {"do": "keep", "state": str(state), "credentials": kept}) == {}
        mark(f"{number} kept", log)
    for cut in _cuts(calls(log), SHORT_WAYS):
        _still_somebody(memory / "found", cut, sent, certificates)


def _keys(root: Path, log: Path, request: dict[str, object]) -> dict[str, list[dict[str, str]]]:
    """What `nodeagent.keys` answers, while it is recorded."""
    answer: dict[str, list[dict[str, str]]] = json.loads(
        recorded(root, log, ["-P", "-m", "nodeagent.keys"], given=json.dumps(request).encode())
    )
    return answer


def _still_somebody(found: Path, cut: Cut, sent: list[object], certificates: list[str]) -> None:
    put(cut, found)
    state = found / "state"
    who = identity.load(state)
    number, _, step = cut.marked.partition(" ")
    made = json.loads(identity.read(state / identity.JOIN_KEY) or "[]")
    waiting = [identity.read(state / identity.NEXT_KEY), *(one["key"].encode() for one in made)]
    keys = [key for key in (*waiting, who and who.key_pem) if key]
    here = [load_pem_private_key(key, None).public_key() for key in keys]
    if step:
        assert sent[int(number)] in here, cut.where
        least = int(number) if step == "kept" else int(number) - 1
        assert least < 0 or (who is not None and who.certificate in certificates[least:]), cut.where
    if who is not None:
        mine = x509.load_pem_x509_certificate(who.certificate_pem).public_key()
        assert mine == load_pem_private_key(who.key_pem, None).public_key(), cut.where
    shutil.rmtree(found)
