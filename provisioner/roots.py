"""What follows from the roots that are trusted now: who is to renew, what join tokens name, who is out.

Rule 1: a machine is to have a certificate of the root that signs now, and all roots that are trusted now, and no other.
        Its proof is the certificate that it comes with: key, certificate and roots are one file of the agent's.
Rule 2: by a certificate of a root that signs no more only a machine that got it here gets another.
Rule 3: nobody is told to come at once: the time that machines may take grows with their number.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Protocol

import grpc

from bedplate.v1.enrolment_pb2 import Credentials
from bedplate.v1.uplink_pb2 import SessionResponse
from provisioner.access import Caller, RefusedError
from provisioner.fleet import Fleet
from provisioner.keyring import Keyring
from provisioner.session import Session, renew_soon
from provisioner.world import Facts

RENEWALS_A_SECOND = 20.0
LEAST_S = 2.0
DROPPED = "its certificate is of a CA that is trusted no more"
REDIAL_S = 3.0  # from a younger certificate until it is to be shown: the agent keeps it first
Renewer = Callable[[Caller, bytes], Awaitable[Credentials]]


class Stream(Protocol):
    """Of a machine: what is needed of its conversation here."""

    @property
    def issuer(self) -> bytes: ...

    because: str  # why it is ended

    @property
    def session(self) -> Session | None: ...
    def cut(self, because: str, retry_after_s: float, /) -> None: ...
    def post(self, message: SessionResponse, /) -> object: ...


class Roots:
    """`then` is called after each change: by then everybody who asks gets the new answers."""

    def __init__(self, fleet: Fleet, keyring: Keyring) -> None:
        self.then: list[Callable[[], object]] = []
        self.streams: Mapping[str, Stream] = {}
        self._fleet = fleet
        self._keyring = keyring

    def trusted(self) -> frozenset[bytes]:
        return self._keyring.now.trusted

    def renew_within_s(self, facts: Facts, issuer: bytes) -> float | None:
        """In how many seconds this machine, by a certificate of this issuer, is to renew; None: when it is time."""
        ring = self._keyring.now
        if issuer == ring.signer and (facts.certified_at or 0.0) >= ring.changed_at:
            return None
        return max(LEAST_S, len(self._fleet.world.machines) / RENEWALS_A_SECOND)

    def renewing(self, renew: Renewer) -> Renewer:
        """As `renew`; and where a stream stands by a certificate of another root, it is begun anew by the younger."""

        async def renewed(who: Caller, csr: bytes) -> Credentials:
            await self._demand_ours(who)
            credentials = await renew(who, csr)
            stream = self.streams.get(who.machine_id)
            if stream is not None and stream.issuer != self._keyring.now.signer:
                asyncio.get_running_loop().call_later(
                    REDIAL_S, stream.cut, "it is to come with its new certificate", 1.0
                )
            return credentials

        return renewed

    async def _demand_ours(self, who: Caller) -> None:
        """Who has stolen the old root's key makes what it likes of it: by that nobody gets a certificate of the new."""
        fleet = self._fleet
        if who.by.issuer == self._keyring.now.signer or await fleet.read(fleet.store.is_issued, who.by.serial_number):
            return
        line = f"cannot renew the certificate of {who.machine_id}: it was never issued here; enrol with a join token"
        raise RefusedError(grpc.StatusCode.PERMISSION_DENIED, "NEVER_ISSUED", line)

    def changed(self) -> None:
        ca = self._keyring.now.authority
        self._fleet.settings = replace(self._fleet.settings, ca_sha256=ca.server.sha256, next_ca_sha256=ca.next_sha256)
        for stream in self.streams.values():
            if stream.issuer not in self._keyring.now.trusted:
                stream.because = stream.because or DROPPED  # the guard ends it now
        for each in self.then:
            each()
        for machine_id, stream in list(self.streams.items()):
            facts = self._fleet.world.machines.get(machine_id)
            within_s = self.renew_within_s(facts, stream.issuer) if facts else None
            if within_s is not None and stream.session and stream.session.heard_at:
                stream.post(renew_soon(within_s))
