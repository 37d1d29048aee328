"""The two ends of the conversation against each other, in memory and in virtual time."""

from random import Random

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from bedplate.v1.snapshot_pb2 import Inventory, LinkVitals, Problem, Vitals
from bedplate.v1.uplink_pb2 import Ack, Delta, Hello, Problems, SessionRequest, SessionResponse, Welcome
from nodeagent import session as agent_side
from provisioner import session as provisioner_side
from provisioner.vitals import folded
from tests.conversation import RUN, Store, Wire


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


@pytest.mark.parametrize(("window", "at"), [(None, 12), (64, 48), (1, 1), (2**32 - 1, 768)])
def test_so_many_deltas_are_acknowledged_at_once_that_their_agent_need_not_wait(window: int | None, at: int) -> None:
    there = _greeted(Hello(run_id=RUN, window=window))
    committed = (there.committed(sequence, 0.5) for sequence in range(1, at + 1))
    assert [bool(acks) for acks in committed] == [False] * (at - 1) + [True]


def test_the_first_acknowledgement_of_a_stream_comes_soon_and_the_others_are_lazy() -> None:
    there = _greeted(Hello(run_id=RUN, window=64))
    there.committed(1, 0.5)
    assert there.owes_in_s(0.5) == 0.5
    assert not there.tick(0.9)
    assert there.tick(1.0)
    assert there.owes_in_s(1.0) is None
    there.committed(2, 9.0)
    assert there.owes_in_s(9.0) == 12.0
    assert there.owes_in_s(-7200.0) == 20.0, "the clock was set back"
    assert not there.tick(20.9)
    assert there.tick(21.0)


def _greeted(hello: Hello) -> provisioner_side.Session:
    there = provisioner_side.Session(Store().known(), "s", epoch=1, peer="")
    there.receive(SessionRequest(hello=hello), 0.0)
    return there


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


@pytest.mark.parametrize(("said_s", "waits_s"), [(0.0, 0.5), (1e9, 3600.0), (float("inf"), 3600.0), (-1.0, 0.5)])
def test_a_time_to_come_back_at_is_honoured_within_reason(said_s: float, waits_s: float) -> None:
    here = agent_side.Session(RUN, "1.0", Random(3))  # noqa: S311
    here.lost("dismissed", 0.0, said_s)
    assert waits_s <= here.dial_at <= 1.25 * waits_s


def test_a_time_to_come_back_at_that_is_no_number_is_none() -> None:
    here = agent_side.Session(RUN, "1.0", Random(3))  # noqa: S311
    here.lost("dismissed", 0.0, float("nan"))
    assert 0.5 <= here.dial_at <= 1.0


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
    after = Vitals(links={"eth0": LinkVitals(carrier_up_count=2)})
    assert folded(before.SerializeToString(), [Delta(vitals=after)]) == after


def test_a_problem_that_came_or_went_is_told_once_also_by_an_agent_that_began_anew() -> None:
    def told(run_id: bytes, known: str, after: str) -> list[tuple[str, bool]]:
        session = provisioner_side.Session(_stored(known), "s", 1, "peer")
        session.receive(SessionRequest(hello=Hello(run_id=run_id)), 0.0)
        problems = Problems(problems=[Problem(probe=probe) for probe in after])
        outputs = session.receive(SessionRequest(delta=Delta(sequence=8, whole=True, problems=problems)), 1.0)
        (keep,) = [one for one in outputs if isinstance(one, provisioner_side.Keep)]
        return [(problem.probe, there) for problem, there in keep.moves]

    assert told(RUN, "a", "ab") == [("b", True)]
    assert told(b"another-run", "a", "a") == []
    assert told(b"another-run", "ac", "b") == [("a", False), ("c", False), ("b", True)]


def _stored(probes: str) -> provisioner_side.Known:
    problems = Problems(problems=[Problem(probe=probe) for probe in probes])
    return provisioner_side.Known("m-1", RUN, 7, b"", problems.SerializeToString(), b"", frozenset())
