"""What leaves the provisioner is judged in the simulation: what would be broken, said on purpose, is found."""

import pytest

from provisioner.store.rows import Event
from provisioner.world import Answered, Audited
from tests.simulation.broken import BrokenError
from tests.simulation.disk import Platter
from tests.simulation.fleet import Fleet
from tests.simulation.outward import Outward


@pytest.fixture(name="outward")
def two_events():
    outward = Outward(Platter(events=[Event(revision, 1.0, "k", "m-1", "", "", "") for revision in (3, 5)]))
    outward.platter.sinks["desk"] = 0
    outward.begins("desk", lambda _: True)
    return outward


def test_a_sink_gets_each_event_in_order_and_may_get_it_again(outward):
    for revision in (3, 3, 5, 3, 5):
        outward.took("desk", revision)
    outward.noted({"desk": 5})
    assert outward.behind() == ""


@pytest.mark.parametrize(
    ("taken", "said"),
    [
        ([5], r"desk gets event 5 before \[3\]"),
        ([3, 4], "desk gets event 4 that is not durable"),
    ],
)
def test_an_event_that_is_passed_over_or_not_durable_is_found(outward, taken, said):
    *before, last = taken
    for revision in before:
        outward.took("desk", revision)
    with pytest.raises(BrokenError, match=said):
        outward.took("desk", last)


def test_a_place_ahead_of_what_was_delivered_is_found(outward):
    outward.took("desk", 3)
    with pytest.raises(BrokenError, match="desk is said to have had 5 and lacks event 5"):
        outward.noted({"desk": 5})


@pytest.mark.parametrize("told", [[5], [3, 3], [3, 5, 5]])
def test_a_watch_that_misses_an_event_or_hears_it_twice_is_found(outward, told):
    *before, last = told
    for revision in before:
        outward.told("reader", revision)
    with pytest.raises(BrokenError, match="reader is told event"):
        outward.told("reader", last)


def test_a_write_without_its_entry_and_a_write_that_comes_twice_are_found(outward):
    entry = Audited("ann", "operator", "ForgetMachine", "r-1", "", "", "", 1.0)
    answer = Answered("ann", "r-1", "ForgetMachine", b"", b"", 1.0)
    with pytest.raises(BrokenError, match="operator leaves not 1 entries"):
        outward.committed([answer], "operator")
    outward.committed([answer, entry], "operator")
    with pytest.raises(BrokenError, match="the write r-1 comes to be twice"):
        outward.committed([answer, entry], "operator")
    with pytest.raises(BrokenError, match="the audit has 0 of 1 entries"):
        outward.verify()


def test_an_answer_to_what_is_not_durable_is_found(outward):
    with pytest.raises(BrokenError, match="the write r-1 is answered, and is not durable"):
        outward.answered("r-1")


def test_some_fleets_have_sinks_and_some_have_tools_that_watch():
    made = [Fleet(seed) for seed in range(40)]
    for fleet in made:
        fleet.end()
    assert {bool(fleet.sinks) for fleet in made} == {True, False}
    assert {bool(fleet.readers) for fleet in made} == {True, False}
