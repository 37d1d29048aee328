"""Where events go: a webhook and a broker, as the far end of the network. What delivers to them is the product's.

Each is away for a while, slow, refuses, or has what it was sent while its answer is lost.
"""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from provisioner import bus
from provisioner.config import Mqtt
from provisioner.errors import BedplateError
from provisioner.outbox.feed import Feed
from provisioner.outbox.mqtt import MqttSink
from provisioner.store.rows import Event
from tests.simulation.outward import Outward
from tests.simulation.timeline import Timeline

REFUSES, FORGETS = 0.03, 0.03  # of what it is sent; of its answers


@dataclass(eq=False, slots=True)
class Hook:
    """One signed POST after the other."""

    timeline: Timeline
    outward: Outward
    kinds: tuple[str, ...] = ()
    name: str = "webhook/desk"
    from_oldest: bool = False
    away: bool = False

    def comes_back(self) -> None:
        self.away = False

    async def run(self, feed: Feed) -> None:
        await feed.deliver(self._post, self.wants)

    def wants(self, event: Event) -> bool:
        return not self.kinds or event.kind.startswith(self.kinds)

    async def _post(self, event: Event) -> None:
        timeline = self.timeline
        await asyncio.sleep(timeline.between(0.001, 0.3))
        if self.away or timeline.chance(REFUSES):
            raise BedplateError("cannot post: 503")
        self.outward.took(self.name, event.revision)
        await asyncio.sleep(timeline.between(0.0, 0.1))
        if timeline.chance(FORGETS):
            raise BedplateError("cannot post: timed out")


@dataclass(eq=False, slots=True)
class Broker:
    """Many under way at once, each answered in its turn."""

    timeline: Timeline
    outward: Outward
    name: str = "mqtt"
    from_oldest: bool = True
    away: bool = False

    def comes_back(self) -> None:
        self.away = False

    async def run(self, feed: Feed) -> None:
        await asyncio.sleep(self.timeline.between(0.001, 0.2))
        if self.away:
            raise BedplateError("cannot reach broker: Connection refused")
        nothing: Any = None
        line: Any = Line(self)
        await MqttSink(nothing, bus.Broker(Mqtt(host="broker"), "fleet"), "fleet", "1.0")._events(line, feed)

    def wants(self, _: Event) -> bool:
        return True


@dataclass(eq=False, slots=True)
class Line:
    """A connection: what is sent arrives in order, until it breaks."""

    broker: Broker
    arrives: float = 0.0
    broke: bool = False

    async def send(self, message: Any) -> "asyncio.Future[str]":
        timeline, answer = self.broker.timeline, asyncio.get_running_loop().create_future()
        self.arrives = max(self.arrives, timeline.now + timeline.between(0.001, 0.1))
        timeline.at(self.arrives, self._arrive, message, answer)
        return answer

    def _arrive(self, message: Any, answer: "asyncio.Future[str]") -> None:
        broker = self.broker
        self.broke = self.broke or broker.away or broker.timeline.chance(REFUSES)
        if not self.broke:
            broker.outward.took(broker.name, int(json.loads(message.payload)["id"].partition("-")[0]))
            self.broke = broker.timeline.chance(FORGETS)
        if not answer.done():
            answer.set_result("its connection broke" if self.broke else "")

    async def confirmed(self, message: Any, answer: "asyncio.Future[str]") -> None:
        if because := await answer:
            raise BedplateError(f"broker has no answer for {message.topic}: {because}")
