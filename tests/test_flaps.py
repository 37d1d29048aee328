"""A problem that comes or goes is an event; one that flaps is one event with a count."""

from dataclasses import replace

from bedplate.v1.snapshot_pb2 import Problem
from provisioner.flaps import APPEARED, CLEARED, FLAPPING, WINDOW_S, Flaps, moves
from provisioner.world import Facts

FACTS = Facts("m-1", 1, b"k", asked_at=0.0, hostname="gpu-01")
KNOWN = {"m-1": FACTS}
LOST = Problem(probe="gpus", kind=Problem.KIND_LOST, part="0000:53:00.0", detail="fell off the bus")
SLOW = Problem(probe="rdma", kind=Problem.KIND_TIMEOUT)


def _flap(flaps: Flaps, times: int, *, every_s: float = 10.0) -> list[tuple[str, str]]:
    """It appears, clears, appears …"""
    noted = []
    for n in range(times):
        noted += flaps.moved(FACTS, [(LOST, n % 2 == 0)], n * every_s)
        flaps.kept("m-1", [(LOST, n % 2 == 0)])
    return [(one.kind, one.because) for one in noted]


def test_what_cleared_is_told_before_what_appeared() -> None:
    assert moves([LOST], [SLOW]) == ((LOST, False), (SLOW, True))


def test_the_same_problem_in_other_words_has_not_moved() -> None:
    again = Problem(probe="gpus", kind=Problem.KIND_LOST, part="0000:53:00.0", detail="still off the bus")
    assert moves([LOST], [again]) == ()


def test_a_problem_that_appears_and_clears_is_two_events() -> None:
    assert _flap(Flaps(), 2) == [
        (APPEARED, "gpus 0000:53:00.0 (lost): fell off the bus"),
        (CLEARED, "gpus 0000:53:00.0 (lost)"),
    ]


def test_an_event_says_which_machine_when_and_who_told() -> None:
    (event,) = Flaps().moved(FACTS, [(SLOW, True)], 7.0)
    assert (event.machine_id, event.hostname, event.actor, event.at) == ("m-1", "gpu-01", "machine m-1", 7.0)


def test_a_thousand_changes_are_three_events_and_one_that_it_flaps() -> None:
    told = _flap(Flaps(), 1000)
    assert [kind for kind, _ in told] == [APPEARED, CLEARED, APPEARED, FLAPPING]
    assert told[-1][1] == "gpus 0000:53:00.0 (lost): came and went, 4 changes within 10 min"


def test_a_flap_that_settles_ends_with_its_count_and_how_it_stands() -> None:
    flaps = Flaps()
    _flap(flaps, 1000)
    last = 999 * 10.0
    assert flaps.settled(last + WINDOW_S - 1, KNOWN) == []
    (event,) = flaps.settled(last + WINDOW_S, KNOWN)
    assert (event.kind, event.because) == (CLEARED, "gpus 0000:53:00.0 (lost): it is gone now, after 1000 changes")
    assert event.count == 1000, "for programs too"
    assert flaps.settled(last + WINDOW_S, KNOWN) == [event], "until it is stored"
    flaps.forget(last + WINDOW_S)
    assert flaps.settled(last + 2 * WINDOW_S, KNOWN) == []


def test_a_flap_that_ends_with_the_problem_there_says_so() -> None:
    flaps = Flaps()
    _flap(flaps, 7)
    (event,) = flaps.settled(60.0 + WINDOW_S, KNOWN)
    assert (event.kind, event.because) == (APPEARED, "gpus 0000:53:00.0 (lost): it is there now, after 7 changes")


def test_what_changes_seldom_never_flaps_and_nothing_is_kept_of_it() -> None:
    flaps = Flaps()
    assert [kind for kind, _ in _flap(flaps, 20, every_s=WINDOW_S / 3)] == [APPEARED, CLEARED] * 10
    assert flaps.settled(1e6, KNOWN) == []
    flaps.forget(1e6)
    assert flaps == Flaps()


def test_what_the_store_refused_is_told_again_and_not_counted_again() -> None:
    flaps = Flaps()
    told = [flaps.moved(FACTS, [(LOST, True)], now)[0].kind for now in (0.0, 10.0, 20.0, 30.0, 40.0)]
    assert told == [APPEARED] * 5
    _flap(flaps, 4)
    (event,) = flaps.moved(FACTS, [(LOST, False)], 50.0)
    assert event.kind == FLAPPING


def test_the_last_word_is_on_how_it_stands_in_the_store_where_the_last_move_was_refused() -> None:
    flaps = Flaps()
    _flap(flaps, 8)
    flaps.moved(FACTS, [(LOST, True)], 80.0)  # and that it came is never kept, and has not come again
    (event,) = flaps.settled(80.0 + WINDOW_S, KNOWN)
    assert (event.kind, event.because) == (CLEARED, "gpus 0000:53:00.0 (lost): it is gone now, after 9 changes")


def test_nothing_is_said_of_a_life_that_is_over() -> None:
    flaps = Flaps()
    _flap(flaps, 8)
    assert flaps.settled(1e6, {}) == []
    assert flaps.settled(1e6, {"m-1": replace(FACTS, incarnation=2)}) == []
    (event,) = flaps.moved(replace(FACTS, incarnation=2), [(LOST, True)], 80.0)
    assert event.kind == APPEARED


def test_one_problem_that_flaps_hides_no_other() -> None:
    flaps = Flaps()
    _flap(flaps, 50)
    (event,) = flaps.moved(FACTS, [(SLOW, True)], 500.0)
    assert (event.kind, event.because) == (APPEARED, "rdma (timeout)")


def test_many_problems_at_once_are_one_event_with_their_number() -> None:
    many = [Problem(probe="links", kind=Problem.KIND_LOST, part=f"eth{number}") for number in range(12)]
    (event,) = Flaps().moved(FACTS, [(one, True) for one in many], 0.0)
    assert event.because == "12 problems: links eth0 (lost); links eth1 (lost); links eth2 (lost); and 9 more"


def test_a_kind_of_a_younger_agent_is_a_number() -> None:
    (event,) = Flaps().moved(FACTS, [(Problem(probe="new", kind=77), True)], 0.0)  # type: ignore[arg-type]
    assert event.because == "new (kind 77)"


def test_that_it_flaps_is_told_by_the_next_change_where_the_store_refused_the_one_that_said_so() -> None:
    flaps = Flaps()
    told = [note for number in range(4) for note in flaps.moved(FACTS, [(SLOW, number % 2 == 0)], float(number))]
    assert [note.kind for note in told] == [APPEARED, CLEARED, APPEARED, FLAPPING]
    flaps.refused(told[3:])
    (again,) = flaps.moved(FACTS, [(SLOW, True)], 5.0)
    assert (again.kind, again.count) == (FLAPPING, 5)
    assert flaps.moved(FACTS, [(SLOW, False)], 6.0) == []
