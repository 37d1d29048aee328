"""The two ends of the conversation and a stream between them, moved by hand: no socket, no clock, no disk."""

import hashlib
from collections import deque
from dataclasses import dataclass, field
from random import Random

from google.protobuf.timestamp_pb2 import Timestamp

from bedplate.v1.snapshot_pb2 import Inventory, Problem, Snapshot, Vitals
from bedplate.v1.uplink_pb2 import Delta, SessionRequest, SessionResponse
from nodeagent import session as agent_side
from provisioner import session as provisioner_side
from provisioner.session import Keep, Known, Recall, Send
from provisioner.vitals import folded
from provisioner.world import Change, InventoryKept, Met, Parted, VitalsKept, VitalsMoved

RUN = b"r" * 16


@dataclass
class Store:
    """What a store would hold of one machine: commits happen when the test says so."""

    run_id: bytes = b""
    sequence: int = 0
    vitals: bytes = b""
    problems: bytes = b""
    digest: bytes = b""
    bodies: dict[bytes, bytes] = field(default_factory=dict)
    asked_for: list[bytes] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    def write(self, changes: tuple[Change, ...]) -> None:
        for change in changes:
            self.kinds.append(type(change).__name__)
            match change:
                case VitalsKept():
                    assert change.run_id != self.run_id or change.sequence >= self.sequence
                    self.run_id, self.sequence = change.run_id, change.sequence
                    self.vitals, self.problems = change.vitals, change.problems
                case VitalsMoved():
                    assert change.run_id == self.run_id
                    assert change.sequence == self.sequence + 1
                    self.sequence = change.sequence
                    self.vitals = folded(self.vitals, [Delta.FromString(change.delta)]).SerializeToString(
                        deterministic=True
                    )
                case InventoryKept():
                    self.digest = change.digest
                    if change.body is not None:
                        self.bodies[change.digest] = change.body
                case Met() | Parted():
                    pass

    def known(self) -> Known:
        return Known(
            "m-1",
            self.run_id,
            self.sequence,
            self.vitals,
            self.problems,
            self.digest,
            frozenset(self.bodies),
        )


@dataclass
class Wire:
    """An agent, a provisioner and the stream between them, moved by hand."""

    run_id: bytes = RUN
    store: Store = field(default_factory=Store)
    now: float = 1000.0
    up: deque[SessionRequest] = field(default_factory=deque)
    down: deque[SessionResponse] = field(default_factory=deque)
    uncommitted: deque[Keep] = field(default_factory=deque)
    there: provisioner_side.Session | None = None
    streams: int = 0
    sent: list[SessionRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.here = agent_side.Session(self.run_id, "1.0", Random(1))  # noqa: S311

    def see(self, vitals: Vitals, *, problems: tuple[str, ...] = (), inventory: Inventory | None = None) -> None:
        snapshot = Snapshot(vitals=vitals, inventory=inventory or Inventory())
        snapshot.problems.extend(Problem(probe=name) for name in problems)
        body = snapshot.inventory.SerializeToString(deterministic=True)
        self._send(self.here.observe(snapshot, body, hashlib.sha256(body).digest(), self.now))

    def connect(self) -> None:
        self.streams += 1
        self.there = provisioner_side.Session(self.store.known(), f"s{self.streams}", epoch=1, peer="127.0.0.1")
        self._send(self.here.connected(self.now, Timestamp()))

    def deliver(self) -> None:
        """One message each way, if there is one."""
        if self.up and self.there:
            self._handle(self.there.receive(self.up.popleft(), self.now))
        if self.down:
            self._send(self.here.receive(self.down.popleft(), self.now))

    def commit(self) -> None:
        if self.uncommitted:
            keep = self.uncommitted.popleft()
            self.store.write(keep.changes)
            if self.there:
                self._handle(self.there.committed(keep.sequence, self.now))

    def lose(self) -> None:
        if self.here.state is not agent_side.State.CLOSED:
            self.here.lost("the cable was cut", self.now)
        if self.there:
            self._handle(self.there.lost("the cable was cut", self.now))
        self.there = None
        self.up.clear()
        self.down.clear()

    def crash(self) -> None:
        """The provisioner dies: what was not committed is gone."""
        self.there = None
        self.uncommitted.clear()
        self.lose()

    def settle(self) -> None:
        if self.there is None:
            self.connect()
        for pause_s in (301, 301, 301, 21):  # the last one is for the acknowledgement, which is lazy
            self.now += pause_s
            self._send(self.here.tick(self.now))
            if self.there:
                self._handle(self.there.tick(self.now))
            while self.up or self.down or self.uncommitted:
                self.deliver()
                self.commit()

    def _send(self, messages: list[SessionRequest]) -> None:
        self.sent += messages
        if self.there:
            self.up.extend(messages)

    def _handle(self, outputs: list[provisioner_side.Output]) -> None:
        for output in outputs:
            match output:
                case Send(message):
                    if message.HasField("want_inventory"):
                        self.store.asked_for.append(message.want_inventory.digest)
                    self.down.append(message)
                case Keep():
                    self.uncommitted.append(output)
                case Recall(digest):
                    assert self.there
                    self._handle(self.there.recalled(self.store.bodies.get(digest), self.now))

    def kinds(self) -> list[str]:
        return [str(message.WhichOneof("message")) for message in self.sent]
