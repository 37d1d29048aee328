"""A broker that is away for an hour, in virtual time: how often it is tried, how soon all is there, and that all is."""

import json
import logging
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from provisioner import cloudevents, retained
from provisioner.mqtt5 import CONNECT_S
from provisioner.outbox.feed import BATCH
from tests.simulation.hour import OLD, SOURCE, WHERE, Hour

TOPICS = retained.Topics("bedplate")
SEEDS = range(4)  # `Hour` says what a number stands for
A_MINUTE_S = 60.0  # as docs/events.md has it: between two tries at most


@pytest.fixture(params=SEEDS)
def hour(request: pytest.FixtureRequest, memory: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Hour]:
    caplog.set_level(logging.INFO, "provisioner")
    made = Hour(request.param, memory / "bedplate.db")
    try:
        made.passes()
        assert made.back_at - made.gone_at > 3600
        yield made
    finally:
        made.end()


@pytest.mark.slow
def test_after_an_hour_all_is_there_within_a_minute_and_a_try_and_nothing_was_dropped(
    hour: Hour, caplog: pytest.LogCaptureFixture
) -> None:
    _all_events_came(hour)
    _it_was_tried_all_the_time_and_seldom(hour)
    _it_came_back_soon(hour)
    _what_is_retained_is_so(hour)
    assert hour.far.most_under_way <= BATCH
    assert max(count for _, count in hour.life.fleet.reads) <= BATCH
    assert _said(caplog) == [
        f"mqtt: lost broker {WHERE}: the connection broke; events wait for it, and it is tried again",
        *[f"mqtt: cannot reach broker {WHERE}: {_why(hour)}; events wait for it, and it is tried again"] * hour.lives,
        "mqtt: events go out again",
    ]


def _all_events_came(hour: Hour) -> None:
    """At least once, for the first time in order, the same bytes each time; what was old was dropped."""
    store, told = hour.life.store, dict[str, bytes]()
    for _, payload in hour.far.came:
        assert told.setdefault(json.loads(payload)["id"], payload) == payload
    kept = store.events(after=0, limit=100_000)
    assert list(told.values())[OLD:] == [cloudevents.encoded(event, SOURCE) for event in kept]
    assert store.oldest_event_revision() == OLD + 1
    assert [(sink.lost, sink.revision) for sink in store.sinks()] == [(0, kept[-1].revision)]
    assert sum(hour.gone_at < event.at < hour.back_at for event in kept) > 4 * BATCH


def _it_was_tried_all_the_time_and_seldom(hour: Hour) -> None:
    tries = [at for at in hour.far.tries if hour.gone_at <= at < hour.back_at]
    most = hour.lives * 8 + (hour.back_at - hour.gone_at) / (A_MINUTE_S / 2)
    assert len(tries) <= most
    between = [later - sooner for sooner, later in pairwise(tries)]
    assert min(between) >= 0.25
    assert max(between) <= A_MINUTE_S + CONNECT_S + (30.0 if hour.lives > 1 else 0.0)


def _it_came_back_soon(hour: Hour) -> None:
    """At the next try, which is a minute from the last one at most; then all that waits, a batch after the other."""
    back = next(at for at in hour.far.connected_at if at >= hour.back_at)
    assert back - hour.back_at <= A_MINUTE_S + CONNECT_S
    waited = [at for at, payload in hour.far.came if at >= hour.back_at and _at(hour, payload) < hour.back_at]
    assert waited[0] - back < 1.0
    assert waited[-1] - back < len(waited) / BATCH


def _at(hour: Hour, payload: bytes) -> float:
    return int(json.loads(payload)["id"].partition("-")[2]) / 1e6


def _what_is_retained_is_so(hour: Hour) -> None:
    world, ours = hour.life.fleet.world, hour.far.retained.pop(TOPICS.provisioner)
    assert (json.loads(ours)["state"], json.loads(ours)["epoch"]) == ("online", hour.lives)
    assert hour.far.retained == {TOPICS.machine(facts.id): retained.state(facts, world) for facts in world.known}
    assert len(world.machines) > len(world.known), "some were forgotten"
    phases = {json.loads(state)["phase"] for state in hour.far.retained.values()}
    assert phases <= {"pending", "accepted", "present", "silent"}


def _why(hour: Hour) -> str:
    return "no answer within 3 s" if hour.far.mute else "Connection refused"


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.getMessage() for record in caplog.get_records("setup") if record.levelno >= logging.INFO]
    return [line for line in lines if line.startswith("mqtt: ")]
