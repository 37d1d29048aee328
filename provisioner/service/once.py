"""Each write once: the same request id of the same caller gets the first answer again, for a day.

Rule 1: effect, answer and the entry in the audit are one transaction: there is no moment at which one is there without
        the others. No method says what it leaves in the audit, so none can forget it.
Rule 2: equal requests that come at once are one piece of work with several readers; nobody else waits for it.
Rule 3: a caller that hangs up takes nothing back, and keeps nobody from what follows: whoever is to go by it now goes.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import Message

from provisioner.access import Caller
from provisioner.audited import Write, audited
from provisioner.service.ledger import Ledger
from provisioner.service.refusals import invalid, other_request
from provisioner.turns import Turns
from provisioner.world import Answered, Change

R = TypeVar("R", bound=Message)
LONGEST = 64
Subject = Callable[[], str]  # what the write is about: one write at a time for each, and for each `turn`
Effect = Callable[[str], tuple[R, Sequence[Change]]]  # of the subject: the answer, and what makes it true
Sequel = Callable[[R], Awaitable[None]]  # what follows once it is written, also where it was long ago


@dataclass(frozen=True, slots=True)
class Ask:
    """One write, as it was asked for."""

    who: Caller
    method: str
    request_id: str
    sha256: bytes

    @property
    def key(self) -> tuple[str, str]:
        return (self.who.name, self.request_id)


def ask(who: Caller, method: str, request_id: str, request: Message) -> Ask:
    """RefusedError where the request id is missing or too long."""
    if not 0 < len(request_id) <= LONGEST:
        said = f"it has {len(request_id)} characters" if request_id else "it is missing"
        line = f"cannot {method}: request_id: {said}; choose one of 1 to {LONGEST} characters, once per intent"
        raise invalid("request_id", line, "REQUEST_ID")
    return Ask(who, method, request_id, hashlib.sha256(request.SerializeToString(deterministic=True)).digest())


@dataclass(slots=True)
class _Work:
    ask: Ask
    task: "asyncio.Task[bytes]"


@dataclass(slots=True)
class Once:
    ledger: Ledger
    _under_way: dict[tuple[str, str], _Work] = field(default_factory=dict)
    _turns: Turns = field(default_factory=Turns)

    async def answer(  # noqa: PLR0913 - what of whom, and around it
        self,
        asked: Ask,
        kind: type[R],
        subject: Subject,
        effect: Effect[R],
        *,
        turn: str = "",
        sequel: Sequel[R] | None = None,
    ) -> R:
        """The effect reads the world when it is its subject's turn, and comes to be at most once. Where it looks at
        other subjects too, it waits for the others of its `turn`. `sequel` is over before anybody is answered.
        """
        work = self._under_way.get(asked.key)
        if work is None:
            task = asyncio.create_task(
                self._followed(self._answered(asked, subject, effect, turn), kind, sequel),
                name=f"{asked.method} {asked.request_id}",
            )
            work = self._under_way[asked.key] = _Work(asked, task)
            task.add_done_callback(lambda done: self._done(asked, done))
        elif (work.ask.method, work.ask.sha256) != (asked.method, asked.sha256):
            raise other_request(asked.request_id, work.ask.method)
        return kind.FromString(await asyncio.shield(work.task))

    def _done(self, asked: Ask, task: "asyncio.Task[bytes]") -> None:
        del self._under_way[asked.key]
        if not task.cancelled():
            task.exception()  # whoever asked may be gone

    @staticmethod
    async def _followed(answered: Awaitable[bytes], kind: type[R], sequel: Sequel[R] | None) -> bytes:
        response = await answered
        if sequel is not None:
            await sequel(kind.FromString(response))
        return response

    async def _answered(self, asked: Ask, subject: Subject, effect: Effect[R], turn: str) -> bytes:
        before = await self.ledger.read(self.ledger.store.answered, *asked.key)
        if before is not None:
            if (before.method, before.request_sha256) != (asked.method, asked.sha256):
                raise other_request(asked.request_id, before.method)
            return before.response
        about = subject()
        async with AsyncExitStack() as held:
            for key in filter(None, (turn, about)):
                await held.enter_async_context(self._turns.of(key))
            message, changes = effect(about)
            response = message.SerializeToString(deterministic=True)
            now, silent_after_s = self.ledger.now(), self.ledger.settings.silent_after_s
            kept = Answered(asked.who.name, asked.request_id, asked.method, asked.sha256, response, now)
            write = Write(asked.who.name, asked.who.role, asked.method, asked.request_id, about)
            entry = audited(write, self.ledger.world, changes, now, silent_after_s)
            await self.ledger.write([*changes, kept, entry])
        return response
