"""What lies on the disk after a kill, judged: each function returns what is wrong, a sentence each.

Rule: the store is judged in a copy. Opening it is a recovery, and that one is the provisioner's own to make.
"""

import json
import shutil
import sqlite3
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from nodeagent import identity
from provisioner import onhost
from provisioner.chain import Entry
from provisioner.errors import BedplateError
from provisioner.store import Store
from provisioner.world import World
from tests.kills.records import Records, Told, vitals_of

PROVISIONERS = {"admin", "bedplate.db", "bedplate.db-shm", "bedplate.db-wal", "ca.key", "ca.pem", "lock"}
AGENTS = {"identity.json", "lock", "next.key", "join.key"}
AGENTS_UNBORN = {f".{name}.new" for name in AGENTS - {"lock"}}  # of a write that was cut off: the next takes its place
EVENTS = {
    "AcceptMachine": ("machine.accepted", "admin (admin)"),
    "CreateToken": ("token.created", "admin (admin)"),
    "ForgetMachine": ("machine.forgotten", "admin (admin)"),
    "RekeyMachine": ("machine.rekey", "admin (admin)"),
    "RevokeMachine": ("machine.revoked", "admin (admin)"),
    "RevokeToken": ("token.revoked", "admin (admin)"),
}


def of_the_provisioner(state: Path, scratch: Path, records: Records) -> list[str]:
    """Everything that was acknowledged is there, nothing is there by half, and the chain is whole."""
    strange = sorted({path.name for path in state.iterdir()} - PROVISIONERS)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for name in ("bedplate.db", "bedplate.db-wal"):
        if (state / name).exists():
            shutil.copyfile(state / name, scratch / name)
    path = scratch / "bedplate.db"
    try:
        onhost.verify(path, ())
        store = Store.open(path)
    except BedplateError as error:
        return [str(error)]
    try:
        world = store.load(0.0)
        wrong = [*_promises(store, world, records), *_halves(path, world), *_deliveries(store, records)]
    finally:
        store.close()
    return [*wrong, *(f"a file that nobody needs: {name}" for name in strange)]


def _promises(store: Store, world: World, records: Records) -> Iterator[str]:
    if world.epoch < records.epoch:
        yield f"epoch {world.epoch} is stored, and {records.epoch} was told"
    if world.revision < records.revision:
        yield f"revision {world.revision} is stored, and {records.revision} was told"
    for request_id, first in list(records.answered.items()):
        kept = store.answered("admin", request_id)
        if kept is None or (kept.method, kept.response) != (first.method, first.response):
            yield f"the answer to {first.method} {request_id} is not the one that was given"
    came_in = {(entry.machine_id, _key_of(entry)) for entry in store.audit_of(("Enrol",))}
    for name, told in list(records.told.items()):
        if (told.machine_id, told.key_sha256.hex()) not in came_in:
            yield f"{name}: {told.machine_id} got a certificate, and the audit has not that its key came in"
        yield from (f"{name}: {wrong}" for wrong in _of_a_machine(store, world, told))


def _key_of(entry: Entry) -> str:
    """That came in."""
    return next((one["key_sha256"] for one in json.loads(entry.after).get("standings", ())), "")


def _of_a_machine(store: Store, world: World, told: Told) -> Iterator[str]:
    facts = world.machines.get(told.machine_id)
    if facts is None:
        yield f"{told.machine_id} got a certificate, and is not known"
        return
    if (facts.incarnation, facts.key_sha256) != (told.incarnation, told.key_sha256) or facts.accepted_at is None:
        yield f"{told.machine_id} is not what its certificate says"
    row = store.vitals(told.machine_id)
    if told.acknowledged and (row is None or row.sequence < told.acknowledged or row.run_id != told.run_id):
        yield f"delta {told.acknowledged} was acknowledged, and {row.sequence if row else 'none'} is stored"
    if row is not None and row.vitals != vitals_of(row.sequence).SerializeToString(deterministic=True):
        yield f"the vitals that are stored are not those of delta {row.sequence}"
    if row is not None and (facts.sequence, facts.run_id) != (row.sequence, row.run_id):
        yield f"its facts say delta {facts.sequence}, and its vitals {row.sequence}"
    for digest in [*told.inventories]:
        if not store.has_inventory(digest):
            yield f"inventory {digest.hex()[:8]} was acknowledged, and is not stored"


def _deliveries(store: Store, records: Records) -> Iterator[str]:
    """What the store says that an address has had, it has had: each event at least once, from its first on."""
    had = {int(json.loads(post.body)["data"]["revision"]) for post in [*records.posts]}
    for sink in store.sinks():
        due = {event.revision for event in store.events(after=min(had, default=sink.revision) - 1, limit=10**6)}
        if missing := {revision for revision in due if revision <= sink.revision} - had:
            yield f"{sink.name} is said to have had events up to {sink.revision}, and never got {sorted(missing)[:5]}"


def _halves(path: Path, world: World) -> Iterator[str]:
    """A write, its event, its answer and its entry in the audit are all there, or none."""
    database = sqlite3.connect(path)
    try:
        if (found := database.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
            yield f"the store is damaged: {found}"
        if found := database.execute("PRAGMA foreign_key_check").fetchall():
            yield f"rows that point nowhere: {found}"
        audited = dict(database.execute("SELECT request_id, method FROM audit WHERE request_id != ''").fetchall())
        answered = dict(database.execute("SELECT request_id, method FROM answers").fetchall())
        came_in = {name for (name,) in database.execute("SELECT machine_id FROM audit WHERE method = 'Enrol'")}
        afters = database.execute("SELECT method, after FROM audit WHERE request_id != ''").fetchall()
        events = Counter(database.execute("SELECT kind, actor FROM events").fetchall())
        certified = {name for (name,) in database.execute("SELECT DISTINCT machine_id FROM certificates")}
    finally:
        database.close()
    if audited != answered:
        yield f"audit and answers differ: {sorted(set(audited.items()) ^ set(answered.items()))}"
    wanted = Counter(audited.values())
    yield from (
        f"{wanted[method]} {method} are in the audit, and {events[event]} events tell of one"
        for method, event in EVENTS.items()
        if wanted[method] != events[event]
    )
    if known := set(world.machines) ^ came_in:
        yield f"machines in the audit and machines differ: {known}"
    made = {token["token_id"] for _, after in afters for token in json.loads(after or "{}").get("tokens", ())}
    if made != set(world.tokens):
        yield f"tokens in the audit and tokens differ: {made ^ set(world.tokens)}"
    if without := {facts.id for facts in world.machines.values() if facts.certified_at is not None} - certified:
        yield f"certified without a certificate: {without}"


def of_the_agent(state: Path, before: identity.Identity | None) -> list[str]:
    """Whole, of one pair, and the same machine in the same life as before."""
    if not state.exists():
        return []
    wrong = [f"a file that nobody needs: {name}" for name in _names(state) - AGENTS - AGENTS_UNBORN]
    wrong += [f"others may read {path.name}" for path in state.iterdir() if stat.S_IMODE(path.stat().st_mode) & 0o077]
    try:
        now = identity.load(state)
    except BedplateError as error:
        return [*wrong, str(error)]
    if now is None:
        return [*wrong, *(["its identity is gone"] if before else [])]
    certificate = x509.load_pem_x509_certificate(now.certificate_pem)
    if certificate.public_key() != load_pem_private_key(now.key_pem, None).public_key():
        wrong.append("certificate and key are of two pairs")
    if before and (now.machine_id, now.incarnation) != (before.machine_id, before.incarnation):
        wrong.append(f"it was {before.machine_id}/{before.incarnation}, and is {now.machine_id}/{now.incarnation}")
    return wrong


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
