"""The calls that stand: a stream lives long, and whoever is to go by now goes now.

Rule 1: a call is judged when it begins, and again whenever `judge` is called, by the same words.
Rule 2: only streams are in the list. A call with one answer is over before anybody could end it, and what it has begun
        to write is written.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

Verdict = Callable[[], Exception | None]  # why this call may not go on; None where it may
CutOff = Callable[[str, str], Awaitable[None]]  # machine id, sentence: its stream of a life that is over ends now


async def nothing_to_cut(_: str, __: str) -> None:
    """Where no streams are served."""


@dataclass(slots=True)
class Calls:
    _verdicts: dict["asyncio.Task[None]", Verdict] = field(default_factory=dict)
    _ended: dict["asyncio.Task[None]", Exception] = field(default_factory=dict)

    def standing(self, verdict: Verdict) -> "_Standing":
        """For as long as the block runs; one that is ended gets the verdict raised in it."""
        return _Standing(self, verdict)

    def begin(self, task: "asyncio.Task[None]", verdict: Verdict) -> None:
        self._verdicts[task] = verdict

    def over(self, task: "asyncio.Task[None]") -> Exception | None:
        """Why it was ended, if it was."""
        self._verdicts.pop(task, None)
        return self._ended.pop(task, None)

    def judge(self) -> int:
        """End those that may not go on. How many."""
        ended = 0
        for task, verdict in list(self._verdicts.items()):
            if task not in self._ended and (because := verdict()):
                self._ended[task] = because
                task.cancel()
                ended += 1
        return ended


@dataclass(slots=True)
class _Standing:
    """A generator would be shorter; there is one for each stream, and this takes a third of the memory."""

    calls: Calls
    verdict: Verdict
    task: "asyncio.Task[None] | None" = None

    def __enter__(self) -> None:
        self.task = asyncio.current_task()
        if self.task is None:
            raise RuntimeError("a call runs in a task")
        self.calls.begin(self.task, self.verdict)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self.task and (because := self.calls.over(self.task)) and isinstance(error, asyncio.CancelledError):
            self.task.uncancel()
            raise because from None
