"""What somebody does on the provisioner's own host leaves an entry in the audit too; and the audit verified there.

Rule 1: a person's key is written only after the audit has the entry: no credential is there that nobody noted.
Rule 2: also while a provisioner runs on the store: it loses nothing by it, and goes on from the new end of the chain.
"""

import json
import os
import pwd
from collections.abc import Sequence
from pathlib import Path

from provisioner import chain, credentials
from provisioner.errors import BedplateError
from provisioner.pki import Authority
from provisioner.store import Store
from provisioner.world import Audited

STORE = "bedplate.db"
ROLE = "local"
PAGE = 1000


def init(state: Path, admin: str, now: float) -> Authority:
    """As of `credentials`; the store is made, and its first entry says so."""
    return credentials.init(
        state, now=now, admin=admin, noted=lambda serial: _note(state, "provisioner init", admin, "admin", serial, now)
    )


def credential(state: Path, name: str, role: str, out: Path, now: float) -> None:
    credentials.write_credential(
        credentials.load(state),
        name,
        role,
        out,
        now=now,
        noted=lambda serial: _note(state, "provisioner credential", name, role, serial, now),
    )


def _note(state: Path, method: str, name: str, role: str, serial_number: str, now: float) -> None:  # noqa: PLR0913, PLR0917 - one fact
    made = {"certificates": [{"name": name, "role": role, "serial_number": serial_number}]}
    note(state, method, "", json.dumps(made, separators=(",", ":"), ensure_ascii=False), now)


def note(state: Path, method: str, before: str, after: str, now: float) -> None:
    """An entry of the audit: JSON of an AuditState before and after."""
    store = Store.open(state / STORE)
    try:
        store.put_aside(Audited(_user(), ROLE, method, "", "", before, after, now))
    finally:
        store.close()


def _user() -> str:
    """By the kernel's word, not the environment's."""
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def verify(path: Path, anchors: Sequence[chain.Link]) -> chain.Link:
    """The end of the chain in this store. BedplateError where it is not whole, or there is no store."""
    if not path.exists():
        raise BedplateError(f"cannot verify the audit: there is no store {path}; name it with --store")
    store = Store.open(path)
    try:
        last, head = chain.START, chain.START
        while True:
            entries, head = store.audit(after=last.sequence, limit=PAGE)
            if not entries:
                break
            last = chain.follow(last, entries, anchors)
        chain.close(last, head, anchors)
    finally:
        store.close()
    return last
