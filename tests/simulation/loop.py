"""The product's own coroutines in virtual time: an event loop whose clock is the timeline's.

Rule 1: a loop is one life of a process. Once that is over nothing of it runs. Its coroutines are ended first, with
        doors that are shut already: Python would complain of those that are not.
Rule 2: nothing waits and nothing is in parallel: what the product has done in a thread is done at once.
"""

import asyncio
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from tests.simulation.broken import BrokenError
from tests.simulation.timeline import Timeline


class Loop(asyncio.AbstractEventLoop):
    """What futures, tasks and `asyncio.sleep` ask for, and no more."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self.over = False
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._ready = deque[asyncio.Handle]()

    def time(self) -> float:
        return self._timeline.now

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        self._timeline.at(self._timeline.now, self._next)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._timeline.now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._timeline.at(max(when, self._timeline.now), self._run, handle)
        return handle

    def _next(self) -> None:
        if self._ready:
            self._run(self._ready.popleft())

    def _run(self, handle: asyncio.Handle) -> None:
        if self.over or handle.cancelled():
            return
        events._set_running_loop(self)
        try:
            handle._run()
        finally:
            events._set_running_loop(None)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when its time comes."""

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> "asyncio.Task[Any]":
        task = asyncio.Task(coro, loop=self, name=name or "", context=context)
        self._tasks[task] = None
        task.add_done_callback(self._done)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        """Rule 2: by the time that somebody waits for it, it is done."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - whoever waits hears it
            done.set_exception(error)
        return done

    def _done(self, task: "asyncio.Task[Any]") -> None:
        del self._tasks[task]
        if not task.cancelled() and isinstance(error := task.exception(), BrokenError):
            raise error

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What a callback raises is as bad as an invariant that does not hold."""
        if not self.over and "handle" in context:
            raise context["exception"]

    def die(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        while self._ready:
            self._next()
        self.over = True
