"""Changes: facts that came to be, as data. The store writes them, and the world applies them.

Rule 1: a change is never edited after it was made, and what it means is said in `world`, once.
Rule 2: times are seconds since 1970 by the provisioner's clock.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Asked:
    """A machine asked to enrol: for the first time, or again (a higher incarnation)."""

    machine_id: str
    incarnation: int
    key_sha256: bytes
    evidence: bytes  # bedplate.v1.Evidence
    hostname: str
    product: str
    serial: str
    token_id: str
    waits_because: str
    at: float
    again: bool = False  # it was known when it was looked at: by its own token, or a person's word


@dataclass(frozen=True, slots=True)
class Accepted:
    machine_id: str
    at: float
    beside: str = ""  # the known machine that it is not, though both show the same


@dataclass(frozen=True, slots=True)
class Certified:
    """A certificate was issued, for this key."""

    machine_id: str
    key_sha256: bytes
    serial_number: str
    not_after: float
    at: float
    incarnation: int = 0  # that it is of: where the machine is in a younger one by now, its key counts for nothing


@dataclass(frozen=True, slots=True)
class Forgotten:
    machine_id: str
    at: float


@dataclass(frozen=True, slots=True)
class Revoked:
    """The key that the machine has is nobody's from now on. The machine stays known, one incarnation further."""

    machine_id: str
    at: float


@dataclass(frozen=True, slots=True)
class Met:
    """A stream was opened."""

    machine_id: str
    session: str
    epoch: int
    run_id: bytes
    agent_version: str
    boot_id: str
    peer: str
    clock_skew_s: float
    at: float
    issuer: bytes = b""  # the id of the key that has signed the certificate that it came with


@dataclass(frozen=True, slots=True)
class Parted:
    """A stream ended. It concerns only the stream of that name: a younger one may be open already."""

    machine_id: str
    session: str
    because: str
    at: float


@dataclass(frozen=True, slots=True)
class InventoryKept:
    """The machine's inventory is now the one of this digest; `body` is None where the store already has it."""

    machine_id: str
    digest: bytes
    body: bytes | None  # bedplate.v1.Inventory
    hostname: str
    product: str
    serial: str
    gpu_count: int
    gpu_model: str
    rdma_count: int
    os: str
    kernel: str
    at: float


@dataclass(frozen=True, slots=True)
class VitalsKept:
    """All vitals and problems of the machine as they stand after this delta of this run."""

    machine_id: str
    run_id: bytes
    sequence: int
    vitals: bytes  # bedplate.v1.Vitals
    problems: bytes  # bedplate.v1.Problems
    problem_count: int
    at: float


@dataclass(frozen=True, slots=True)
class VitalsMoved:
    """A delta to the vitals that are kept, and to those that moved since: no problem of the machine came or went.

    `place`: how many deltas there are since they were last kept whole, or since one said what all did until then.
    """

    machine_id: str
    run_id: bytes
    sequence: int
    place: int
    delta: bytes  # bedplate.v1.Delta
    at: float


@dataclass(frozen=True, slots=True)
class SilenceNoted:
    """The machine fell silent, or came back. The event is in the same batch, unless it flaps."""

    machine_id: str
    silent: bool
    at: float


@dataclass(frozen=True, slots=True)
class Noted:
    """An event for people and automation; it gets its revision when it is stored."""

    kind: str
    machine_id: str
    hostname: str
    because: str
    actor: str
    at: float
    count: int = 0  # for how many changes it stands, where that is more than one


@dataclass(frozen=True, slots=True)
class TokenMade:
    token_id: str
    secret_sha256: bytes
    created_at: float
    expires_at: float
    uses_allowed: int  # 0: any number
    review: bool
    created_by: str


@dataclass(frozen=True, slots=True)
class TokenRevoked:
    token_id: str
    at: float


@dataclass(frozen=True, slots=True)
class TokenUsed:
    """A machine's key came in by the token. The same key counts once, however often it asks."""

    token_id: str
    key_sha256: bytes
    machine_id: str
    at: float


@dataclass(frozen=True, slots=True)
class CredentialRevoked:
    """A person's certificate is worth nothing: all of this name that were made until then, or the one of this serial
    number; the other of the two is empty.
    """

    name: str
    serial_number: str  # hexadecimal
    at: float


@dataclass(frozen=True, slots=True)
class Answered:
    """A write was answered: the same request id of the same caller gets the same bytes again."""

    caller: str
    request_id: str
    method: str
    request_sha256: bytes
    response: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Audited:
    """Somebody wrote something. It is stored with what was written, and gets its place in the chain then."""

    who: str
    role: str
    method: str
    request_id: str
    machine_id: str  # empty where it concerns no machine
    before: str  # JSON of bedplate.v1.AuditState
    after: str
    at: float


Change = (
    Asked
    | Accepted
    | Certified
    | Forgotten
    | Revoked
    | Met
    | Parted
    | InventoryKept
    | VitalsKept
    | VitalsMoved
    | SilenceNoted
    | Noted
    | TokenMade
    | TokenRevoked
    | TokenUsed
    | CredentialRevoked
    | Answered
    | Audited
)

MachineChange = (
    Asked
    | Accepted
    | Certified
    | Forgotten
    | Revoked
    | Met
    | Parted
    | InventoryKept
    | VitalsKept
    | VitalsMoved
    | SilenceNoted
)
