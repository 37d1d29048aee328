"""Turns: so many at a time for each name, the others in the order in which they came."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Turns:
    """A name that nobody holds takes no room."""

    at_once: int = 1
    _held: dict[str, tuple[asyncio.Semaphore, int]] = field(default_factory=dict)

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        turn, users = self._held.get(name) or (asyncio.Semaphore(self.at_once), 0)
        self._held[name] = (turn, users + 1)
        try:
            async with turn:
                yield
        finally:
            turn, users = self._held.pop(name)
            if users > 1:
                self._held[name] = (turn, users - 1)
