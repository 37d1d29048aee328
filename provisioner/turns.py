"""Turns: so many at a time for each name, the others in the order in which they came."""

import asyncio
from dataclasses import dataclass, field


@dataclass(slots=True)
class Turns:
    """A name that nobody holds takes no room."""

    at_once: int = 1
    _held: dict[str, tuple[asyncio.Semaphore, int]] = field(default_factory=dict)

    def of(self, name: str) -> "Turn":
        return Turn(self, name)

    def enter(self, name: str) -> asyncio.Semaphore:
        turn, users = self._held.get(name) or (asyncio.Semaphore(self.at_once), 0)
        self._held[name] = (turn, users + 1)
        return turn

    def leave(self, name: str) -> asyncio.Semaphore:
        turn, users = self._held.pop(name)
        if users > 1:
            self._held[name] = (turn, users - 1)
        return turn


@dataclass(slots=True)
class Turn:
    """Taken for as long as its block runs. A generator would be shorter, and takes twice as long: each call has two."""

    turns: Turns
    name: str

    async def __aenter__(self) -> None:
        turn = self.turns.enter(self.name)
        try:
            await turn.acquire()
        except BaseException:
            self.turns.leave(self.name)
            raise

    async def __aexit__(self, *_: object) -> None:
        self.turns.leave(self.name).release()
