"""The world changes only by changes, and each says what it means once."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.world import (
    Accepted,
    Asked,
    Change,
    Forgotten,
    Met,
    Noted,
    Parted,
    SilenceNoted,
    TokenMade,
    TokenRevoked,
    TokenUsed,
    VitalsKept,
    World,
)
from tests.histories import HISTORIES

ASKED = Asked("m-1", 1, b"k" * 32, b"", "gpu-01", "DGX", "S1", "t-1", "its token asks for review", 1.0)
EMPTY = World(epoch=3, started_at=0.0)


def _met(session: str, at: float) -> Met:
    return Met("m-1", session, 3, b"r" * 16, "1.0", "boot", "10.0.0.7", 0.0, at)


def _after(*changes: Change) -> World:
    return EMPTY.after(enumerate(changes, 1))


def test_a_machine_that_is_let_in_waits_for_nothing_any_more() -> None:
    facts = _after(ASKED, Accepted("m-1", 2.0)).machines["m-1"]
    assert (facts.accepted_at, facts.waits_because, facts.revision) == (2.0, "", 2)


def test_the_end_of_an_older_stream_leaves_the_younger_one_open() -> None:
    world = _after(ASKED, _met("old", 2.0), _met("new", 3.0), Parted("m-1", "old", "replaced", 4.0))
    assert world.connected(world.machines["m-1"])
    assert world.machines["m-1"].last_heard_at == 3.0


def test_a_stream_of_an_earlier_life_of_the_provisioner_is_not_open() -> None:
    world = _after(ASKED, _met("one", 2.0))
    later = dataclasses.replace(world, epoch=4)
    assert (world.connected(world.machines["m-1"]), later.connected(later.machines["m-1"])) == (True, False)


def test_a_forgotten_machine_is_known_no_more_and_asks_again_as_a_new_life() -> None:
    gone = _after(ASKED, Accepted("m-1", 2.0), Forgotten("m-1", 3.0))
    back = gone.after([(4, dataclasses.replace(ASKED, incarnation=2))])
    assert gone.known == []
    assert (back.machines["m-1"].incarnation, back.machines["m-1"].accepted_at) == (2, None)


def test_another_run_of_the_agent_begins_to_count_anew() -> None:
    facts = _after(ASKED, VitalsKept("m-1", b"a" * 16, 7, b"", b"", 0, 2.0), _met("one", 3.0)).machines["m-1"]
    assert (facts.run_id, facts.sequence) == (b"r" * 16, 0)


def test_a_watcher_sees_a_count_of_problems_that_moved_and_no_quiet_vitals() -> None:
    quiet = _after(ASKED, VitalsKept("m-1", b"a" * 16, 1, b"", b"", 0, 2.0))
    loud = quiet.after([(3, VitalsKept("m-1", b"a" * 16, 2, b"", b"", 4, 3.0))])
    assert (quiet.machines_revision, quiet.revision, loud.machines_revision) == (1, 2, 3)


def test_an_event_moves_the_revision_of_events_alone() -> None:
    world = _after(ASKED, Noted("machine.asked", "m-1", "", "", "", 1.0))
    assert (world.machines_revision, world.events_revision, world.revision) == (1, 2, 2)


def test_the_same_key_counts_once_and_a_token_ends_once() -> None:
    made = TokenMade("t-1", b"", 1.0, 60.0, 2, review=False, created_by="alice")
    used = TokenUsed("t-1", b"k", "m-1", 2.0)
    token = _after(made, used, used, TokenRevoked("t-1", 3.0), TokenRevoked("t-1", 4.0)).tokens["t-1"]
    assert (len(token.used_by), token.revoked_at) == (1, 3.0)


@pytest.mark.parametrize("change", [Accepted("m-9", 1.0), TokenRevoked("t-9", 1.0)])
def test_what_nobody_knows_cannot_change(change: Change) -> None:
    with pytest.raises(KeyError):
        _after(change)


def test_what_was_under_way_when_a_machine_was_forgotten_changes_nothing_of_it() -> None:
    forgotten = _after(ASKED, Forgotten("m-1", 2.0)).machines["m-1"]
    vitals = VitalsKept("m-1", b"r" * 16, 7, b"", b"", 0, 3.0)
    silence = SilenceNoted("m-1", silent=True, at=3.0)
    late = _after(ASKED, Forgotten("m-1", 2.0), _met("s-1", 3.0), vitals, silence, Forgotten("m-1", 4.0))
    assert late.machines["m-1"] == forgotten


@given(HISTORIES, st.data())
def test_a_history_in_two_parts_is_the_history(history: list[Change], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(history)))
    numbered = list(enumerate(history, 1))
    assert EMPTY.after(numbered[:cut]).after(numbered[cut:]) == EMPTY.after(numbered)
