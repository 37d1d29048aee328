"""A broker that is away for an hour: nothing is lost, and what it retains is right again, whatever it has forgotten.

The hour passes by the provisioner's clock, minute by minute, with what happens in it at its time: events without end,
machines that come and go, and what is old is dropped. The outbox waits in real time between its tries, and so not for
long here: how it fares after an hour of failures is in `test_simulation_hour`, where no time is real.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from bedplate.v1 import fleet_pb2 as pb
from provisioner import cloudevents
from provisioner.config import Config
from provisioner.outbox import Outbox
from provisioner.serve import DAY_S, FIRST_PRUNE_S, PRUNE_EVERY_S, _policy
from provisioner.store import Event
from provisioner.world import Change, Forgotten, InventoryKept, Noted, Parted, VitalsKept
from tests.broker import KEEPS, Broker, Heard, Road, kept, listening, retained, road
from tests.outgoing import because_of, delivering, fleet, plain, settled, sinks, troubled
from tests.served import Served, asked, present

pytestmark = pytest.mark.slow

EVENTS, STATES = "bedplate/v1/events/#", "bedplate/v1/machines/+/state"
BEFORE, AWAY = 4, 62  # minutes by the clock: what is old is dropped in the 5th, and an hour later
OLD = 9  # events that were delivered long ago


@dataclass
class Hour:
    """A fleet whose clock goes from minute to minute; what happened in them."""

    here: Served
    events_a_minute: int
    minute: int = 0
    dropped: int = 0

    @property
    def now(self) -> float:
        return self.here.clock.now

    async def pass_by(self, minutes: int) -> None:
        for _ in range(minutes):
            self.minute += 1
            self.here.clock.now += 60.0
            await self.here.write(*(self._event(number) for number in range(self.events_a_minute)))
            if happening := HAPPENS.get(self.minute):
                await happening(self)
            await self.here.fleet.tick(_unsaid)
            if (self.minute * 60.0 - FIRST_PRUNE_S) % PRUNE_EVERY_S == 0:
                pruned = self.here.fleet.store.prune(self.now, _policy(Config()))
                assert pruned.lost == {}
                self.dropped += pruned.events

    def _event(self, number: int) -> Noted:
        because = f"event {number} of minute {self.minute}"
        return Noted("machine.changed", f"m-{number % 5 + 1:04}", "gpu", because, "x", self.now + number / 100)

    def events(self) -> list[Event]:
        """But for the old ones, which are gone."""
        return self.here.fleet.store.events(after=self.here.fleet.store.oldest_event_revision() - 1, limit=10_000)


async def _unsaid(_: str) -> None:
    """What the tick says is no affair of a broker's."""


async def _falls_silent(hour: Hour) -> None:
    await hour.here.write(Parted("m-0002", "s-2", "no keepalive", hour.now))


async def _comes(hour: Hour) -> None:
    await hour.here.write(asked(6), Noted("machine.asked", "m-0006", "gpu-06", "asks", "machine m-0006", hour.now))


async def _is_forgotten(hour: Hour) -> None:
    await hour.here.stub().ForgetMachine(pb.ForgetMachineRequest(machine="m-0001", request_id="r-1"))


async def _has_a_problem(hour: Hour) -> None:
    appeared = Noted("machine.problem.appeared", "m-0003", "gpu-03", "rdma", "machine m-0003", hour.now)
    await hour.here.write(VitalsKept("m-0003", b"r" * 16, 1, b"", b"p", 1, hour.now), appeared)


async def _is_renamed(hour: Hour) -> None:
    kept = InventoryKept("m-0004", b"d" * 32, b"body", "renamed", "", "S4", 8, "H100", 12, "", "", hour.now)
    await hour.here.write(kept)


async def _comes_and_goes(hour: Hour) -> None:
    await hour.here.write(asked(7), Forgotten("m-0007", hour.now))


HAPPENS = {10: _falls_silent, 20: _is_forgotten, 30: _has_a_problem, 40: _is_renamed, 50: _comes, 55: _comes_and_goes}
MORE = 4  # events beside those without end: silent, forgotten, problem appeared, asked
WELL = {f"m-{number:04}": ("present", f"gpu-{number:02}", 0) for number in range(1, 6)}
STANDS = {
    "m-0002": ("silent", "gpu-02", 0),
    "m-0003": ("present", "gpu-03", 1),
    "m-0004": ("present", "renamed", 0),
    "m-0005": ("present", "gpu-05", 0),
    "m-0006": ("pending", "gpu-06", 0),
}


def _fleet() -> list[Change]:
    """Five machines that are there; events of long ago."""
    then = 1_800_000_000.0 - 91 * DAY_S
    old = [Noted("machine.changed", "m-0001", "gpu-01", f"long ago {number}", "x", then) for number in range(OLD)]
    return [change for number in range(1, 6) for change in present(number)] + old


@contextlib.asynccontextmanager
async def _listening(port: int) -> AsyncIterator["Listeners"]:
    """To events and to states, each by a session that the broker keeps for a day."""
    async with (
        listening(port, EVENTS, **kept("events")) as events,
        listening(port, STATES, **kept("states")) as states,
    ):
        yield Listeners(events, states)


@dataclass
class Listeners:
    events: Heard
    states: Heard

    async def until(self, last: Event, stands: dict[str, Any]) -> None:
        """They have had this event, and these states."""
        await self.events.until(lambda: because_of(self.events.last) == [last.because])
        await self.states.until(lambda: _latest(self.states) == stands)


def _latest(heard: Heard) -> dict[str, Any]:
    """How each machine stands, as one knows it who was told of each change."""
    told = {one.topic.value.split("/")[3]: bytes(one.payload) for one in heard.messages if one.topic.matches(STATES)}
    return {name: _standing(json.loads(payload)) for name, payload in told.items() if payload}


def _standing(state: dict[str, Any]) -> tuple[str, str, int]:
    return state["phase"], state["hostname"], state["problem_count"]


def _waits(outbox: Outbox, count: int) -> None:
    (standing,) = outbox.standing()
    assert (standing.backlog, standing.lost, standing.working) == (count, 0, False)
    assert standing.because.endswith(f"; {count} events wait, and it is tried again")


def _judge_states(stands: dict[str, Any]) -> None:
    """Of what is retained."""
    ours = stands.pop("bedplate/v1/provisioner/state")
    assert (ours["state"], ours["epoch"]) == ("online", 1)
    assert {topic.split("/")[3]: _standing(state) for topic, state in stands.items()} == STANDS
    assert stands["bedplate/v1/machines/m-0002/state"]["because"] == (
        "its stream ended at 2027-01-15T08:10:00Z (no keepalive); nothing heard since"
    )


def _judge_events(hour: Hour, *heard: Heard) -> None:
    """Each event at least once, each for the first time in order, the same bytes each time, at the time that it was."""
    store, told = hour.here.fleet.store, dict[str, bytes]()
    for payload in (payload for one in heard for payload in one.payloads(EVENTS)):
        assert told.setdefault(json.loads(payload)["id"], payload) == payload
    due, sent = hour.events(), list(told.values())[OLD:]
    assert sent == [cloudevents.encoded(event, cloudevents.source_of(store.fleet)) for event in due]
    times = [datetime.fromisoformat(json.loads(payload)["time"]).timestamp() for payload in sent]
    assert times == pytest.approx([event.at for event in due], abs=1e-6, rel=0)
    away = times[BEFORE * hour.events_a_minute :]
    assert len(away) == AWAY * hour.events_a_minute + MORE
    assert away[-1] - away[0] > 3600
    silent = next(json.loads(payload) for payload in sent if b'"machine.silent"' in payload)
    assert silent["time"] == "2027-01-15T08:11:00Z", "when it was: the first tick after a minute of patience"


async def _away(hour: Hour, broker: Broker, way: Road, *, forgets: bool) -> tuple[Heard, Heard]:
    """What was heard before and after it. Where the broker forgets all that it knew, those who listen begin anew, and
    do so before the provisioner is back.
    """
    mqtt = plain(way.port if forgets else broker.port)
    async with delivering(hour.here, sinks(hour.here, mqtt=mqtt)) as outbox:
        async with _listening(broker.port) as before:
            await hour.here.write(*_fleet())
            await hour.pass_by(BEFORE)
            await before.until(hour.events()[-1], WELL)
        await settled(outbox)
        assert await outbox.note(), "which a second does, and a minute is longer"
        way.open = False
        broker.stop()
        await hour.pass_by(AWAY)
        await troubled(outbox)
        _waits(outbox, AWAY * hour.events_a_minute + MORE)
        if forgets:
            (broker.folder / "mosquitto.db").unlink()
        broker.start()
        async with _listening(broker.port) as after:
            assert not forgets or await retained(broker.port) == {}
            way.open = True
            await after.until(hour.events()[-1], STANDS)
            await settled(outbox)
            _judge_states(await retained(broker.port))
    return before.events, after.events


@pytest.mark.parametrize(("forgets", "events_a_minute"), [(False, 81), (True, 9)])
def test_after_an_hour_without_a_broker_nothing_is_missing_and_each_state_is_as_it_is_now(
    tmp_path: Path, memory: Path, caplog: pytest.LogCaptureFixture, events_a_minute: int, *, forgets: bool
) -> None:
    """Five thousand events are more than any batch or queue holds."""

    async def main(broker: Broker) -> None:
        async with fleet(memory) as here, road(broker.port) as way:
            hour = Hour(here, events_a_minute)
            heard = await _away(hour, broker, way, forgets=forgets)
            assert hour.dropped == OLD
            _judge_events(hour, *heard)

    caplog.set_level(logging.INFO, "provisioner")
    with Broker(tmp_path, KEEPS.format(tmp_path)) as broker:
        asyncio.run(main(broker))
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("mqtt: ")]
    assert len(said) <= 3, said
    assert said[-1] == "mqtt: events go out again"
