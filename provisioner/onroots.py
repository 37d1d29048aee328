"""A change of the root, done on the provisioner's own host: the files and the store together, a step at a time.

Rule 1: the audit has the entry before the files are moved: no root is trusted that nobody noted.
Rule 2: also while a provisioner runs: it sees the files within a second, and no stream ends by it that need not.
"""

import json
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from provisioner import credentials, onhost
from provisioner.issued import ISSUING, good, issued
from provisioner.pki import SERVER_BACKDATED_S, Authority, fingerprint, key_id
from provisioner.rotation import Have, Person, Root, Step
from provisioner.store import Store

METHOD: Final = "provisioner ca rotate"


def have(state: Path, now: float) -> Have:
    """BedplateError where there is no CA, or no store that can be read."""
    ca = credentials.load(state)
    store = Store.open(state / onhost.STORE)
    try:
        world, until = store.world, store.certified_until()
        people = good(issued(store.audit_of(ISSUING), world.revoked, now))
    finally:
        store.close()
    return Have(
        roots=[_root(one) for one in ca.roots],
        signer=key_id(ca.certificate),
        server=key_id(ca.server.certificate),
        world=world,
        until=until,
        people=[Person(one.name, one.role, one.made_at) for one in people],
        now=now,
    )


def take(state: Path, step: Step, now: float) -> None:
    """One step. Cut short at any moment it leaves a CA that serves, and can be taken again."""
    before = _told(credentials.load(state))

    def noted(after: Authority) -> None:
        onhost.note(state, METHOD, before, _told(after), now)

    match step:
        case Step.TRUST:
            credentials.begin(state, noted, now=now)
        case Step.SERVE:
            credentials.switch(state, noted)
        case Step.DROP:
            credentials.drop(state, noted)


def _root(certificate: x509.Certificate) -> Root:
    since = certificate.not_valid_before_utc.timestamp() + SERVER_BACKDATED_S
    until = certificate.not_valid_after_utc.timestamp()
    return Root(key_id(certificate), fingerprint(certificate).hex(), since, until)


def _told(ca: Authority) -> str:
    """JSON of an AuditState."""
    roots = [_as_kept(one, ca) for one in ca.roots]
    return json.dumps({"roots": roots}, separators=(",", ":"))


def _as_kept(root: x509.Certificate, ca: Authority) -> dict[str, Any]:
    kept: dict[str, Any] = {"sha256": fingerprint(root).hex()}
    if root == ca.certificate:
        kept["signs"] = True
    if root == ca.server.certificate:
        kept["serves"] = True
    return kept
