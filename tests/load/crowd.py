"""The generator's process: machines that connect, report at a pace, or send all that they have.

    python -m tests.load.crowd FOLDER     answers the verbs at the end of this file; FOLDER holds their certificates

Rule: a pace is a clock's, not an answer's: what the other end does not take in time is counted, never waited for.
"""

import asyncio
import gc
import sys
import time
from collections.abc import Iterator
from itertools import count, cycle
from pathlib import Path

from nodeagent.session import WINDOW
from tests.load import dials
from tests.load.machine import Machine
from tests.load.talk import Answer, answering

AT_ONCE = 50  # handshakes
STEP_S = 0.002
PING_EVERY_S = 20.0  # as an agent does


class Crowd:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._dials = dials.dials()
        self._machines: list[Machine] = []
        self._serials = count(1_000_000)
        self._pinging: asyncio.Task[None] | None = None

    async def connect(self, port: int, machines: int) -> Answer:
        """So many more, each past its welcome."""
        begin, gate = time.perf_counter(), asyncio.Semaphore(AT_ONCE)
        first = len(self._machines)
        new = [Machine(n, self._folder / f"{n}.pem", self._dials) for n in range(first, first + machines)]

        async def meet(machine: Machine) -> None:
            async with gate:
                await machine.meet(port)

        await asyncio.gather(*(meet(machine) for machine in new))
        self._machines += new
        self._pinging = self._pinging or asyncio.create_task(self._ping(), name="ping")
        gc.collect()
        gc.freeze()
        return {"seconds": time.perf_counter() - begin}

    async def hang_up(self) -> Answer:
        """All of them, without a word."""
        for machine in self._machines:
            machine.hang_up()
        self._machines.clear()
        return {}

    async def pace(self, per_s: float, seconds: float, problems_per_s: float = 0.0) -> Answer:
        """Small deltas, spread evenly over time and machines. What is late is left out: a burst is no pace.

        Beside them problems, each of another machine; when each was told.
        """
        sent, held, told = 0, 0, dict[int, float]()
        begin = last = time.perf_counter()
        due, turn = 0.0, cycle(self._machines)
        while last - begin < seconds:
            await asyncio.sleep(STEP_S)
            before, last = last, time.perf_counter()
            due = min(due + (last - before) * per_s, 1 + 3 * STEP_S * per_s)
            for machine in _some(turn, int(due)):
                due -= 1
                if machine.wire.held_up:
                    held += 1
                else:
                    machine.small()
                    sent += 1
            if len(told) < min((last - begin) * problems_per_s, len(self._machines)):
                machine = self._machines[len(told)]
                told[machine.number] = time.time()
                machine.delta(dials.problem("mlx5_0/1"))
        return {"sent": sent, "held": held, "per_s": sent / (last - begin), "problems": told}

    async def settle(self, limit_s: float) -> Answer:
        """Until all that was sent is acknowledged; how much is not."""
        begin = time.perf_counter()
        while (missing := self._missing()) and time.perf_counter() - begin < limit_s:
            await asyncio.sleep(0.05)
        return {"missing": missing, "lost": sum(machine.lost for machine in self._machines)}

    def _missing(self) -> int:
        return sum(machine.sequence - machine.acknowledged for machine in self._machines)

    async def snapshots(self, seconds: float) -> Answer:
        """As many full snapshots as are taken: an inventory that nobody has, and all vitals."""
        begin = time.perf_counter()
        before = sum(machine.bodies for machine in self._machines)
        async with asyncio.TaskGroup() as tasks:
            for machine in self._machines:
                tasks.create_task(self._snapshots(machine, begin + seconds))
        sent = sum(machine.bodies for machine in self._machines) - before
        return {"sent": sent, "seconds": time.perf_counter() - begin}

    async def _snapshots(self, machine: Machine, until: float) -> None:
        while time.perf_counter() < until:
            bodies = machine.bodies
            machine.snapshot(next(self._serials))
            while machine.bodies == bodies or machine.sequence - machine.acknowledged >= WINDOW:
                await asyncio.sleep(STEP_S)

    async def unary(self, port: int, machines: int, seconds: float) -> Answer:
        """As many unary calls with the bytes of a full snapshot as are taken."""
        callers = [Machine(n, self._folder / f"{n}.pem", self._dials) for n in range(machines)]
        for caller in callers:
            await caller.dial(port)
        body = self._dials.inventory + self._dials.whole
        request = b"\x0a" + dials.varint(len(body)) + body  # RenewRequest.csr
        begin, sent = time.perf_counter(), 0
        open_ones: set[int] = set()

        def again(caller: Machine) -> None:
            nonlocal sent
            open_ones.discard(caller.number)
            if time.perf_counter() < begin + seconds:
                sent += 1
                open_ones.add(caller.number)
                caller.unary(request)

        for caller in callers:
            caller.answered = lambda caller=caller: again(caller)
            again(caller)
        while open_ones:
            await asyncio.sleep(STEP_S)
        for caller in callers:
            caller.hang_up()
        return {"sent": sent, "seconds": time.perf_counter() - begin, "bytes": len(request)}

    async def _ping(self) -> None:
        while True:
            machines = list(self._machines)
            for place, machine in enumerate(machines):
                machine.ping()
                if place % 50 == 49:
                    await asyncio.sleep(PING_EVERY_S * 50 / len(machines))
            await asyncio.sleep(PING_EVERY_S * (len(machines) % 50 or 1) / max(1, len(machines)))


def _some(turn: "cycle[Machine]", number: int) -> Iterator[Machine]:
    return (next(turn) for _ in range(number))


async def main(folder: Path) -> None:
    crowd = Crowd(folder)
    verbs = {name: getattr(crowd, name) for name in ("connect", "hang_up", "pace", "settle", "snapshots", "unary")}
    await answering(verbs)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
