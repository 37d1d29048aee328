"""An hour and more without a broker: one provisioner's writer, tick, dropping of what is old, outbox and sink.

Rule: the clock and the far end are made up, `bus.Broker` and what it leads to. All else is the product's, on a store in
a file. A seed decides what happens to the machines, when, and how long all that takes that is made up.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import aiomqtt

from provisioner.bus import BusError, Line, Message
from provisioner.config import Config, Mqtt
from provisioner.fleet import Fleet, Settings
from provisioner.mqtt5 import CONNECT_S, MOST_UNDER_WAY
from provisioner.outbox import Outbox
from provisioner.outbox.mqtt import MqttSink
from provisioner.serve import DAY_S, FIRST_PRUNE_S, PRUNE_EVERY_S, _policy, prune
from provisioner.store import Store
from provisioner.vigil import noteworthy
from provisioner.world import Accepted, Asked, Change, Facts, Forgotten, Met, Noted, Parted, VitalsKept
from tests.simulation.loop import Loop
from tests.simulation.timeline import START, Timeline

SOURCE, WHERE = "urn:bedplate:fleet:hour", "broker:8883"
OLD = 7  # events of long ago, which it has had
AFTERWARDS_S = 200.0
P = ParamSpec("P")
T = TypeVar("T")


class Far:
    """The broker: there, or away. Where it is `mute`, nobody is refused: nothing is heard."""

    settings = Mqtt(host="broker", from_oldest=True)

    def __init__(self, timeline: Timeline, *, mute: bool) -> None:
        self.timeline = timeline
        self.mute = mute
        self.away = False
        self.tries: list[float] = []
        self.connected_at: list[float] = []
        self.came: list[tuple[float, bytes]] = []  # events: when, and what
        self.retained: dict[str, bytes] = {}
        self.most_under_way = 0
        self._client: Client | None = None

    @contextlib.asynccontextmanager
    async def connected(self, will: Message) -> AsyncIterator[Line]:
        self.tries.append(self.timeline.now)
        await asyncio.sleep(CONNECT_S if self.away and self.mute else self.timeline.between(0.001, 0.2))
        if self.away:
            because = f"no answer within {CONNECT_S:g} s" if self.mute else "Connection refused"
            raise BusError(f"cannot reach broker {WHERE}: {because}")
        self.connected_at.append(self.timeline.now)
        client: Any = Client(self, will)
        self._client = client
        try:
            yield Line(client, WHERE)
        finally:
            self._client = None

    def goes(self, *, forgets: bool) -> None:
        """It is stopped, and calls up the last will; or it is killed, and keeps nothing."""
        self.away = True
        if self._client:
            self.retained[self._client.will.topic] = self._client.will.payload
            self._client.breaks()
        if forgets:
            self.retained.clear()

    def comes_back(self) -> None:
        self.away = False

    def takes(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if not retain:
            self.came.append((self.timeline.now, payload))
        elif payload:
            self.retained[topic] = payload
        else:
            self.retained.pop(topic, None)


class Client:
    """Stands in for `mqtt5.Client`: what is sent arrives in order, and is answered in order."""

    def __init__(self, far: Far, will: Message) -> None:
        self.will = will
        self.room = asyncio.Semaphore(MOST_UNDER_WAY)
        self.over: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self._far = far
        self._under_way = 0
        self._arrives = self._answered = 0.0

    def send(self, topic: str, payload: bytes, said: Any, *, retain: bool) -> "asyncio.Future[str]":
        timeline, answer = self._far.timeline, asyncio.get_running_loop().create_future()
        self._under_way += 1
        self._far.most_under_way = max(self._far.most_under_way, self._under_way)
        self._arrives = max(self._arrives, timeline.now + timeline.between(0.001, 0.05))
        timeline.at(self._arrives, self._arrive, topic, payload, retain, answer)
        return answer

    def breaks(self) -> None:
        if not self.over.done():
            self.over.set_result(aiomqtt.MqttError("Unspecified error"))

    def _arrive(self, topic: str, payload: bytes, retain: bool, answer: Any) -> None:  # noqa: FBT001 - as it is called
        if not self.over.done():
            timeline = self._far.timeline
            self._far.takes(topic, payload, retain=retain)
            self._answered = max(self._answered, timeline.now + timeline.between(0.001, 0.05))
            timeline.at(self._answered, self._answer, answer)

    def _answer(self, answer: Any) -> None:
        if not self.over.done():
            self._under_way -= 1
            self.room.release()
            answer.set_result("")


class Watched(Fleet):
    """Notes how many rows the outbox reads at once, and when."""

    reads: Sequence[tuple[float, int]] = ()

    async def read(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        found = await super().read(function, *args, **kwargs)
        self.reads = (*self.reads, (self.now(), len(found) if isinstance(found, list) else 0))
        return found


class Life:
    """Of the provisioner, with the settings that it is shipped with."""

    def __init__(self, timeline: Timeline, path: Path, far: Far) -> None:
        self.store = Store.open(path)
        self.store.begin_epoch()
        config = Config()
        settings = Settings(config, "1.2.3", b"")
        self.fleet = Watched(self.store, self.store.load(timeline.now), settings, lambda: timeline.now)
        self._loop, self._far = Loop(timeline), far
        for work in (
            self.fleet.keep_writing(),
            self.fleet.keep_ticking(_unsaid, lambda: None),
            prune(self.store, self.fleet.now, _policy(config)),
            self._deliver(timeline),
        ):
            self._loop.create_task(work)

    async def _deliver(self, timeline: Timeline) -> None:
        sink = MqttSink(self.fleet, self._far, SOURCE, "1.2.3")
        outbox = await Outbox.opened(self.fleet, [sink], timeline.random)
        for name, work in outbox.works():
            self._loop.create_task(work, name=name)

    def write(self, *changes: Change) -> None:
        self._loop.create_task(self.fleet.write(changes))

    def die(self) -> None:
        """As by kill -9: nothing is said to anybody, and nothing more is noted."""
        self._far.goes(forgets=False)
        self._loop.die()
        self.store.close()


@dataclass
class Hour:
    """`Hour(seed, path)`, then `passes()`: all of it. The seeds share out what may come together: in every third the
    broker is mute, in every second the provisioner is killed meanwhile, in two of four the broker forgets all it knew.
    """

    seed: int
    path: Path
    timeline: Timeline = field(init=False)
    far: Far = field(init=False)
    life: Life | None = field(init=False)
    gone_at: float = field(init=False)
    back_at: float = field(init=False)
    lives: int = 1
    machines: int = 0

    def __post_init__(self) -> None:
        timeline = self.timeline = Timeline(self.seed)
        self.far = Far(timeline, mute=self.seed % 3 == 0)
        self.life = Life(timeline, self.path, self.far)
        then = START - 91 * DAY_S
        self.life.write(*(Noted("token.created", "", "", f"long ago {number}", "x", then) for number in range(OLD)))
        for _ in range(5):
            self._comes(accepted=True)
        self.gone_at = START + timeline.between(60.0, 240.0)
        self.back_at = START + FIRST_PRUNE_S + PRUNE_EVERY_S + timeline.between(20.0, 300.0)

    def passes(self) -> None:
        timeline = self.timeline
        timeline.after(1.0, self._happens)
        timeline.run_until(self.gone_at)
        self.far.goes(forgets=self.seed % 4 < 2)
        if self.seed % 2:
            timeline.after(timeline.between(100.0, 3500.0), self._is_killed)
        timeline.run_until(self.back_at)
        self.far.comes_back()
        timeline.run_until(self.back_at + AFTERWARDS_S)

    def end(self) -> None:
        if self.life:
            self.life.die()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _is_killed(self) -> None:
        self.life.die()
        self.life = None
        self.timeline.after(self.timeline.between(0.0, 30.0), self._begins)

    def _begins(self) -> None:
        self.life = Life(self.timeline, self.path, self.far)
        self.lives += 1

    def _happens(self) -> None:
        """Something, and soon the next. In the last minute nothing: all that is to come has come by the end."""
        timeline = self.timeline
        if timeline.now < self.back_at + AFTERWARDS_S - 60.0:
            timeline.after(timeline.between(0.5, 12.0), self._happens)
        if self.life is None:
            return
        known = self.life.fleet.world.known
        weights = {self._changes: 12, self._parts: 2, self._meets: 4, self._has_problems: 4}
        (what,) = timeline.random.choices(list(weights), list(weights.values()))
        what(timeline.random.choice(known))
        if timeline.chance(0.05):
            self._comes(accepted=timeline.chance(0.5))
        if timeline.chance(0.04) and len(known) > 3:
            self._goes(timeline.random.choice(known))

    def _changes(self, facts: Facts) -> None:
        self.life.write(self._noted("machine.changed", facts.id))

    def _parts(self, facts: Facts) -> None:
        self.life.write(Parted(facts.id, facts.session, "its stream broke", self.timeline.now))

    def _meets(self, facts: Facts) -> None:
        fleet, now = self.life.fleet, self.timeline.now
        if facts.accepted_at is not None:
            boot = f"boot-{self.timeline.random.randrange(3)}"
            met = Met(facts.id, f"s-{now}", fleet.world.epoch, b"r" * 16, "1", boot, "10.0.0.7", 0.0, now)
            self.life.write(met, *fleet.damped(noteworthy(facts, [met])))

    def _has_problems(self, facts: Facts) -> None:
        count = self.timeline.random.randrange(4)
        kept = VitalsKept(facts.id, b"r" * 16, facts.sequence + 1, b"", b"p", count, self.timeline.now)
        if facts.session:
            self.life.write(kept, self._noted("machine.problem.appeared", facts.id))

    def _comes(self, *, accepted: bool) -> None:
        self.machines += 1
        name, now = f"m-{self.machines:04}", self.timeline.now
        key, review = self.machines.to_bytes(32, "big"), "" if accepted else "its token asks for review"
        asked = Asked(name, 1, key, b"", f"gpu-{self.machines}", "", "", "t-1", review, now)
        self.life.write(asked, *[Accepted(name, now)] * accepted, self._noted("machine.asked", name))

    def _goes(self, facts: Facts) -> None:
        self.life.write(Forgotten(facts.id, self.timeline.now), self._noted("machine.forgotten", facts.id))

    def _noted(self, kind: str, machine_id: str) -> Noted:
        return Noted(kind, machine_id, "gpu", f"at {self.timeline.now}", "x", self.timeline.now)


async def _unsaid(_: str) -> None:
    """What the tick says is no affair of a broker's."""
