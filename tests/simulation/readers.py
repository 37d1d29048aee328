"""Tools that watch: each takes what comes in its own time, and resumes from the last revision that it got.

A `Pipe` stands for one stream of HTTP/2: a few messages are under way on it, and then the writer waits.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bedplate.v1 import fleet_pb2 as pb
from provisioner.access import RefusedError
from provisioner.service import reading, watching
from tests.simulation.broken import hold
from tests.simulation.outward import Outward
from tests.simulation.site import Site
from tests.simulation.timeline import Timeline

ROOM = 4
AGAIN_S = 1.0


@dataclass(eq=False, slots=True)
class Pipe:
    site: Site
    wake: Callable[[], None]
    under_way: deque[Any] = field(default_factory=deque)
    room: "asyncio.Future[None] | None" = None
    task: "asyncio.Task[None] | None" = None
    over: str | None = None  # once what is under way was read: why it ended
    revision: int | None = None  # to resume from, where it was said

    async def write(self, message: Any) -> None:
        self.under_way.append(message)
        self.wake()
        if len(self.under_way) > ROOM:
            self.room = asyncio.get_running_loop().create_future()
            await self.room

    def take(self) -> Any:
        message = self.under_way.popleft()
        if self.room and not self.room.done() and len(self.under_way) <= ROOM:
            self.room.set_result(None)
        return message

    def snap(self, kept: int) -> None:
        """It broke: so many of what is under way still arrive."""
        while len(self.under_way) > kept:
            self.under_way.pop()
        self.over, self.revision = "its stream broke", None
        if self.task and not self.site.loop.over:
            self.task.cancel()


@dataclass(eq=False, slots=True)
class Reader:
    timeline: Timeline
    outward: Outward
    find: Callable[[], Site | None]
    name: str
    model: dict[str, int] | None = None  # machines, by revision; None where it watches events
    place: int = 0
    stuck_until: float = 0.0
    turn: int = 0  # of reading: an older one that comes is none
    pipe: Pipe | None = None

    def __str__(self) -> str:
        return self.name

    def start(self) -> None:
        self._look_again(0.0)

    def _look_again(self, in_s: float) -> None:
        self.turn += 1
        self.timeline.after(in_s, self._read, self.turn)

    def cut(self) -> None:
        """The tool is killed, or its network is gone."""
        if self.pipe:
            self.pipe.snap(self.timeline.random.randrange(ROOM + 2))

    def _woken(self) -> None:
        """Something is under way."""
        if self.pipe and len(self.pipe.under_way) == 1 and self.timeline.now >= self.stuck_until:
            self._look_again(self.timeline.between(0.001, 0.1))

    def _read(self, turn: int) -> None:
        """Forever: one message, or none, and then a moment."""
        if turn != self.turn:
            return
        pipe, timeline = self.pipe, self.timeline
        pause_s = timeline.between(1.0, 10.0)
        if timeline.now < self.stuck_until:
            pause_s = self.stuck_until - timeline.now
        elif pipe is None:
            self._open()
        elif pipe.under_way:
            self._hear(pipe.take())
            pause_s = timeline.between(0.0, 0.1)
        elif pipe.over is not None:
            self._ended(pipe)
            pause_s = AGAIN_S
        elif not pipe.site.alive:
            self.cut()
            pause_s = 0.0
        self._look_again(pause_s)

    def _open(self) -> None:
        site = self.find()
        if site is not None:
            self.pipe = Pipe(site, self._woken)
            self.pipe.task = site.loop.create_task(self._serve(self.pipe))

    async def _serve(self, pipe: Pipe) -> None:
        if self.model is None:
            watch: Any = watching.events(pipe.site, pb.WatchEventsRequest(from_revision=self.place))
        else:
            watch = watching.machines(pipe.site, pb.WatchMachinesRequest(from_revision=self.place))
        try:
            await reading.read_by(pipe, watch, reading.PATIENCE_S)
        except RefusedError as refused:
            pipe.over = refused.reason
            if refused.reason == "READER_TOO_SLOW":
                pipe.revision = int(refused.facts["revision"])

    def _hear(self, message: Any) -> None:
        if self.model is None:
            self.place = message.event.revision
            self.outward.told(self, self.place)
            return
        before, self.place = self.place, message.revision
        if message.gone:
            self.model.pop(message.machine.machine_id, None)
        else:
            self.model[message.machine.machine_id] = message.machine.revision
        self.outward.shown(self, self.place, before, self.model)

    def _ended(self, pipe: Pipe) -> None:
        self.timeline.say(self, "at", self.place, "is ended:", pipe.over)
        behind = pipe.over == "OUT_OF_RANGE" and pipe.site.store.platter.world is pipe.site.world
        hold(not behind, self, "may not resume from", self.place)
        said = pipe.revision in {None, self.place}
        hold(said, self, "was told to resume from", pipe.revision, "and is at", self.place)
        self.pipe = None
