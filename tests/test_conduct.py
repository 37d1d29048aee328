"""What is counted of how peers behave, and what a person reads of it."""

from provisioner.conduct import KEPT, KEPT_BROKEN, Conduct
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


def test_a_stream_that_ends_without_a_goodbye_is_counted_and_told_for_a_day() -> None:
    conduct = Conduct()
    conduct.lose(MACHINE, NOW - 60)
    why = (
        "the network, its power, an agent that was killed or gave the stream up (it took nothing for 10 s), "
        "two hosts with one state folder, or a message of more than 4 MiB"
    )
    assert conduct.lines(MACHINE, NOW) == [
        f"its stream broke off once without a goodbye, last 1 min ago (07:59:00 UTC): {why}"
    ]
    conduct.lose(MACHINE, NOW)
    assert conduct.broken_off == {"Uplink.Session": 2}
    assert conduct.lines(MACHINE, NOW)[0].startswith("its stream broke off 2 times without a goodbye, last 0 s ago")
    assert conduct.lines("m-bbbbbbbb", NOW) == []
    assert conduct.lines(MACHINE, NOW + 90_000) == [], "a day later it is no news"
    conduct.lose(MACHINE, NOW + 7 * 86_400)
    assert "broke off once" in conduct.lines(MACHINE, NOW + 7 * 86_400)[0], "once a week is once"


def test_a_call_that_breaks_off_is_counted_by_its_method_as_the_documents_name_it() -> None:
    conduct = Conduct()
    conduct.break_off("/bedplate.v1.Enrolment/Enrol")
    conduct.break_off("/grpc.health.v1.Health/Check")
    assert conduct.broken_off == {"Enrolment.Enrol": 1, "Health.Check": 1}


def test_a_cut_of_the_network_puts_nobody_aside_who_broke_the_rules() -> None:
    conduct = Conduct()
    conduct.broke(MACHINE, "ORDER", "delta 7 after 3", NOW)
    for number in range(KEPT_BROKEN + 100):
        conduct.lose(f"m-{number}", NOW)
    assert len(conduct._broken) == KEPT_BROKEN
    assert conduct.lines("m-99", NOW) == []
    assert conduct.lines("m-100", NOW) != []
    assert [moved for _, moved in conduct.went_well(MACHINE)] == [False]
