"""What is counted of how peers behave, and what a person reads of it."""

from provisioner.conduct import KEPT, Conduct
from provisioner.flaps import Flaps
from provisioner.world import Facts

NOW = 1_800_000_000.0
MACHINE = "m-aaaaaaaa"
FACTS = Facts(MACHINE, 1, b"k" * 32, 1.0, hostname="gpu-01")


def test_a_machine_that_breaks_the_rules_is_counted_by_reason_and_told_in_a_sentence() -> None:
    conduct = Conduct()
    assert conduct.lines(MACHINE, NOW) == []
    conduct.broke(MACHINE, "ORDER", "delta 7 after 3", NOW - 60)
    assert conduct.lines(MACHINE, NOW) == [
        "it was cut off once for what it sent, last 1 min ago (07:59:00 UTC): delta 7 after 3"
    ]
    conduct.broke(MACHINE, "DECODE", "a message that cannot be decoded", NOW)
    assert conduct.cut_off == {"ORDER": 1, "DECODE": 1}
    assert conduct.lines(MACHINE, NOW)[0].startswith("it was cut off 2 times for what it sent, last 0 s ago")
    assert conduct.lines(MACHINE, NOW + 90_000) == [], "a day later it is no news"


def test_one_that_breaks_them_again_and_again_is_three_events_and_a_flap() -> None:
    conduct, flaps, kinds = Conduct(), Flaps(), list[str]()
    for second in range(1000):
        for moved in (conduct.broke(MACHINE, "ORDER", "delta 7 after 3", NOW + second), conduct.went_well(MACHINE)):
            kinds += [noted.kind.removeprefix("machine.problem.") for noted in flaps.moved(FACTS, moved, NOW + second)]
    assert kinds == ["appeared", "cleared", "appeared", "flapping"]


def test_a_conversation_that_goes_well_is_told_once_and_only_where_it_went_badly() -> None:
    conduct = Conduct()
    assert conduct.went_well(MACHINE) == ()
    conduct.broke(MACHINE, "ORDER", "delta 7 after 3", NOW)
    assert [there for _, there in conduct.went_well(MACHINE)] == [False]
    assert conduct.went_well(MACHINE) == ()


def test_one_that_is_read_more_slowly_is_news_once_a_day_and_its_time_adds_up() -> None:
    conduct = Conduct()
    assert [conduct.slowed(MACHINE, 40.0, NOW + second) for second in range(3)] == [True, False, False]
    assert conduct.lines(MACHINE, NOW + 2) == [
        "it sends faster than it may, and was read more slowly for 2 min in all, last 0 s ago (08:00:02 UTC)"
    ]
    assert conduct.slowed_s == 120.0
    assert conduct.slowed(MACHINE, 1.0, NOW + 90_000)
    assert "for 1 s in all" in conduct.lines(MACHINE, NOW + 90_000)[0]


def test_machines_without_end_take_no_memory_without_end() -> None:
    conduct = Conduct()
    for number in range(3 * KEPT):
        conduct.broke(f"m-{number}", "ORDER", "x", NOW)
    assert conduct.lines("m-0", NOW) == []
    assert conduct.lines(f"m-{3 * KEPT - 1}", NOW) != []
    assert len(conduct._records) == KEPT
