"""The machine's certificate: from the one we have to a young one.

Rule 1: everything that decides about the certificate is in this file.
Rule 2: this file does nothing: it has no clock, no disk and no host.
Rule 3: age is measured by this host's clock alone, from the moment that the certificate was kept; how long it lives is
        a difference of the provisioner's times. So a clock that is hours wrong, but steady, changes nothing; one that
        jumps costs one renewal.
Rule 4: a machine that the provisioner has forgotten does not come back by the token that it came in by: somebody wants
        it out. With a new one it enrols again.
Rule 5: a new join token is a person's word that the provisioner is another than this machine knows. It is used where
        the one that it knows cannot be talked to, and not before.
"""

from dataclasses import dataclass
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from nodeagent.decision import Decision, Settled, Todo, Wait
from nodeagent.steps.enrol import Enrol
from nodeagent.steps.renew import Renew


class Certificate(Protocol):
    """What counts here of the machine's identity. Times are seconds since 1970."""

    @property
    def machine_id(self) -> str: ...
    @property
    def not_before(self) -> float: ...  # by the provisioner's clock, as the next
    @property
    def not_after(self) -> float: ...
    @property
    def kept_at(self) -> float: ...  # by this host's clock
    @property
    def token_id(self) -> str: ...  # of the join token that it came in by


@dataclass(frozen=True, slots=True)
class Have:
    identity: Certificate | None
    now: float  # this host's clock
    token_id: str = ""  # of the join token that the configuration gives; empty: it gives none
    token_flaw: str = ""  # why the one that it gives cannot be used
    refused: str = ""  # why the provisioner takes this identity no more; empty: it does
    again_in_s: float = 0.0  # until it makes sense to ask again
    last: str = ""  # what came of the last attempt, where it was not a certificate
    told: bool = False  # by the provisioner: ask for a younger one now
    stranded: str = ""  # why no stream comes to be, though somebody answers there; empty: one does, or nobody does


@dataclass(frozen=True, slots=True)
class Want:
    younger_than: float = 0.5  # of the certificate's life


def plan(have: Have, want: Want) -> Decision[Enrol | Renew]:
    decision = _plan(have, want)
    if isinstance(decision, Todo) and have.again_in_s > 0:
        return Wait(have.last or decision.because)
    return decision


def _plan(have: Have, want: Want) -> Decision[Enrol | Renew]:
    if have.identity is None:
        return _enrol(have, "this machine has no certificate")
    if have.refused and have.token_id == have.identity.token_id:
        return Wait(f"{have.refused} (the join token that it came in by is not used again)")
    if have.refused:
        return _enrol(have, have.refused)
    who = have.identity
    if have.stranded and have.token_id and have.token_id != who.token_id:
        return Todo((Enrol(),), f"{have.stranded}: it asks by its new join token, with the key that it has")
    return _by_age(who, have, want)


def _by_age(who: Certificate, have: Have, want: Want) -> Decision[Enrol | Renew]:
    age, life = have.now - who.kept_at, who.not_after - who.not_before
    if 0 <= age < life and have.told:
        return Todo(
            (Renew(),), f"the provisioner's roots have changed: {who.machine_id} asks for a younger certificate"
        )
    if 0 <= age < life * want.younger_than:
        return Settled(f"the certificate of {who.machine_id} is good until {_minute(who.not_after)}")
    if age >= life and have.token_id:
        return Todo((Enrol(),), f"the certificate of {who.machine_id} is over: it asks again with the key that it has")
    return Todo((Renew(),), f"the certificate of {who.machine_id} is no longer young: it asks for another")


def _enrol(have: Have, because: str) -> Decision[Enrol | Renew]:
    if have.token_flaw:
        return Wait(have.token_flaw)
    if not have.token_id:
        return Wait(f"{because} and no join token: make one with `bedplate token create`, and set `join_token`")
    return Todo((Enrol(),), f"{because}: it asks to be let in")


def _minute(seconds: float) -> str:
    """1_800_000_000 -> '2027-01-15 08:00 UTC'"""
    return Timestamp(seconds=int(seconds)).ToJsonString()[:16].replace("T", " ") + " UTC"
