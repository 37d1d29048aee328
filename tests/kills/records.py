"""What was acknowledged, as those on the other end of the wire have it; and what broke a promise."""

import hashlib
from dataclasses import dataclass, field

from google.protobuf.message import Message

from bedplate.v1.snapshot_pb2 import HostVitals, Identity, Inventory, Vitals
from tests.receiver import Post

EVERY = 20  # deltas, a machine has another kernel


@dataclass(frozen=True, slots=True)
class Answered:
    """A write and its first answer."""

    method: str
    request: Message
    response: bytes


@dataclass(slots=True)
class Told:
    """What one light machine was promised."""

    machine_id: str
    incarnation: int
    key_sha256: bytes
    run_id: bytes
    serial_numbers: list[str] = field(default_factory=list)  # of its certificates
    acknowledged: int = 0
    inventories: set[bytes] = field(default_factory=set)  # digests that are stored for certain


@dataclass(slots=True)
class Records:
    """Written by the load's thread, read by those who judge: entries are only added."""

    answered: dict[str, Answered] = field(default_factory=dict)
    told: dict[str, Told] = field(default_factory=dict)  # by the light machine's name
    posts: list[Post] = field(default_factory=list)  # what the webhook's address took
    epoch: int = 0  # the highest that anybody heard of
    revision: int = 0
    broken: list[str] = field(default_factory=list)


def vitals_of(sequence: int) -> Vitals:
    """What a light machine's dials show with its delta of that number."""
    return Vitals(host=HostVitals(load_1m=sequence / 4, kernel_taint=sequence, boot_id="boot"))


def inventory_of(name: str, sequence: int) -> bytes:
    """What it is made of by then: another kernel every now and then."""
    identity = Identity(hostname=name, product_serial=f"SN-{name}", machine_id=hashlib.md5(name.encode()).hexdigest())  # noqa: S324 - a name
    made = Inventory(identity=identity)
    made.os.kernel = f"6.1.{sequence // EVERY}"
    return made.SerializeToString(deterministic=True)
