"""What is old goes in slices: what is left is the same wherever they are cut, and whatever is written in between."""

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provisioner.store import Policy, Pruned, Store
from provisioner.store.pruning import total
from provisioner.world import Asked, Change, InventoryKept, Noted
from tests.histories import HISTORIES
from tests.power.work import contents

WHOLE = 1_000_000
LATER = 1e8
QUARTERS = st.integers(0, 24).map(lambda number: number / 4)  # as far as times in histories are apart
POLICIES = st.builds(
    Policy,
    inventories=st.integers(0, 3),
    inventory_s=QUARTERS,
    event_s=QUARTERS,
    undelivered_s=QUARTERS,
    answer_s=QUARTERS,
)


@pytest.fixture
def empty(memory: Path) -> Path:
    store = Store.open(memory / "empty.db")
    store.close()
    return store.path


def _copy(path: Path) -> Path:
    """Of a store that is closed."""
    return Path(shutil.copy(path, path.with_name(f"{uuid.uuid4()}.db")))


@dataclass(frozen=True, slots=True)
class Case:
    history: list[Change]
    policy: Policy
    now: float
    had: int | None  # up to which revision a sink has had the events; None: there is no sink
    most: int  # rows in a slice
    cuts: list[int]  # after so many slices it was cut off


CASES = st.builds(
    Case,
    HISTORIES,
    POLICIES,
    now=QUARTERS.map(lambda quarters: quarters + 4.0),
    had=st.none() | st.integers(0, 30),
    most=st.integers(1, 4),
    cuts=st.lists(st.integers(0, 5), max_size=3),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=CASES)
def test_what_goes_in_slices_is_what_goes_at_once_also_where_they_are_cut_off_and_begun_again(
    case: Case, empty: Path
) -> None:
    path = _copy(empty)
    with closing(Store.open(path)) as store:
        store.write(case.history)
        if case.had is not None:
            store.keep_sinks({"bus": True})
            store.delivered({"bus": case.had})
    once, sliced = _copy(path), _copy(path)
    with closing(Store.open(once)) as store:
        whole = total(store.pruning(case.now, case.policy, WHOLE))
    gone = list[Pruned]()
    for cut in case.cuts:
        with closing(Store.open(sliced)) as store:
            gone += islice(store.pruning(case.now, case.policy, case.most), cut)
    with closing(Store.open(sliced)) as store:
        gone += store.pruning(case.now, case.policy, case.most)
        assert list(store.pruning(case.now, case.policy, case.most)) == []
    assert contents(sliced) == contents(once)
    assert total(gone) == whole


@pytest.fixture
def store(memory: Path) -> Iterator[Store]:
    """A machine that had five inventories, one after the other, and three events."""
    with closing(Store.open(memory / "bedplate.db")) as made:
        made.write([Asked("m-1", 1, b"k", b"", "gpu-01", "", "", "t-1", "", 1.0)])
        made.write([_inventory(number, float(number)) for number in range(1, 6)])
        made.write([Noted("machine.changed", "m-1", "gpu-01", "", "", 1.0) for _ in range(3)])
        yield made


def _inventory(number: int, at: float) -> InventoryKept:
    return InventoryKept("m-1", bytes([number]) * 32, b"body", "gpu-01", "", "", 8, "H100", 12, "", "", at)


def _had(store: Store) -> list[int]:
    return [each.digest[0] for each in store.history("m-1")]


def test_between_two_slices_others_write(store: Store) -> None:
    slices = store.pruning(LATER, Policy(), 1)
    for number, _ in enumerate(slices):
        store.write([Noted("machine.asked", "m-1", "gpu-01", "", "", LATER + number)])
    assert number == 6
    assert len(store.events()) == 7
    assert _had(store) == [5]


def test_an_inventory_that_a_machine_has_again_by_then_stays(store: Store) -> None:
    slices = store.pruning(LATER, Policy(), 1)
    next(slices)
    store.write([_inventory(3, LATER), _inventory(4, LATER)])
    list(slices)
    assert sorted(_had(store)) == [3, 4, 5]
    assert (store.inventory(b"\3" * 32), store.inventory(b"\2" * 32)) == (b"body", None)


def test_nothing_is_written_where_nothing_is_old(store: Store) -> None:
    assert list(store.pruning(5.0, Policy())) == []


DAY_S = 86400.0
NOW = 1_800_000_000.0


@pytest.fixture
def dated(memory: Path) -> Iterator[Callable[..., Store]]:
    """A store with an event of each of these times, in that order, and a sink that has had none of them."""
    with closing(Store.open(memory / "dated.db")) as made:
        made.keep_sinks({"mqtt": True})

        def of(*times: float) -> Store:
            made.write([Noted("token.created", "", "", "", "x", at) for at in times])
            return made

        yield of


@pytest.mark.parametrize("wrong", [12.0, NOW - 200 * DAY_S, NOW + 400 * DAY_S])
def test_what_came_while_the_clock_was_wrong_takes_no_event_with_it_and_keeps_none(
    dated: Callable[..., Store], wrong: float
) -> None:
    """As of a host that has no battery for its clock, and begins in 1970 until it has heard the time."""
    store = dated(NOW - 7200, NOW - 3600, wrong, NOW - 60)
    assert store.prune(NOW, Policy()) == Pruned(0, 0, 0, {})
    store.delivered({"mqtt": 4})
    assert store.prune(NOW, Policy()) == Pruned(0, 0, 0, {})
    dated(NOW + 90 * DAY_S)
    assert store.prune(NOW + 90 * DAY_S, Policy()).events == 4, "it goes with those around it"
    assert [event.revision for event in store.events()] == [5]


def test_what_is_old_goes_up_to_the_first_event_that_is_not(dated: Callable[..., Store]) -> None:
    store = dated(NOW - 190 * DAY_S, 12.0, NOW - 185 * DAY_S, NOW - 3600, 12.0, NOW)
    assert store.prune(NOW, Policy()) == Pruned(0, 3, 0, {"mqtt": 3})
    assert [event.revision for event in store.events()] == [4, 5, 6]
    assert store.oldest_event_revision() == 4


def test_nothing_is_written_where_a_sink_has_had_none_of_what_is_old(dated: Callable[..., Store]) -> None:
    store = dated(NOW - 100 * DAY_S, NOW - 99 * DAY_S)
    assert list(store.pruning(NOW, Policy())) == []
    store.delivered({"mqtt": 1})
    assert [pruned.events for pruned in store.pruning(NOW, Policy())] == [1]
    assert list(store.pruning(NOW, Policy())) == []
