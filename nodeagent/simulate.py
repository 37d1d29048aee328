"""`nodeagent simulate`: many agents in one process, over the real protocol and the real mTLS.

Rule 1: only the machine is made up. Session, uplink, enrolment and the plan for the certificate are the agent's own.
Rule 2: machines are captured ones in disguise. The seed decides who they are and how their dials move; the state folder
        keeps their keys, so that a second start is the same machines again.
Rule 3: it ends within 5 s of SIGINT or SIGTERM, and says goodbye on each stream.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from random import Random

from bedplate.v1.snapshot_pb2 import Snapshot
from nodeagent import config, credentials, shipped
from nodeagent.course import Course
from nodeagent.credentials import Want
from nodeagent.decision import Todo, Wait
from nodeagent.errors import BedplateError
from nodeagent.host import replayed
from nodeagent.insider import Insider
from nodeagent.lock import alone
from nodeagent.meeting import decode
from nodeagent.observe import digest, scan
from nodeagent.scrub import disguise
from nodeagent.session import Session, State
from nodeagent.standin import stand_in
from nodeagent.uplink import Uplink

STOP_S = 4.0
LOOK_S = 0.2
SAY_S = 2.0
AT_ONCE = 8  # enrolments: making keys takes processor time
MAX_MACHINES = 10_000


class Machine:
    """One simulated machine: its dials, its certificate and its stream."""

    def __init__(self, folder: Path, snapshot: Snapshot, seed: str, token: Callable[[], str]) -> None:
        self.name = snapshot.inventory.identity.hostname
        random = Random(seed)  # noqa: S311 - a simulation
        session = Session(random.randbytes(8) + time.time_ns().to_bytes(8, "big"), version("bedplate"), random)
        self.door = Insider(folder, token, snapshot)
        self.uplink = Uplink(session, lambda: self.door.identity, said=lambda _: None, refused=self.door.refused)
        self.because = ""
        self._inventory = snapshot.inventory.SerializeToString(deterministic=True)
        self._digest = digest(snapshot.inventory)
        self._problems = snapshot.problems
        self._course = Course(snapshot.vitals, Random(f"{seed}/course"))  # noqa: S311 - a simulation

    @property
    def settled(self) -> bool:
        """Connected, and its dials are stored."""
        return self.uplink.session.state is State.OPEN and self.uplink.session.acknowledged > 0

    async def live(self, tick_s: float, first_after_s: float, enrolling: asyncio.Semaphore) -> None:
        """Ticks, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.uplink.run(), name=f"uplink of {self.name}")
            await self.observe()
            await self._enrol(enrolling)
            await asyncio.sleep(first_after_s)
            while True:
                await self.observe()
                await self._step()
                await asyncio.sleep(tick_s)

    async def observe(self) -> None:
        snapshot = Snapshot(vitals=self._course.tick(), problems=self._problems)
        snapshot.taken_at.FromNanoseconds(time.time_ns())
        await self.uplink.observe(snapshot, self._inventory, self._digest)

    async def _enrol(self, enrolling: asyncio.Semaphore) -> None:
        async with enrolling:
            await self._step()

    async def _step(self) -> None:
        """The first step of the plan, as the agent takes it."""
        decision = credentials.plan(self.door.have(), Want())
        self.because = decision.because if isinstance(decision, Wait) else ""
        if isinstance(decision, Todo):
            try:
                await decision.steps[0].take(self.door)
                self.because = self.door.last
            except BedplateError as error:
                self.because = str(error)
            self.uplink.wake()


def captured(models: Sequence[str]) -> dict[str, Snapshot]:
    """What the captured machines show, by name."""
    with tempfile.TemporaryDirectory() as scratch:
        return {model: scan(replayed(shipped.folder(model, Path(scratch)))) for model in models}


def individuals(models: dict[str, Snapshot], count: int, seed: int) -> Iterator[Snapshot]:
    """So many machines in turn of each model; the same for the same seed."""
    names = list(models)
    for number in range(1, count + 1):
        name = f"sim{seed}-{number:03}"
        snapshot = disguise(models[names[(number - 1) % len(names)]], name)
        snapshot.inventory.identity.hostname = name
        snapshot.vitals.host.boot_id = stand_in("uuid", "00000000-0000-4000-8000-000000000000", name)
        yield snapshot


class Simulation:
    def __init__(self, arguments: argparse.Namespace, token: Callable[[], str]) -> None:
        models = captured(arguments.models or shipped.names())
        self._tick_s: float = arguments.tick
        self._once: bool = arguments.once
        self._stop = asyncio.Event()
        self._why = ""
        self.machines = [
            Machine(
                arguments.state / snapshot.inventory.identity.hostname, snapshot, f"{arguments.seed}/{number}", token
            )
            for number, snapshot in enumerate(individuals(models, arguments.machines, arguments.seed))
        ]
        say(f"{len(self.machines)} machines, made from {', '.join(models)}; their keys are in {arguments.state}")

    async def run(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._end, number.name)
        enrolling, count = asyncio.Semaphore(AT_ONCE), len(self.machines)
        tasks = {
            asyncio.create_task(machine.live(self._tick_s, self._tick_s * place / count, enrolling), name=machine.name)
            for place, machine in enumerate(self.machines)
        }
        tasks.add(asyncio.create_task(self._look(), name="look"))
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await self._goodbye(f"the simulation is stopping: {self._why or 'something broke'}")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    def _end(self, why: str) -> None:
        self._why = why
        self._stop.set()

    async def _look(self) -> None:
        """Until it is to end: say how many are where, when that changes, and not too often while it does."""
        said, said_at = "", -SAY_S
        while not self._stop.is_set():
            sentence = self.sentence()
            if sentence != said and (self._all_there() or time.monotonic() - said_at >= SAY_S):
                said, said_at = sentence, time.monotonic()
                say(sentence)
            if self._once and all(machine.settled for machine in self.machines):
                self._end("all is stored")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._stop.wait()

    def _all_there(self) -> bool:
        return all(machine.uplink.session.state is State.OPEN for machine in self.machines)

    def sentence(self) -> str:
        """'enrolled 8 of 8, connected 7; sim1-003: cannot reach 127.0.0.1:7443: Connection refused'"""
        enrolled = sum(machine.door.identity is not None for machine in self.machines)
        connected = sum(machine.uplink.session.state is State.OPEN for machine in self.machines)
        line = f"enrolled {enrolled} of {len(self.machines)}, connected {connected}"
        for machine in self.machines:
            session = machine.uplink.session
            why = session.because if machine.door.identity else machine.because
            if session.state is State.CLOSED and why and why != "not connected yet":
                return f"{line}; {machine.name}: {why}"
        return line

    async def _goodbye(self, because: str) -> None:
        open_ones = sum(machine.uplink.session.state is State.OPEN for machine in self.machines)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await asyncio.gather(*(machine.uplink.stop(because) for machine in self.machines))
        say(f"said goodbye on {open_ones} streams")


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - what it does is told to the terminal


def main(argv: Sequence[str]) -> int:
    arguments = _parser().parse_args(argv)
    join = config.Config(join_token=arguments.join_token, join_token_file=str(arguments.join_token_file or ""))
    if token := config.token(join):
        decode(token)  # what is wrong with it is said now
    with alone(arguments.state):
        asyncio.run(_run(Simulation(arguments, lambda: config.token(join)), token))
    return 0


async def _run(simulation: Simulation, token: str) -> None:
    strangers = [machine.name for machine in simulation.machines if machine.door.identity is None]
    if strangers and not token:
        advice = "give a join token: bedplate token create --uses 0"
        raise BedplateError(f"cannot simulate {strangers[0]}: it has no certificate yet; {advice}")
    await simulation.run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("nodeagent simulate", description="Agents of captured machines, in one process.")
    parser.add_argument("--machines", type=_count, default=8, metavar="N", help="how many (default: 8)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="who they are and how they fare (default: 1)")
    token = parser.add_mutually_exclusive_group()
    token.add_argument("--join-token", default="", metavar="TOKEN", help="what `bedplate token create` printed")
    token.add_argument("--join-token-file", type=Path, metavar="FILE", help="a file that holds it, of mode 0600")
    parser.add_argument(
        "--state", type=Path, required=True, metavar="DIR", help="folder for their keys; continues there"
    )
    parser.add_argument("--models", type=_models, metavar="A,B", help=f"of these only: {', '.join(shipped.names())}")
    parser.add_argument(
        "--tick", type=_seconds, default=10.0, metavar="SECONDS", help="between two looks (default: 10)"
    )
    parser.add_argument("--once", action="store_true", help="end as soon as all are connected and stored")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_MACHINES:
        raise argparse.ArgumentTypeError(f"must be 1 to {MAX_MACHINES}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.01 <= seconds <= 3600:  # noqa: PLR2004 - an hour
        raise argparse.ArgumentTypeError("must be 0.01 to 3600 seconds")
    return seconds


def _models(text: str) -> list[str]:
    unknown = set(text.split(",")) - set(shipped.names())
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no captured machine {', '.join(sorted(unknown))}; there are {', '.join(shipped.names())}"
        )
    return text.split(",")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
