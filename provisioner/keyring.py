"""The CA as its files say now, while the provisioner runs: a change of the root takes no restart.

Rule 1: whoever signs, trusts or names the CA asks here each time; nobody keeps what was.
Rule 2: a connection is judged by the roots at the moment of its handshake. What stands longer is judged by the guard.
Rule 3: files that make no sense change nothing, and are told.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from provisioner import credentials
from provisioner.errors import BedplateError
from provisioner.pki import Authority, Issued, MachineIdentity, key_id

LOG = logging.getLogger("provisioner")
LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Ring:
    """What the files said when they were last read."""

    authority: Authority
    pair: tuple[bytes, bytes] = field(repr=False)  # of the server: its key, and its chain
    trusted: frozenset[bytes]  # the ids of the roots' keys
    signer: bytes
    changed_at: float  # since when these roots are the ones that go out with a certificate


class Keyring:
    """BedplateError where there is no CA in the folder."""

    def __init__(self, folder: Path, names: Sequence[str], clock: Callable[[], float]) -> None:
        self._folder = folder
        self._names = names
        self._clock = clock
        self._flaw = ""
        self._stamp = credentials.stamp(folder)
        self.now = self._ring(credentials.load(folder), credentials.changed_at(folder))

    def _ring(self, authority: Authority, changed_at: float) -> Ring:
        chain, key = authority.issue_server(self._names, now=self._clock())
        trusted = frozenset(key_id(root) for root in authority.roots)
        return Ring(authority, (key, chain), trusted, key_id(authority.certificate), changed_at)

    @property
    def roots_pem(self) -> bytes:
        return self.now.authority.roots_pem

    def issue_machine(self, csr_der: bytes, who: MachineIdentity, *, lifetime_s: float, now: float) -> Issued:
        return self.now.authority.issue_machine(csr_der, who, lifetime_s=lifetime_s, now=now)

    def look(self) -> bool:
        """Whether the files have changed, and are taken."""
        stamp = credentials.stamp(self._folder)
        if stamp == self._stamp:
            return False
        try:
            self.now = self._ring(credentials.load(self._folder), self._clock())
        except BedplateError as error:  # a step may be half way: the next look finds it whole
            if str(error) != self._flaw:
                LOG.error("%s; the CA stays as it was", error)
            self._flaw = str(error)
            return False
        self._stamp, self._flaw = stamp, ""
        return True

    def served(self, *, mutual: bool, begun: Callable[[], object] = int) -> grpc.ServerCredentials:
        """For a port: at each handshake what holds then. `begun` is called for each connection, in a thread of gRPC."""
        given = self.now

        def fetch() -> Any:
            nonlocal given
            begun()
            if given is self.now:
                return None
            given = self.now
            return _configuration(given, mutual=mutual)

        return grpc.dynamic_ssl_server_credentials(_configuration(given, mutual=mutual), fetch, mutual)


def _configuration(ring: Ring, *, mutual: bool) -> Any:
    return grpc.ssl_server_certificate_configuration([ring.pair], ring.authority.roots_pem if mutual else None)


async def watch(keyring: Keyring, changed: Callable[[], None], every_s: float = LOOK_S) -> None:
    """Runs for ever; `changed` is called after each change that was taken."""
    while True:
        await asyncio.sleep(every_s)
        if await asyncio.to_thread(keyring.look):
            count = len(keyring.now.trusted)
            LOG.info("the CA's files were changed: %d %s trusted", count, "root is" if count == 1 else "roots are")
            changed()
