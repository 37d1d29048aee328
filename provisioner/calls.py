"""The calls that stand: a stream lives long, and whoever is to go by now goes now.

Rule 1: a call is judged when it begins, and again whenever `judge` is called, by the same words.
Rule 2: only streams are in the list. A call with one answer is over before anybody could end it, and what it has begun
        to write is written.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Verdict = Callable[[], Exception | None]  # why this call may not go on; None where it may
CutOff = Callable[[str, str], Awaitable[None]]  # machine id, sentence: its stream of a life that is over ends now


async def nothing_to_cut(_: str, __: str) -> None:
    """Where no streams are served."""


@dataclass(slots=True)
class Calls:
    _verdicts: dict["asyncio.Task[None]", Verdict] = field(default_factory=dict)
    _ended: dict["asyncio.Task[None]", Exception] = field(default_factory=dict)

    @contextmanager
    def standing(self, verdict: Verdict) -> Iterator[None]:
        """For as long as the block runs; one that is ended gets the verdict raised in it."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call runs in a task")
        self._verdicts[task] = verdict
        try:
            yield
        except asyncio.CancelledError:
            if because := self._ended.get(task):
                task.uncancel()
                raise because from None
            raise
        finally:
            self._verdicts.pop(task, None)
            self._ended.pop(task, None)

    def judge(self) -> int:
        """End those that may not go on. How many."""
        ended = 0
        for task, verdict in list(self._verdicts.items()):
            if task not in self._ended and (because := verdict()):
                self._ended[task] = because
                task.cancel()
                ended += 1
        return ended
