"""What a machine may send is bounded, whatever it sends; and what it sent once is not asked for again."""

import hashlib

import pytest

from bedplate.v1.snapshot_pb2 import Inventory, LinkVitals, Problem, Vitals
from bedplate.v1.uplink_pb2 import Delta, Hello, InventoryBody, Problems, SessionRequest
from provisioner.session import Keep, PeerError, Send, Session
from tests.conversation import RUN, Store


def _session() -> Session:
    made = Session(Store().known(), "s", epoch=1, peer="")
    made.receive(SessionRequest(hello=Hello(run_id=RUN)), 0)
    return made


def _inventory(hostname: str) -> InventoryBody:
    body = Inventory(identity={"hostname": hostname}).SerializeToString()  # type: ignore[arg-type]
    return InventoryBody(digest=hashlib.sha256(body).digest(), inventory=body)


def _named(session: Session, sequence: int, body: InventoryBody) -> list[object]:
    return list(
        session.receive(SessionRequest(delta=Delta(sequence=sequence, whole=True, inventory_digest=body.digest)), 1)
    )


def test_vitals_with_few_entries_of_endless_names_are_too_large() -> None:
    vitals = Vitals()
    vitals.links["x" * 2_000_000].CopyFrom(LinkVitals(carrier_up_count=1))
    with pytest.raises(PeerError, match="bytes of vitals"):
        _session().receive(SessionRequest(delta=Delta(sequence=1, whole=True, vitals=vitals)), 1)


def test_vitals_that_grow_delta_by_delta_are_stopped() -> None:
    session = _session()

    def grow() -> None:
        for sequence in range(1, 100):
            vitals = Vitals()
            vitals.links[f"{sequence}" * 50_000].CopyFrom(LinkVitals(carrier_up_count=1))
            session.receive(SessionRequest(delta=Delta(sequence=sequence, whole=sequence == 1, vitals=vitals)), 1)

    with pytest.raises(PeerError, match="bytes of vitals"):
        grow()


def test_problems_without_end_are_too_large() -> None:
    problems = Problems(problems=[Problem(probe="x" * 2_000_000)])
    with pytest.raises(PeerError, match="bytes of problems"):
        _session().receive(SessionRequest(delta=Delta(sequence=1, whole=True, problems=problems)), 1)


def test_an_inventory_that_nobody_asked_for_is_not_taken_again_and_again() -> None:
    session, body = _session(), _inventory("a")
    _named(session, 1, body)
    message = SessionRequest(inventory=body)
    assert [type(output) for output in session.receive(message, 2)] == [Keep]
    assert session.receive(message, 3) == []


def test_an_inventory_that_came_on_this_very_stream_is_not_asked_for_again() -> None:
    session = _session()
    for sequence, hostname in enumerate(("a", "b"), 1):
        _named(session, sequence, _inventory(hostname))
        session.receive(SessionRequest(inventory=_inventory(hostname)), 2)
    outputs = _named(session, 3, _inventory("a"))
    assert not any(isinstance(output, Send) for output in outputs)


def test_a_hello_without_a_clock_says_nothing_of_its_skew() -> None:
    session = Session(Store().known(), "s", epoch=1, peer="")
    _, keep = session.receive(SessionRequest(hello=Hello(run_id=RUN)), 1_800_000_000)
    assert isinstance(keep, Keep)
    assert getattr(keep.changes[0], "clock_skew_s") == 0.0  # noqa: B009 - of any change
