"""A site with thousands of machines that were never enrolled one by one: their facts are written in bulk, through the
store's own door, and each has a certificate of the CA, as a file.

Rule: all have one key, for ten thousand keys take longer than what is measured; the names in the certificates differ.
"""

import base64
import time
from collections.abc import Iterator
from pathlib import Path

from provisioner import credentials
from provisioner.pki import Authority, MachineIdentity, key_pem, key_sha256, new_key
from provisioner.store import Store
from provisioner.world import Accepted, Asked, Certified, Change
from tests.enrolment_desk import csr_of
from tests.running import Site

WEEK_S = 7 * 86400.0


def machine_id(number: int) -> str:
    """1 -> 'm-aaaaaaab'"""
    return "m-" + base64.b32encode(number.to_bytes(5, "big")).decode().lower()


def populate(place: Site, count: int) -> Path:
    """So many machines that are let in and have a certificate; the folder that holds one file `N.pem` for each."""
    state, folder = place.folder / "provisioner", place.folder / "machines"
    folder.mkdir()
    authority = credentials.load(state)
    (folder / "ca.pem").write_bytes(authority.roots_pem)
    store = Store.open(state / "bedplate.db")
    try:
        store.begin_epoch()
        store.write(list(_known(authority, folder, count)))
    finally:
        store.close()
    return folder


def _known(authority: Authority, folder: Path, count: int) -> Iterator[Change]:
    now, key = time.time(), new_key()
    private, fingerprint, csr = key_pem(key), key_sha256(key.public_key()), csr_of(key)
    for number in range(count):
        name = machine_id(number)
        issued = authority.issue_machine(csr, MachineIdentity(name, 1), lifetime_s=WEEK_S, now=now)
        path = folder / f"{number}.pem"
        path.touch(mode=0o600)
        path.write_bytes(issued.certificate_pem + private)
        host, serial = f"gpu-{number:05}.rack{number // 8}", f"{number:013}"
        yield Asked(name, 1, fingerprint, b"", host, "NVIDIA DGX H100", serial, "t-1", "", now)
        yield Accepted(name, now)
        yield Certified(name, fingerprint, issued.serial_number, issued.not_after, now, 1)
