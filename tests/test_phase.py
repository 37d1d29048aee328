"""The phase of a machine and its sentence: read here as the night shift reads them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.v1.fleet_pb2 import Phase
from bedplate.v1.snapshot_pb2 import Problem
from bedplate.v1.uplink_pb2 import Problems
from provisioner.explain import explain, problem_lines
from provisioner.phase import clock, phase, silent_at, span, word_of
from provisioner.world import Change, Facts, World
from tests.histories import HISTORIES

NOON = 1_800_014_400.0  # 2027-01-15 12:00:00 UTC
SILENT_AFTER_S = 60.0
WORLD = World(epoch=7, started_at=NOON - 3600)
NEW = Facts("m-1", 1, b"k" * 32, NOON - 7200, hostname="gpu-01")
LET_IN = replace(NEW, accepted_at=NOON - 600)
HEARD = replace(LET_IN, last_heard_at=NOON - 3, peer="10.0.0.7")
OPEN = replace(HEARD, session="s-1", session_epoch=7)
BROKEN = replace(HEARD, parted_because="connection reset")


def _said(facts: Facts, *, now: float = NOON, world: World = WORLD) -> str:
    """'present: on a stream from …'"""
    word, because = phase(facts, world, now, SILENT_AFTER_S)
    return f"{Phase.Name(word).removeprefix('PHASE_').lower()}: {because}"


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        (NEW, "pending: waits for a person; asked 2 h ago (10:00:00 UTC)"),
        (
            replace(NEW, waits_because="its join token t-1 asks for review"),
            "pending: waits for a person: its join token t-1 asks for review; asked 2 h ago (10:00:00 UTC)",
        ),
        (LET_IN, "accepted: let in 10 min ago (11:50:00 UTC), and not heard since"),
        (OPEN, "present: on a stream from 10.0.0.7; it last reported 3 s ago"),
        (
            BROKEN,
            "present: its stream ended at 11:59:57 UTC, 3 s ago (connection reset); silent in 57 s unless it is heard",
        ),
        (
            replace(BROKEN, last_heard_at=NOON - 720),
            "silent: silent for 12 min: its stream ended at 11:48:00 UTC (connection reset); nothing heard since",
        ),
        (
            replace(BROKEN, last_heard_at=NOON - 180_000),
            (
                "silent: silent for 2 d 2 h: its stream ended at 2027-01-13 10:00:00 UTC (connection reset); "
                "nothing heard since"
            ),
        ),
        (
            replace(OPEN, session_epoch=6, last_heard_at=NOON - 4000),
            (
                "silent: silent for 1 h 6 min: its stream ended with the provisioner's last life, "
                "and it was last heard at 10:53:20 UTC; nothing heard since"
            ),
        ),
        (
            replace(HEARD, forgotten_at=NOON - 60),
            "unspecified: forgotten 1 min ago (11:59:00 UTC): its certificate is worth nothing",
        ),
    ],
)
def test_a_phase_comes_with_a_sentence_that_says_since_when_and_why(facts: Facts, sentence: str) -> None:
    assert _said(facts) == sentence


def test_an_open_stream_is_presence_however_long_nothing_was_said_on_it() -> None:
    assert _said(OPEN, now=NOON + 290).startswith("present: on a stream from 10.0.0.7; it last reported 4 min ago")


def test_silence_begins_when_the_time_is_over_and_not_before() -> None:
    at = silent_at(BROKEN, WORLD, SILENT_AFTER_S)
    assert at == NOON + 57
    words = [word_of(BROKEN, WORLD, moment, SILENT_AFTER_S) for moment in (at - 0.001, at)]
    assert words == [Phase.PHASE_PRESENT, Phase.PHASE_SILENT]


def test_after_a_restart_a_machine_has_its_time_again_from_when_the_provisioner_is_back() -> None:
    world = World(epoch=8, started_at=NOON)
    was_open = replace(OPEN, last_heard_at=NOON - 290)
    assert _said(was_open, now=NOON + 10, world=world) == (
        "present: last heard 5 min ago (11:55:10 UTC), before the provisioner came back 10 s ago; "
        "silent in 50 s unless it is heard"
    )
    assert _said(was_open, now=NOON + 60, world=world).startswith("silent: silent for 5 min: its stream ended with")


def test_a_machine_whose_silence_was_noted_does_not_come_back_by_a_restart() -> None:
    world = World(epoch=8, started_at=NOON)
    noted = replace(BROKEN, last_heard_at=NOON - 500, silent_noted=True)
    assert _said(noted, now=NOON + 1, world=world).startswith("silent: silent for 8 min")


def test_a_machine_that_cannot_fall_silent_has_no_time_for_it() -> None:
    assert [silent_at(facts, WORLD, SILENT_AFTER_S) for facts in (NEW, LET_IN, OPEN)] == [None, None, None]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3600, "1 h"),
        (9000, "2 h 30 min"),
        (200000, "2 d 7 h"),
        (86400, "1 d"),
    ],
)
def test_a_span_is_read_at_a_glance(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_a_time_of_another_day_carries_its_date() -> None:
    assert [clock(at, NOON) for at in (NOON, NOON - 86400)] == ["12:00:00 UTC", "2027-01-14 12:00:00 UTC"]


@given(HISTORIES, st.floats(0, 1000))
def test_every_machine_of_any_history_has_a_phase_that_its_word_and_its_time_agree_with(
    history: list[Change], now: float
) -> None:
    world = World(epoch=3, started_at=2.0).after(enumerate(history, 1))
    for facts in world.machines.values():
        word, because = phase(facts, world, now, SILENT_AFTER_S)
        assert because
        assert word == word_of(facts, world, now, SILENT_AFTER_S)
        at = silent_at(facts, world, SILENT_AFTER_S)
        assert (word == Phase.PHASE_SILENT) == (at is not None and now >= at)
        assert explain(facts, world, now, SILENT_AFTER_S).because == because


def test_an_explanation_has_its_evidence_under_it_and_what_to_do() -> None:
    facts = replace(BROKEN, last_heard_at=NOON - 720, clock_skew_s=7200.0, certified_at=NOON - 600, problem_count=7)
    problems = [Problem(probe="gpus", kind=Problem.KIND_LOST, part="0000:53:00.0", detail=f"{n}") for n in range(7)]
    told = explain(facts, WORLD, NOON, SILENT_AFTER_S, problems=problem_lines(Problems(problems=problems)))
    assert told.because.startswith("silent for 12 min")
    assert list(told.evidence) == [
        "asked to enrol 2 h ago (10:00:00 UTC); it is in incarnation 1",
        "let in 10 min ago (11:50:00 UTC)",
        "its last certificate was issued 10 min ago (11:50:00 UTC)",
        "last heard 12 min ago (11:48:00 UTC) from 10.0.0.7",
        "its last stream ended so: connection reset",
        "the provisioner runs since 11:00:00 UTC, in epoch 7",
        "its clock is 2 h ahead",
        "a machine counts as silent 1 min after its stream ended",
        "7 questions of its last snapshot had no answer",
        *(f"gpus 0000:53:00.0: lost: {number}" for number in range(5)),
        "and 2 more problems",
    ]
    assert "bedplate machine forget m-1" in told.advice


@pytest.mark.parametrize(
    ("facts", "advice"),
    [
        (NEW, "bedplate machine accept m-1"),
        (LET_IN, "systemctl status nodeagent"),
        (replace(OPEN, clock_skew_s=-90.0), "set its clock right"),
    ],
)
def test_each_phase_that_wants_a_person_says_what_to_do(facts: Facts, advice: str) -> None:
    assert advice in explain(facts, WORLD, NOON, SILENT_AFTER_S).advice


def test_a_machine_that_is_well_needs_no_advice() -> None:
    assert explain(OPEN, WORLD, NOON, SILENT_AFTER_S).advice == ""
