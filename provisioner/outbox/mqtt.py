"""The broker as a sink: events in order, each machine's state retained, and the provisioner's own, with a last will.

Rule 1: an event counts once the broker has answered for it. One that is refused holds up the events behind it.
Rule 2: retained states are state: only what changed is published, and after each connection all of them once.
Rule 3: states that are refused hold up no event.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from itertools import islice
from typing import Any, Protocol

from provisioner import cloudevents, retained
from provisioner.bus import BusError, Line, Message
from provisioner.config import Mqtt
from provisioner.logs import about
from provisioner.outbox.feed import Feed, Ledger

STATE_TYPE = "application/json"
AT_ONCE = 50  # states under way at a time: events find their way between them
GATHER_S = 0.1  # changes of machines that come together are looked at together
FAREWELL_S = 0.5
LOG = logging.getLogger("provisioner")


class Door(Protocol):
    """To the broker."""

    @property
    def settings(self) -> Mqtt: ...
    def connected(self, will: Message, /) -> AbstractAsyncContextManager[Line]: ...


class MqttSink:
    """`source` is the fleet's, in each event."""

    name = "mqtt"

    def __init__(self, ledger: Ledger, broker: Door, source: str, version: str) -> None:
        self.from_oldest = broker.settings.from_oldest
        self._ledger = ledger
        self._broker = broker
        self._topics = retained.Topics(broker.settings.topic)
        self._source = source
        self._version = version
        self._trouble = ""  # of states

    async def run(self, feed: Feed) -> None:
        """Until the connection is lost or the broker refuses an event: BedplateError."""
        async with self._broker.connected(self._ours("offline")) as line:
            try:
                await line.publish(self._ours("online"))
                await _first(line.lost(), self._events(line, feed), self._states(line))
            except asyncio.CancelledError:  # the provisioner stops: a clean end does not call up the last will
                with contextlib.suppress(BusError, TimeoutError):
                    async with asyncio.timeout(FAREWELL_S):
                        await line.publish(self._ours("offline"))
                raise

    async def _events(self, line: Line, feed: Feed) -> None:
        while True:
            under_way = []
            for event in await feed.next():
                topic = self._topics.event(event.kind, event.machine_id)
                message = Message(topic, cloudevents.encoded(event, self._source), cloudevents.CONTENT_TYPE)
                under_way.append((event.revision, message, await line.send(message)))
            for revision, message, answer in under_way:
                await line.confirmed(message, answer)
                feed.confirm(revision)

    async def _states(self, line: Line) -> None:
        published: dict[str, bytes] = {}
        place, ledger = 0, self._ledger
        while True:
            world = ledger.world
            differing = retained.due(world, published, place)
            while chunk := list(islice(differing, AT_ONCE)):
                self._say(*await self._publish(line, chunk))
                published.update(chunk)
            place = max(place, world.machines_revision)
            while ledger.world.machines_revision <= place:
                await ledger.wait_past(ledger.world.revision)
            await asyncio.sleep(GATHER_S)

    async def _publish(self, line: Line, states: list[tuple[str, bytes]]) -> tuple[str, str]:
        """Why the broker refused one of them, and of which machine, if it did."""
        refused, of, under_way = "", "", []
        for machine_id, payload in states:
            message = Message(self._topics.machine(machine_id), payload, STATE_TYPE, retain=True)
            under_way.append((machine_id, message, await line.send(message)))
        for machine_id, message, answer in under_way:
            if because := await line.answered(answer):
                refused, of = f"the broker refuses {message.topic}: {because}", machine_id
        return refused, of

    def _say(self, refused: str, of: str) -> None:
        if refused and not self._trouble:
            line = "mqtt: %s; the states of machines are not current there"
            LOG.warning(line, refused, extra=about(of, sink=self.name))
        self._trouble = refused

    def _ours(self, word: str) -> Message:
        state = retained.provisioner_state(word, self._ledger.world.epoch, self._version, self._source)
        return Message(self._topics.provisioner, state, STATE_TYPE, retain=True)


async def _first(*works: Coroutine[Any, Any, None]) -> None:
    """The first that ends, or breaks, ends all of them."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # one that broke as well has nothing more to say
