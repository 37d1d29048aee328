"""All sinks together: who gets events, from where on, and how far each is, durably.

Rule: places are written once a second at most, for all sinks in one transaction. What is not written when the power
      goes is delivered again, under the same id.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Sequence
from random import Random
from typing import Protocol

from provisioner.errors import BedplateError
from provisioner.logs import about
from provisioner.outbox.feed import Feed, Ledger, Standing
from provisioner.retries import pause_s

NOTE_EVERY_S = 1.0
LOG = logging.getLogger("provisioner")


class Sink(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def from_oldest(self) -> bool: ...

    async def run(self, feed: Feed) -> None:
        """Delivers for ever. BedplateError where it cannot now, with `retry_after_s` where the sink said when."""


class Outbox:
    """Made by `Outbox.opened`, from the event loop."""

    def __init__(self, ledger: Ledger, sinks: Sequence[Sink], places: dict[str, int], chance: Random) -> None:
        self._ledger = ledger
        self._chance = chance
        self._sinks = tuple(sinks)
        self._noted = dict(places)
        self._moved = asyncio.Event()
        self._feeds = {sink.name: Feed(ledger, sink.name, places[sink.name], self._moved.set) for sink in sinks}

    @classmethod
    async def opened(cls, ledger: Ledger, sinks: Sequence[Sink], chance: Random | None = None) -> "Outbox":
        """Where each sink was; one that is new in the configuration begins now, and one that is gone is forgotten."""
        new, gone = await ledger.read(ledger.store.keep_sinks, {sink.name: sink.from_oldest for sink in sinks})
        places = {sink.name: sink.revision for sink in await ledger.read(ledger.store.sinks)}
        for name in new:
            LOG.info("%s is new: it gets the events after revision %d", name, places[name], extra=about(sink=name))
        for name in gone:
            line = "%s is not configured any more: what it has not had is not kept for it"
            LOG.info(line, name, extra=about(sink=name))
        return cls(ledger, sinks, places, chance or Random())  # noqa: S311 - no secret

    def works(self) -> list[tuple[str, Coroutine[None, None, None]]]:
        """What has to run for as long as the provisioner does, by name."""
        if not self._sinks:
            return []
        delivering = [(f"delivery to {sink.name}", self.keep_delivering(sink)) for sink in self._sinks]
        return [*delivering, ("noting of deliveries", self.keep_noting())]

    async def keep_delivering(self, sink: Sink) -> None:
        """Runs for ever, a task for each sink: whatever goes wrong with one is tried again."""
        feed = self._feeds[sink.name]
        while True:
            asked_s = None
            try:
                await sink.run(feed)
            except BedplateError as error:
                feed.failed(str(error), getattr(error, "gist", ""))
                asked_s = getattr(error, "retry_after_s", None)
            except Exception as error:  # no sink ends the provisioner
                if repr(error) != feed.trouble:
                    LOG.exception("%s broke", sink.name, extra=about(sink=sink.name))
                feed.failed(repr(error))
            await asyncio.sleep(pause_s(max(feed.failures, 1), self._chance.random(), asked_s))

    async def keep_noting(self) -> None:
        """Runs for ever: writes down how far the sinks are."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            if not await self.note():
                self._moved.set()
            await asyncio.sleep(NOTE_EVERY_S)

    async def note(self) -> bool:
        """False where the store does not take it now; the writer has said so."""
        places = {name: feed.place for name, feed in self._feeds.items() if feed.place > self._noted[name]}
        if not places:
            return True
        with contextlib.suppress(BedplateError):
            await self._ledger.read(self._ledger.store.delivered, places)
            self._noted.update(places)
            return True
        return False

    def standing(self) -> list[Standing]:
        """Reads the store: in a thread."""
        if not self._feeds:
            return []
        lost: dict[str, int] = {}
        with contextlib.suppress(BedplateError):  # each says so for itself
            lost = {sink.name: sink.lost for sink in self._ledger.store.sinks()}
        return [feed.standing(lost.get(feed.name, 0)) for feed in self._feeds.values()]
