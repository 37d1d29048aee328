"""Faults by schedule: what befalls which machine depends on the seed alone."""

import json

import pytest

from nodeagent.schedule import CHURN, HOUR_S, KINDS, kind_of, newcomers, rates, timeline
from nodeagent.simulate.command import main
from nodeagent.simulate.faults import PLAYS
from nodeagent.simulate.options import options, shared

ALL = rates("all=2", churn=1.0)


def planned(seed=1, machines=range(1, 41), chosen=ALL, hours=3.0):
    return list(timeline(seed, machines, chosen, hours * HOUR_S))


def test_the_same_seed_gives_the_same_timeline_and_another_seed_another():
    assert planned() == planned()
    assert planned() != planned(seed=2)


def test_what_befalls_a_machine_does_not_depend_on_who_else_is_in_its_process():
    shares = [planned(machines=range(first, 41, 3)) for first in (1, 2, 3)]
    together = [fault for share in shares for fault in share]
    assert sorted(together, key=lambda fault: (fault.at_s, fault.machine)) == planned()


def test_a_machine_has_one_fault_at_a_time():
    over = dict.fromkeys(range(1, 41), 0.0)
    for fault in planned():
        assert fault.at_s >= over[fault.machine]
        over[fault.machine] = fault.over_s


def test_every_kind_comes_and_lasts_as_long_as_it_says():
    faults = planned(hours=20)
    assert {fault.kind for fault in faults} == {*KINDS, CHURN} == set(PLAYS)
    assert all(kind_of(fault.kind).least_s <= fault.for_s <= kind_of(fault.kind).most_s for fault in faults)


def test_a_rate_is_how_often_in_an_hour_while_the_machine_is_well():
    chosen = rates("flap=6")
    faults = planned(machines=range(1, 201), chosen=chosen, hours=10)
    well_hours = 200 * 10 - sum(fault.for_s for fault in faults) / HOUR_S
    assert len(faults) / well_hours == pytest.approx(6, rel=0.05)


def test_no_rate_is_no_fault():
    assert rates("silence=0, flap=0") == {}
    assert planned(chosen={}) == []


def test_one_kind_may_be_set_apart_from_all():
    chosen = rates("all=1,flap=4,silence=0")
    assert (chosen["flap"], chosen["reboot"], "silence" in chosen) == (4.0, 1.0, False)


def test_kinds_that_bring_newcomers_are_known():
    assert newcomers(rates("all=1", churn=1.0)) == ["reimage", "twin", "leave"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--faults", "silense=1"], "no fault 'silense'; there are silence, mute, flap,"),
        (["--faults", "silence"], "silence: must be how often in an hour, for each machine: a number from 0 to 3600"),
        (["--faults", "flap=nan"], "flap: must be how often in an hour"),
        (["--faults", "all=-1"], "all: must be how often in an hour"),
        (["--churn", "5%"], "argument --churn: must be how often in an hour"),
        (["--hour", "0"], "argument --hour: must be 1 to 86400 seconds"),
        (["--plan", "soon"], "argument --plan: must be 0 to 1000 hours"),
        (["--processes", "0"], "argument --processes: must be 1 to 64"),
    ],
)
def test_a_wrong_word_is_one_line(capsys, words, says):
    with pytest.raises(SystemExit, match="2"):
        main(["--state", "nowhere", *words])
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_the_plan_is_printed_as_json_lines_and_nothing_runs(capsysbinary):
    assert main(["--machines", "40", "--faults", "all=2", "--churn", "1", "--plan", "3"]) == 0
    lines = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert [(line["at_s"], line["fault"]) for line in lines] == [(fault.at_s, fault.kind) for fault in planned()]
    assert lines[0].keys() == {"at_s", "machine", "fault", "for_s"}


def test_every_machine_is_in_one_process_and_all_of_them_are():
    whole = options(["--state", "x", "--machines", "10", "--processes", "4"])
    shares = [shared(whole, number).numbers for number in (1, 2, 3, 4)]
    assert sorted(number for share in shares for number in share) == list(range(1, 11))
