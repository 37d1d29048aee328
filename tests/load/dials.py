"""What the machines of the generator say: a captured machine's inventory, its vitals, and the deltas of its agent.

Rule: the deltas are the agent's own session's, over the course that simulated dials take; only the sequence is put
      before them, for a message is the concatenation of its fields.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from google.protobuf.timestamp_pb2 import Timestamp

from bedplate.v1.snapshot_pb2 import Identity, Inventory, Problem, Snapshot
from bedplate.v1.uplink_pb2 import (
    Ack,
    Delta,
    Hello,
    InventoryBody,
    Problems,
    SessionRequest,
    SessionResponse,
    Welcome,
)
from nodeagent.course import Course
from nodeagent.host import replayed
from nodeagent.observe import scan
from nodeagent.session import WINDOW, Session

MACHINE = Path(__file__).resolve().parent.parent / "machines/h100"
TICK_S, TICKS = 10.0, 2000
DELTA = b"\x12"  # SessionRequest.delta, length-delimited
SEQUENCE = b"\x08"  # Delta.sequence


@dataclass(frozen=True, slots=True)
class Dials:
    inventory: bytes
    whole: bytes  # a Delta without its sequence
    small: tuple[bytes, ...]  # likewise: what follows, in turn

    def body(self, number: int) -> tuple[bytes, bytes]:
        """The digest and the bytes of an inventory that nobody else has."""
        other = Inventory(identity=Identity(product_serial=f"{number:013}"))
        body = self.inventory + other.SerializeToString()
        return hashlib.sha256(body).digest(), body


def dials(seed: int = 1) -> Dials:
    shown = scan(replayed(MACHINE))
    inventory = shown.inventory.SerializeToString(deterministic=True)
    deltas = list(_deltas(shown, inventory, seed))
    return Dials(inventory, deltas[0], tuple(deltas[1:]))


def _deltas(shown: Snapshot, inventory: bytes, seed: int) -> Iterator[bytes]:
    session, digest = Session(b"r" * 16, "0.1.0", Random(seed)), hashlib.sha256(inventory).digest()
    course = Course(shown.vitals, Random(seed))
    session.observe(Snapshot(vitals=course.tick()), inventory, digest, 0.0)
    session.connected(0.0, Timestamp())
    sent = session.receive(SessionResponse(welcome=Welcome(epoch=1, vitals_interval_s=300)), 0.0)
    for tick in range(1, TICKS):
        for message in sent:
            message.delta.ClearField("sequence")
            yield message.delta.SerializeToString()
            session.receive(SessionResponse(ack=Ack(sequence=session.sequence)), tick * TICK_S)
        sent = session.observe(Snapshot(vitals=course.tick()), inventory, digest, tick * TICK_S)


def numbered(delta: bytes, sequence: int) -> bytes:
    """A SessionRequest with this delta under this sequence."""
    body = SEQUENCE + varint(sequence) + delta
    return DELTA + varint(len(body)) + body


def hello(run_id: bytes, digest: bytes) -> bytes:
    sent_at = Timestamp()
    sent_at.GetCurrentTime()
    return SessionRequest(
        hello=Hello(
            agent_version="0.1.0",
            boot_id="boot",
            run_id=run_id,
            inventory_digest=digest,
            sent_at=sent_at,
            window=WINDOW,
        )
    ).SerializeToString()


def problem(*parts: str) -> bytes:
    """A delta of problems alone: those parts, and no others."""
    return Delta(
        problems=Problems(problems=[Problem(probe="rdma", part=part, kind=Problem.KIND_TIMEOUT) for part in parts])
    ).SerializeToString()


def named(digest: bytes) -> bytes:
    """The field of a Delta that says which inventory it is by now."""
    return Delta(inventory_digest=digest).SerializeToString()


def inventory_body(digest: bytes, body: bytes) -> bytes:
    return SessionRequest(inventory=InventoryBody(digest=digest, inventory=body)).SerializeToString()


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)
