"""Deltas that are kept as they came are the vitals that they make, whoever folds them and whenever."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from bedplate.v1.snapshot_pb2 import HostVitals, LinkVitals, Problem, Vitals
from bedplate.v1.uplink_pb2 import Delta, Problems, SessionRequest
from provisioner.dials import MOST_MOVES, Dials, alone
from provisioner.store import Store
from provisioner.world import Asked, VitalsKept, VitalsMoved

RUN = b"r" * 16
LINKS = st.dictionaries(st.sampled_from(["eth0", "eth1", "eth2"]), st.integers(0, 300), max_size=3)
NEVER, ONE, TWO = frozenset[str](), frozenset({"links/eth0"}), frozenset({"links/eth0", "links/eth1"})
GONE = st.sampled_from([*(NEVER,) * 30, ONE, TWO])
HOSTS = st.one_of(
    st.none(), st.builds(HostVitals, load_1m=st.none() | st.just(0.5), kernel_taint=st.none() | st.integers(0, 3))
)
Draw = tuple[dict[str, int], frozenset[str], bool, HostVitals | None]
DELTAS: st.SearchStrategy[list[Draw]] = st.lists(
    st.tuples(LINKS, GONE, st.sampled_from([*(False,) * 30, True]), HOSTS), max_size=40
)
ASKED = Asked("m-1", 1, b"k" * 32, b"", "gpu-01", "DGX", "S1", "t-1", "", 1.0)


def _vitals(links: dict[str, int], host: HostVitals | None = None) -> Vitals:
    entries = {name: LinkVitals(carrier_up_count=count) for name, count in links.items()}
    return Vitals(host=host, links=entries)


def _deltas(draws: list[Draw]) -> Iterator[tuple[Delta, Vitals, bool]]:
    """Each delta, with the vitals and whether there is a problem after it."""
    there, problem, known = dict[str, int](), False, HostVitals(boot_id="b" * 400)
    for sequence, (links, gone, flips, host) in enumerate(draws, 1):
        said = known if sequence == 1 else host
        delta = Delta(sequence=sequence, whole=sequence == 1, vitals=_vitals(links, said), gone=sorted(gone))
        there = {name: count for name, count in {**there, **links}.items() if f"links/{name}" not in gone}
        known = said or known
        if flips:
            problem = not problem
            delta.problems.CopyFrom(Problems(problems=[Problem(probe="rdma")] if problem else []))
        yield delta, _vitals(there, known), problem


def test_what_is_kept_of_each_delta_is_read_back_as_the_vitals_that_it_made(tmp_path: Path) -> None:
    machines = count(1)

    @settings(max_examples=25)
    @given(DELTAS)
    def hold(draws: list[Draw]) -> None:
        name = f"m-{next(machines)}"
        dials = Dials(name, RUN)
        store.write([replace(ASKED, machine_id=name)])
        for delta, vitals, problem in _deltas(draws):
            store.write([dials.take(delta, delta.SerializeToString(), float(delta.sequence))[0]])
            row = store.vitals(name)
            assert row
            assert (row.run_id, row.sequence, row.at) == (RUN, delta.sequence, float(delta.sequence))
            assert Vitals.FromString(row.vitals) == vitals
            assert len(Problems.FromString(row.problems).problems) == problem

    with closing(Store.open(tmp_path / "bedplate.db")) as store:
        hold()


def test_what_lies_beside_the_vitals_is_never_more_than_twice_as_large_nor_many() -> None:
    dials = Dials("m-1", RUN)
    for sequence in range(1, 200):
        host = HostVitals(boot_id="b" * 100) if sequence == 1 else None
        delta = Delta(sequence=sequence, whole=sequence == 1, vitals=_vitals({"eth0": sequence}, host))
        dials.take(delta, delta.SerializeToString(), 1.0)
        assert dials.beside_size <= 2 * dials.size
        assert dials.beside <= MOST_MOVES


def test_the_first_delta_of_a_stream_and_one_that_tells_of_problems_keep_the_vitals_whole() -> None:
    again = Dials("m-1", RUN)
    again.resume(_vitals({"eth0": 1}).SerializeToString(), b"")
    small = Delta(vitals=Vitals(links={"eth0": LinkVitals(carrier_up_count=2)}))
    kinds = [
        type(again.take(delta, delta.SerializeToString(), 1.0)[0])
        for delta in (small, small, Delta(problems=Problems()), small)
    ]
    assert kinds == [VitalsKept, VitalsMoved, VitalsKept, VitalsMoved]


@given(st.integers(0, 400), st.booleans())
def test_a_delta_that_is_all_of_a_message_is_found_in_it_as_it_came(size: int, another: bool) -> None:  # noqa: FBT001
    delta = Delta(sequence=1, gone=["x" * size])
    octets = SessionRequest(delta=delta).SerializeToString()
    more = SessionRequest(delta=Delta(whole=True)).SerializeToString() if another else b""
    assert alone(octets + more) == (b"" if another else delta.SerializeToString())
    assert alone(octets[:-1]) == b""


@given(st.binary(max_size=8))
def test_what_is_no_message_of_a_delta_alone_holds_none(octets: bytes) -> None:
    found = alone(octets)
    assert not found or SessionRequest(delta=Delta()).SerializeToString()[:1] == octets[:1]
    assert len(found) in {0, len(octets) - 2, len(octets) - 3}


def test_deltas_of_before_are_passed_over_once_the_vitals_are_kept_whole_again(tmp_path: Path) -> None:
    def moved(sequence: int, place: int, run_id: bytes = RUN) -> VitalsMoved:
        delta = Delta(vitals=Vitals(links={"eth0": LinkVitals(carrier_up_count=sequence)}))
        return VitalsMoved("m-1", run_id, sequence, place, delta.SerializeToString(), float(sequence))

    def stands(store: Store) -> tuple[int, int]:
        row = store.vitals("m-1")
        assert row
        return row.sequence, Vitals.FromString(row.vitals).links["eth0"].carrier_up_count

    whole = _vitals({"eth0": 100}).SerializeToString()
    with closing(Store.open(tmp_path / "bedplate.db")) as store:
        store.write([ASKED, VitalsKept("m-1", RUN, 1, whole, b"", 0, 1.0), moved(2, 0), moved(3, 1)])
        assert stands(store) == (3, 3)
        store.write([VitalsKept("m-1", RUN, 4, whole, b"", 0, 4.0)])
        assert stands(store) == (4, 100)
        store.write([moved(5, 0)])
        assert stands(store) == (5, 5)
        store.write([VitalsKept("m-1", b"s" * 16, 1, whole, b"", 0, 6.0)])
        assert stands(store) == (1, 100)
        store.write([ASKED])
        assert store.vitals("m-1") is None


def test_deltas_are_gathered_into_one_before_they_are_many(tmp_path: Path) -> None:
    dials, whole = Dials("m-1", RUN), HostVitals(boot_id="b" * 4000)
    changes = [dials.take(delta, delta.SerializeToString(), float(delta.sequence))[0] for delta in _plain(60, whole)]
    assert [type(change) for change in changes].count(VitalsKept) == 1
    places = [change.place for change in changes if isinstance(change, VitalsMoved)]
    assert places == [place % MOST_MOVES for place in range(59)]
    with closing(Store.open(tmp_path / "bedplate.db")) as store:
        store.write([ASKED, *changes])
        row = store.vitals("m-1")
        assert row
        assert (row.sequence, Vitals.FromString(row.vitals)) == (
            60,
            _vitals({"eth0": 60, "eth1": 59, "once": 2}, whole),
        )


def _plain(count: int, host: HostVitals) -> Iterator[Delta]:
    for sequence in range(1, count + 1):
        links = {f"eth{sequence % 2}": sequence, **({"once": 2} if sequence == 2 else {})}
        vitals = _vitals(links, host if sequence == 1 else None)
        yield Delta(sequence=sequence, whole=sequence == 1, vitals=vitals)
