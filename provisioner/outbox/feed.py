"""One sink's place in the events, and how it fares.

Rule: a place is moved by what the sink has confirmed, in order. A log line is for a change, never for a repetition.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

from provisioner.errors import BedplateError
from provisioner.logs import about
from provisioner.store import Event, Store
from provisioner.world import World

P = ParamSpec("P")
T = TypeVar("T")

BATCH = 100  # events that are held for one sink at most
LOG = logging.getLogger("provisioner")


class Ledger(Protocol):
    """What the outbox needs of the fleet."""

    @property
    def world(self) -> World: ...
    @property
    def store(self) -> Store: ...

    def now(self) -> float: ...
    def read(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]: ...
    def wait_past(self, revision: int) -> Awaitable[None]: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """How a sink stands, for people."""

    name: str
    revision: int
    backlog: int
    lost: int
    working: bool
    because: str


class Feed:
    """Made by `Outbox`, one for each sink."""

    def __init__(self, ledger: Ledger, name: str, place: int, moved: Callable[[], None]) -> None:
        self.name = name
        self.place = place  # the sink has confirmed everything up to here
        self.trouble = ""  # why the last attempt failed, until one succeeds
        self.failures = 0  # in a row
        self.delivered = 0  # in this life of the provisioner
        self._gist = ""
        self._ledger = ledger
        self._moved = moved

    async def next(self) -> list[Event]:
        """The events that come next; waits until there are some. Whoever asks has nothing under way."""
        while True:
            newest = self._ledger.world.events_revision
            if self.place < newest and (found := await self._ledger.read(self._read, self.place)):
                return found
            self._works()
            while self._ledger.world.events_revision <= newest:
                await self._ledger.wait_past(self._ledger.world.revision)

    async def deliver(self, send: Callable[[Event], Awaitable[None]], wants: Callable[[Event], bool]) -> None:
        """One after the other, until `send` breaks: an event that is wanted counts once `send` has returned."""
        while True:
            for event in await self.next():
                if wants(event):
                    await send(event)
                    self.confirm(event.revision)
                else:
                    self.pass_over(event.revision)

    def confirm(self, revision: int) -> None:
        """The sink has had this event, and all before it."""
        self.place = max(self.place, revision)
        self.delivered += 1
        self._works()
        self._moved()

    def pass_over(self, revision: int) -> None:
        """Nothing up to here is for this sink."""
        self.place = max(self.place, revision)
        self._moved()

    def failed(self, because: str, gist: str = "") -> None:
        """`gist` is the part of the sentence that is the same where the trouble is."""
        self.failures += 1
        if (gist or because) != self._gist:
            line = "%s: %s; events wait for it, and it is tried again"
            LOG.warning(line, self.name, because, extra=about(sink=self.name))
        self.trouble, self._gist = because, gist or because

    def _works(self) -> None:
        self.failures = 0
        if self.trouble:
            self.trouble = self._gist = ""
            LOG.info("%s: events go out again", self.name, extra=about(sink=self.name))

    def _read(self, after: int) -> list[Event]:
        return self._ledger.store.events(after=after, limit=BATCH)

    def standing(self, lost: int) -> Standing:
        """Reads the store: in a thread."""
        try:
            return self._standing(lost)
        except BedplateError as error:
            return Standing(self.name, self.place, 0, lost, working=False, because=str(error))

    def _standing(self, lost: int) -> Standing:
        backlog = self._ledger.store.events_behind(self.place)
        waiting = f"{backlog} event{'s' if backlog != 1 else ''} {'wait' if backlog != 1 else 'waits'}"
        if self.trouble:
            because = f"{self.trouble}; {waiting}, and it is tried again"
        else:
            because = f"{waiting}" if backlog else "it has had everything"
        if lost:
            because += f"; {lost} events were dropped before it had them"
        return Standing(self.name, self.place, backlog, lost, not self.trouble, because)
