"""What is known of one machine, and of one join token, in brief. What changes them is said in `world`.

Times are seconds since 1970 by the provisioner's clock.
"""

from dataclasses import dataclass, fields
from operator import attrgetter

from provisioner.changes import VitalsMoved

REVOKED = b"revoked:"  # before the key that it had: no key has such a name
FOR = "-for-"  # in a join token's id, before the machine that it is for


@dataclass(frozen=True, slots=True)
class Facts:
    """One machine in brief: what lists, filters and phases need. Bodies (inventory, vitals) stay in the store."""

    id: str
    incarnation: int
    key_sha256: bytes  # of the DER SubjectPublicKeyInfo that it may hold a certificate for
    asked_at: float
    accepted_at: float | None = None
    forgotten_at: float | None = None
    waits_because: str = ""  # why it was not accepted at once
    certified_at: float | None = None
    hostname: str = ""
    product: str = ""
    serial: str = ""
    evidence: bytes = b""  # bedplate.v1.Evidence, as it was when the machine asked: newcomers are weighed against it
    gpu_count: int = 0
    gpu_model: str = ""
    rdma_count: int = 0
    os: str = ""
    kernel: str = ""
    agent_version: str = ""
    boot_id: str = ""
    inventory_digest: bytes = b""
    run_id: bytes = b""
    sequence: int = 0  # the highest delta of that run that is stored
    problem_count: int = 0
    last_heard_at: float | None = None
    session: str = ""  # the open stream's name; empty while there is none
    session_epoch: int = 0  # the provisioner's life in which it was opened: another life's stream is not open
    peer: str = ""
    parted_because: str = ""
    clock_skew_s: float | None = None
    issuer: bytes = b""  # of the certificate that it last came with: the id of the key that has signed it
    silent_noted: bool = False  # that it fell silent was written, and nothing since that it came back
    revision: int = 0  # of the last change that a person would see in a list

    @property
    def revoked(self) -> bool:
        return self.key_sha256.startswith(REVOKED)


_NAMES = tuple(field.name for field in fields(Facts))
_VALUES = attrgetter(*_NAMES)
_SEQUENCE, _LAST_HEARD_AT = _NAMES.index("sequence"), _NAMES.index("last_heard_at")


@dataclass(frozen=True, slots=True)
class TokenFacts:
    id: str
    secret_sha256: bytes
    created_at: float
    expires_at: float
    uses_allowed: int
    review: bool
    created_by: str
    revoked_at: float | None = None
    used_by: frozenset[bytes] = frozenset()  # key_sha256 of each that came in by it


def machine_of(token_id: str) -> str:
    """'t-4kq7zt2x-for-m-aaaaaaaa' -> 'm-aaaaaaaa'; empty where it is for any newcomer"""
    return token_id.partition(FOR)[2]


def moved(facts: Facts, change: VitalsMoved) -> Facts:
    """As `replace`, which takes three times as long."""
    if facts.forgotten_at is not None or change.run_id != facts.run_id or change.sequence <= facts.sequence:
        return facts
    values = list(_VALUES(facts))
    values[_SEQUENCE], values[_LAST_HEARD_AT] = change.sequence, change.at
    return Facts(*values)
