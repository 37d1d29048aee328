"""A peer of a made-up younger protocol: what an older end does not know, it leaves alone, and goes on.

No younger protos are needed: a field that nobody knows is a few bytes at the end of a message.
"""

import hashlib
from random import Random
from typing import TypeVar

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from bedplate.v1.snapshot_pb2 import Inventory, LinkVitals, Problem, Snapshot, Vitals
from bedplate.v1.uplink_pb2 import (
    Ack,
    Delta,
    Desired,
    Goodbye,
    Hello,
    InventoryBody,
    Problems,
    SessionRequest,
    SessionResponse,
    WantInventory,
    Welcome,
)
from nodeagent import session as agent_side
from provisioner import session as provisioner_side
from provisioner.cli.terminal import Terminal
from provisioner.cli.views import machine as machine_view
from provisioner.explain import problem_lines
from provisioner.session import Keep, Send
from provisioner.world import InventoryKept, Met, VitalsKept
from tests.cli_machines import NOW, answer, plain_host
from tests.conversation import RUN, Store

M = TypeVar("M", bound=Message)
UNKNOWN = 4000  # no message of ours has a field of this number


def _field(content: bytes, number: int = UNKNOWN) -> bytes:
    """A field of bytes, as it is on the wire: number and type, length, content."""
    tag = number << 3 | 2
    return bytes([tag & 0x7F | 0x80, tag >> 7 & 0x7F | 0x80, tag >> 14, len(content)]) + content


def _younger(message: M, content: bytes = b"made up") -> M:
    """The message with a field that nobody knows."""
    return type(message).FromString(message.SerializeToString() + _field(content))


def _unknown(kind: type[M]) -> M:
    """A message of which nothing is known: another arm of its oneof."""
    return kind.FromString(_field(b"made up"))


def _vitals(**links: int) -> Vitals:
    return Vitals(links={name: LinkVitals(carrier_up_count=count) for name, count in links.items()})


# -- an older provisioner ------------------------------------------------------------------------------------------


def _there() -> provisioner_side.Session:
    return provisioner_side.Session(Store().known(), "s1", epoch=1, peer="127.0.0.1")


def _told(session: provisioner_side.Session, *messages: SessionRequest) -> list[provisioner_side.Output]:
    return [output for message in messages for output in session.receive(message, 1000.0)]


def _messages(*, younger: bool) -> list[SessionRequest]:
    """A whole conversation; the same one with fields that nobody knows, in every message and one level below."""
    inventory = Inventory(identity={"hostname": "gpu-01"}).SerializeToString()  # type: ignore[arg-type]
    digest = hashlib.sha256(inventory).digest()
    hello = Hello(agent_version="9.0", run_id=RUN, inventory_digest=digest, boot_id="b")
    delta = Delta(sequence=1, whole=True, vitals=_vitals(eth0=1), problems=Problems())
    body = InventoryBody(digest=digest, inventory=inventory)
    goodbye = Goodbye(because="stopping")
    if younger:
        hello, body, goodbye, delta = _younger(hello), _younger(body), _younger(goodbye), _younger(delta)
        delta.vitals.CopyFrom(_younger(delta.vitals))
    messages = [
        SessionRequest(hello=hello),
        SessionRequest(delta=delta),
        SessionRequest(inventory=body),
        SessionRequest(goodbye=goodbye),
    ]
    return [_younger(message) for message in messages] if younger else messages


def test_a_younger_agent_s_further_fields_change_nothing_of_what_is_kept() -> None:
    assert _told(_there(), *_messages(younger=True)) == _told(_there(), *_messages(younger=False))


def test_a_younger_agent_s_further_messages_are_passed_over() -> None:
    session = _there()
    hello, *rest = _messages(younger=False)
    _told(session, hello)
    assert _told(session, _unknown(SessionRequest)) == []
    assert any(isinstance(output, Keep) for output in _told(session, *rest))


def test_a_stream_begins_with_a_hello_in_every_protocol() -> None:
    with pytest.raises(provisioner_side.PeerError, match="an empty message before the hello"):
        _there().receive(_unknown(SessionRequest), 1000.0)


def test_a_younger_agent_s_further_vitals_do_not_pile_up() -> None:
    session = _there()
    _told(session, _messages(younger=False)[0])
    for sequence in range(1, 200):
        delta = Delta(sequence=sequence, whole=sequence == 1, vitals=_younger(_vitals(eth0=sequence), b"x" * 100))
        delta.gone.append("rails/0")  # an entry of a section that is not known here
        kept = _told(session, SessionRequest(delta=delta))
    (change,) = next(output for output in kept if isinstance(output, Keep)).changes
    assert isinstance(change, VitalsKept)
    assert Vitals.FromString(change.vitals) == _vitals(eth0=199)
    assert len(change.vitals) < 100


def test_a_younger_agent_s_further_reading_of_a_known_part_is_kept_for_whoever_knows_it() -> None:
    session = _there()
    _told(session, _messages(younger=False)[0])
    vitals = Vitals(links={"eth0": _younger(LinkVitals(carrier_up_count=1))})
    outputs = _told(session, SessionRequest(delta=Delta(sequence=1, whole=True, vitals=vitals)))
    (change,) = next(output for output in outputs if isinstance(output, Keep)).changes
    assert isinstance(change, VitalsKept)
    assert b"made up" in change.vitals


def test_a_younger_agent_s_inventory_is_kept_byte_for_byte() -> None:
    inventory = _younger(Inventory(identity={"hostname": "gpu-01"})).SerializeToString()  # type: ignore[arg-type]
    digest = hashlib.sha256(inventory).digest()
    body = InventoryBody(digest=digest, inventory=inventory)
    hello = Hello(run_id=RUN, inventory_digest=digest)
    outputs = _told(_there(), SessionRequest(hello=hello), SessionRequest(inventory=body))
    (kept,) = [
        change
        for output in outputs
        if isinstance(output, Keep)
        for change in output.changes
        if isinstance(change, InventoryKept)
    ]
    assert (kept.body, kept.hostname) == (inventory, "gpu-01")


def test_the_version_that_an_agent_says_is_kept() -> None:
    outputs = _told(_there(), _messages(younger=True)[0])
    (met,) = [change for one in outputs if isinstance(one, Keep) for change in one.changes if isinstance(change, Met)]
    assert met.agent_version == "9.0"
    assert any(isinstance(output, Send) and output.message.HasField("welcome") for output in outputs)


def test_a_kind_of_problem_that_is_not_known_here_is_told_by_its_number() -> None:
    problem = Problem(probe="gpus", part="0", kind=77, detail="odd")  # type: ignore[arg-type]
    assert problem_lines(Problems(problems=[problem])) == ["gpus 0: kind 77: odd"]
    told = answer(plain_host())
    told.snapshot.problems.append(problem)
    assert any("gpus 0: kind 77: odd" in line for line in machine_view.page(told, Terminal(), NOW))


# -- an older agent ------------------------------------------------------------------------------------------------


def _here() -> agent_side.Session:
    """It has said hello."""
    session = agent_side.Session(RUN, "1.0", Random(1))  # noqa: S311
    inventory = Inventory()
    snapshot = Snapshot(vitals=_vitals(eth0=1), inventory=inventory)
    session.observe(snapshot, b"", hashlib.sha256(b"").digest(), 0.0)
    session.connected(0.0, Timestamp())
    return session


def _answers(*, younger: bool) -> list[SessionResponse]:
    welcome, want = Welcome(epoch=1, vitals_interval_s=60), WantInventory(digest=hashlib.sha256(b"").digest())
    ack, desired = Ack(sequence=1), Desired(revision=3, epoch=1, labels={"a": "b"})
    if younger:
        welcome, ack, want, desired = _younger(welcome), _younger(ack), _younger(want), _younger(desired)
    messages = [
        SessionResponse(welcome=welcome),
        SessionResponse(ack=ack),
        SessionResponse(want_inventory=want),
        SessionResponse(desired=desired),
    ]
    return [_younger(message) for message in messages] if younger else messages


def test_a_younger_provisioner_s_further_fields_change_nothing_of_what_goes_up() -> None:
    plain, other = _here(), _here()
    for message, younger in zip(_answers(younger=False), _answers(younger=True), strict=True):
        assert plain.receive(message, 1.0) == other.receive(younger, 1.0)
    assert other.state is agent_side.State.OPEN
    assert (other.acknowledged, other.desired.revision, dict(other.desired.labels)) == (1, 3, {"a": "b"})


def test_a_younger_provisioner_s_further_messages_are_passed_over() -> None:
    session = _here()
    session.receive(_answers(younger=False)[0], 1.0)
    assert session.receive(_unknown(SessionResponse), 2.0) == []
    assert session.state is agent_side.State.OPEN


def test_a_stream_is_answered_with_a_welcome_in_every_protocol() -> None:
    with pytest.raises(agent_side.PeerError, match="an empty message while greeting"):
        _here().receive(_unknown(SessionResponse), 1.0)
