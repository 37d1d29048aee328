"""The two ends of the conversation against each other, in memory and in virtual time."""

import hashlib
from collections import deque
from dataclasses import dataclass, field
from random import Random

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from bedplate.v1.snapshot_pb2 import Inventory, LinkVitals, Problem, Snapshot, Vitals
from bedplate.v1.uplink_pb2 import Ack, Delta, Hello, Problems, SessionRequest, SessionResponse, Welcome
from nodeagent import session as agent_side
from provisioner import session as provisioner_side
from provisioner.session import Keep, Known, Recall, Send, applied
from provisioner.world import Change, InventoryKept, Met, Parted, VitalsKept

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
            Vitals.FromString(self.vitals),
            Problems.FromString(self.problems),
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
        for pause_s in (301, 301, 301, 6):  # the last one is for the acknowledgement, which is lazy
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


def _vitals(**links: int) -> Vitals:
    vitals = Vitals()
    vitals.host.boot_id = "b"
    for name, count in links.items():
        vitals.links[name].CopyFrom(LinkVitals(carrier_up_count=count))
    return vitals


def test_a_first_conversation_stores_everything() -> None:
    wire = Wire()
    wire.see(_vitals(eth0=1), problems=("rdma",), inventory=Inventory(identity={"hostname": "gpu-01"}))  # type: ignore[arg-type]
    wire.settle()
    assert Vitals.FromString(wire.store.vitals) == _vitals(eth0=1)
    assert [one.probe for one in Problems.FromString(wire.store.problems).problems] == ["rdma"]
    assert Inventory.FromString(wire.store.bodies[wire.store.digest]).identity.hostname == "gpu-01"


def test_an_inventory_that_is_stored_is_never_asked_for_again() -> None:
    wire = Wire()
    wire.see(_vitals(eth0=1))
    wire.settle()
    wire.crash()
    wire.settle()
    assert len(wire.store.asked_for) == 1


def test_an_inventory_that_comes_back_is_taken_from_the_store() -> None:
    wire = Wire()
    one, two = Inventory(identity={"hostname": "a"}), Inventory(identity={"hostname": "b"})  # type: ignore[arg-type]
    for inventory in (one, two, one):
        wire.see(_vitals(), inventory=inventory)
        wire.settle()
        wire.lose()
    assert len(wire.store.asked_for) == 2
    assert wire.store.bodies[wire.store.digest] == one.SerializeToString(deterministic=True)


def test_nothing_goes_up_while_nothing_changes() -> None:
    wire = Wire()
    wire.see(_vitals(eth0=1))
    wire.settle()
    before = len(wire.sent)
    for _ in range(20):
        wire.now += 10
        wire.see(_vitals(eth0=1))
    assert len(wire.sent) == before


def test_only_the_entry_that_changed_goes_up() -> None:
    wire = Wire()
    wire.see(_vitals(eth0=1, eth1=1))
    wire.settle()
    wire.see(_vitals(eth0=2, eth1=1))
    assert list(wire.sent[-1].delta.vitals.links) == ["eth0"]


def test_what_went_up_and_was_lost_goes_up_again_and_nothing_else() -> None:
    wire = Wire()
    wire.see(_vitals(eth0=1, eth1=1, eth2=1))
    wire.settle()
    wire.see(_vitals(eth0=2, eth1=1))  # eth2 is gone
    wire.lose()
    wire.connect()
    wire.deliver()
    wire.deliver()
    last = wire.sent[-1].delta
    assert (last.whole, sorted(last.vitals.links), list(last.gone)) == (False, ["eth0"], ["links/eth2"])


def test_a_repeated_delta_changes_nothing() -> None:
    there = provisioner_side.Session(Store().known(), "s", epoch=1, peer="")
    there.receive(SessionRequest(hello=Hello(run_id=RUN)), 0)
    delta = SessionRequest(delta=Delta(sequence=1, whole=True, vitals=_vitals(eth0=1)))
    assert there.receive(delta, 1)
    assert there.receive(delta, 2) == []


def test_a_delta_out_of_order_ends_the_conversation() -> None:
    there = provisioner_side.Session(Store().known(), "s", epoch=1, peer="")
    there.receive(SessionRequest(hello=Hello(run_id=RUN)), 0)
    there.receive(SessionRequest(delta=Delta(sequence=1, whole=True)), 1)
    with pytest.raises(provisioner_side.PeerError, match="delta 3 after 1"):
        there.receive(SessionRequest(delta=Delta(sequence=3)), 2)


def test_an_older_epoch_is_refused_by_the_agent() -> None:
    here = agent_side.Session(RUN, "1.0", Random(1))  # noqa: S311
    here.epoch = 5
    here.connected(0, Timestamp())
    with pytest.raises(agent_side.PeerError, match="older than 5"):
        here.receive(SessionResponse(welcome=Welcome(epoch=4)), 0)


def test_an_acknowledgement_of_what_was_never_sent_is_refused() -> None:
    wire = Wire()
    wire.see(_vitals())
    wire.settle()
    with pytest.raises(agent_side.PeerError, match="it acknowledges 99"):
        wire.here.receive(SessionResponse(ack=Ack(sequence=99)), wire.now)


def test_a_provisioner_that_does_not_acknowledge_is_not_flooded() -> None:
    wire = Wire()
    wire.see(_vitals())
    wire.connect()
    for _ in range(4):
        wire.deliver()
    for count in range(100):
        wire.see(_vitals(eth0=count))
    assert wire.kinds().count("delta") == agent_side.WINDOW


def test_the_back_off_doubles_is_jittered_and_bounded() -> None:
    here = agent_side.Session(RUN, "1.0", Random(3))  # noqa: S311
    waits = []
    for _ in range(12):
        here.lost("refused", 0.0)
        waits.append(here.dial_at)
    assert all(0.5 * bound <= wait <= bound for wait, bound in zip(waits, [1, 2, 4, 8, 16, 32, *[60] * 6], strict=True))
    assert len(set(waits)) == len(waits)


def test_a_dismissal_says_when_to_come_back() -> None:
    wire = Wire()
    wire.see(_vitals())
    wire.settle()
    wire.here.receive(SessionResponse(dismissal={"because": "stopping", "retry_after_s": 7}), wire.now)  # type: ignore[arg-type]
    assert 7 <= wire.here.dial_at - wire.now <= 8.75
    assert wire.here.because == "dismissed: stopping"


COUNTS = st.dictionaries(st.sampled_from(["eth0", "eth1", "eth2"]), st.integers(0, 3))
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("see"), COUNTS, st.lists(st.sampled_from(["rdma", "gpus"]), unique=True, max_size=2)),
        st.tuples(st.sampled_from(["deliver", "commit", "lose", "crash", "connect", "wait", "restart"])),
    ),
    max_size=60,
)


@given(MOVES)
@settings(max_examples=300, deadline=None)
def test_whatever_is_lost_in_the_end_the_store_has_what_is_true(moves: list[tuple]) -> None:
    wire, truth, problems = Wire(), _vitals(), []
    wire.see(truth)
    for move in moves:
        match move:
            case ("see", counts, named):
                truth, problems = _vitals(**counts), named
                wire.see(truth, problems=tuple(named), inventory=Inventory(cpu={"cores": len(counts)}))  # type: ignore[arg-type]
            case ("deliver",):
                wire.deliver()
            case ("commit",):
                wire.commit()
            case ("lose",):
                wire.lose()
            case ("crash",):
                wire.crash()
            case ("connect",) if wire.there is None:
                wire.connect()
            case ("restart",):  # of the agent: another run
                wire.lose()
                snapshot, body, digest = wire.here._snapshot, wire.here._inventory, wire.here._digest
                wire.here = agent_side.Session(wire.here.run_id[1:] + b"x", "1.0", Random(1))  # noqa: S311
                wire.here.observe(snapshot, body, digest, wire.now)
            case ("wait",):
                wire.now += 100
    wire.settle()
    assert Vitals.FromString(wire.store.vitals) == truth
    assert [one.probe for one in Problems.FromString(wire.store.problems).problems] == problems
    assert wire.store.digest == wire.here._digest
    assert wire.store.digest in wire.store.bodies
    assert wire.here.acknowledged == wire.here.sequence


def test_applying_a_delta_replaces_whole_entries() -> None:
    before = Vitals(links={"eth0": LinkVitals(carrier=True, carrier_up_count=1)})
    delta = Delta(vitals=Vitals(links={"eth0": LinkVitals(carrier_up_count=2)}))
    assert applied(before, delta) == Vitals(links={"eth0": LinkVitals(carrier_up_count=2)})
