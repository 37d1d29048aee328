"""The machines of one process.

Rule: who they are and what befalls them depends on their numbers alone, never on who else is in the process.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path

from bedplate.v1.snapshot_pb2 import Snapshot
from nodeagent.errors import BedplateError
from nodeagent.schedule import HOUR_S, Fault, course
from nodeagent.simulate.box import Box
from nodeagent.simulate.cable import Cable
from nodeagent.simulate.faults import CABLE, PLAYS
from nodeagent.simulate.machine import Machine, Place
from nodeagent.simulate.options import Options
from nodeagent.simulate.told import Ended, Happened, Status, Told

STOP_S = 4.0
LOOK_S = 0.2
AT_ONCE = 8  # enrolments
UNDER_WAY = 32  # machines on their way to a stream
PATIENCE_S = 5.0

Tell = Callable[[Told], None]


class Rack:
    """A machine's place: the machine that stands there now, and what befalls it."""

    def __init__(self, number: int, crowd: "Crowd", machine: Machine) -> None:
        self.number = number
        self.machine = machine
        self._crowd = crowd
        self._generation = 1

    @property
    def name(self) -> str:
        return self._crowd.options.name(self.number)

    def another(self, suffix: str) -> Machine:
        return self._crowd.machine(self.number, f"-{suffix}", cable=False)

    def take_away(self) -> None:
        self._generation += 1
        self.machine = self._crowd.machine(self.number, f"-{self._generation}")

    def say(self, fault: Fault, sentence: str) -> None:
        self._crowd.tell(Happened(fault.at_s, self.name, fault.kind, fault.for_s, sentence))

    async def until(self, at_s: float) -> None:
        await self._crowd.until(at_s)

    async def suffer(self) -> None:
        """All that the schedule has for it."""
        options = self._crowd.options
        for fault in course(options.seed, self.number, options.rates):
            await self.until(fault.at_s)
            await PLAYS[fault.kind](self, fault)


class Crowd:
    def __init__(self, options: Options, models: Mapping[str, Snapshot], token: str, tell: Tell) -> None:
        self.options = options
        self.tell = tell
        self.begin = asyncio.Event()  # the schedule
        self.racks: list[Rack] = []
        self._models = list(models.values())
        self._token = token
        self._enrolling = asyncio.Semaphore(AT_ONCE)
        self._scratch = Path()
        self._stop = asyncio.Event()
        self._why = ""
        self._began_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._flaw: BaseException | None = None

    async def run(self) -> None:
        """Until it is told to end. BedplateError where it cannot go on."""
        with tempfile.TemporaryDirectory(prefix="bp") as scratch:
            self._scratch = Path(scratch)
            self._born(self._fill(), "fill")
            self._born(self._play(), "schedule")
            await self._look()
            await self._goodbye(f"the simulation is stopping: {self._why}")
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._flaw:
            raise self._flaw

    def end(self, why: str) -> None:
        self._why = self._why or why
        self._stop.set()

    def machine(self, number: int, suffix: str = "", *, cable: bool = True) -> Machine:
        """Not powered on. `suffix`: it is not the first with that number."""
        options = self.options
        name = f"{options.name(number)}{suffix}"
        box = Box(name, self._models[(number - 1) % len(self._models)], f"{options.seed}/{number}{suffix}")
        place = Place(lambda: self._token, self._enrolling, options.tick_s, self._born)
        reachable = cable and not CABLE.isdisjoint(options.rates)
        return Machine(box, options.state / name, place, Cable(self._scratch / name) if reachable else None)

    async def until(self, at_s: float) -> None:
        """That second of the schedule, whose hours may be shorter than ours."""
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(self._began_at + at_s * self.options.hour_s / HOUR_S - now)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _born(self, work: Coroutine[None, None, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (flaw := task.exception()) is not None:
            self._flaw = self._flaw or flaw
            self.end(f"the task {task.get_name()} died")

    async def _fill(self) -> None:
        """A disguise takes milliseconds: those that are there already go on meanwhile."""
        numbers = self.options.numbers
        for place, number in enumerate(numbers):
            rack = Rack(number, self, self.machine(number))
            if rack.machine.door.identity is None and not self._token:
                advice = "give a join token: bedplate token create --uses 0"
                raise BedplateError(f"cannot simulate {rack.name}: it has no certificate yet; {advice}")
            self.racks.append(rack)
            rack.machine.power_on(self.options.tick_s * place / len(numbers))
            await asyncio.sleep(0)
            if place % UNDER_WAY == 0:
                await self._breathe(place)

    async def _breathe(self, count: int) -> None:
        """Those that were powered on get to speak, before more of them want to: but a while is enough."""
        until = asyncio.get_running_loop().time() + PATIENCE_S
        while asyncio.get_running_loop().time() < until:
            if count - sum(rack.machine.tried for rack in self.racks) < UNDER_WAY:
                return
            await asyncio.sleep(LOOK_S / 4)

    async def _play(self) -> None:
        await self.begin.wait()
        self._began_at = asyncio.get_running_loop().time()
        if self.options.rates:
            for rack in self.racks:
                self._born(rack.suffer(), f"what befalls {rack.name}")

    async def _look(self) -> None:
        """Until it is to end: tell how many are where, when that changes."""
        told = Status()
        while not self._stop.is_set():
            status = self._status()
            if status != told:
                told = status
                self.tell(status)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(LOOK_S, len(self.racks) / 5000)):
                    await self._stop.wait()

    def _status(self) -> Status:
        machines = [rack.machine for rack in self.racks]
        why = next((f"{machine.name}: {machine.why}" for machine in machines if machine.why), "")
        return Status(
            machines=len(self.options.numbers),
            enrolled=sum(machine.door.identity is not None for machine in machines),
            connected=sum(machine.connected for machine in machines),
            settled=sum(machine.settled for machine in machines),
            tried=sum(machine.tried for machine in machines),
            why=why,
        )

    async def _goodbye(self, because: str) -> None:
        streams = [rack.machine for rack in self.racks if rack.machine.connected]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S * self.options.crowding):
                await asyncio.gather(*(machine.uplink.stop(because) for machine in streams))
        self.tell(Ended(len(streams)))
