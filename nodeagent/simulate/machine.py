"""One simulated machine: its box, its cable, its clock, what it keeps, and its agent while that runs."""

import asyncio
import shutil
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from bedplate.v1.enrolment_pb2 import Evidence
from bedplate.v1.snapshot_pb2 import Inventory, Snapshot
from nodeagent import credentials
from nodeagent.credentials import Want
from nodeagent.decision import Todo, Wait
from nodeagent.enrolment import evidence_of
from nodeagent.errors import BedplateError
from nodeagent.session import Session, State
from nodeagent.simulate.box import Box
from nodeagent.simulate.cable import Cable
from nodeagent.simulate.insider import VERSION, Insider
from nodeagent.uplink import Uplink, channel


@dataclass(frozen=True, slots=True)
class Place:
    """What all machines of a process share."""

    token: Callable[[], str]
    enrolling: asyncio.Semaphore  # making keys takes processor time
    tick_s: float
    born: Callable[[Coroutine[None, None, None], str], "asyncio.Task[None]"]  # a task that may not die unseen


class Machine:
    def __init__(self, box: Box, folder: Path, place: Place, cable: Cable | None = None) -> None:
        """`cable`: one that can be pulled out, laid already; without: nothing is between it and the provisioner."""
        self.box = box
        self.folder = folder
        self.skew_s = 0.0
        self.cable = cable
        self._place = place
        self._because = ""
        self._random = Random(box.name)  # noqa: S311 - jitter
        self._agent: asyncio.Task[None] | None = None
        self._set_up()

    @property
    def name(self) -> str:
        return self.box.name

    @property
    def connected(self) -> bool:
        return self.uplink.session.state is State.OPEN

    @property
    def settled(self) -> bool:
        """Connected, and its dials are stored."""
        return self.connected and self.uplink.session.acknowledged > 0

    @property
    def tried(self) -> bool:
        """It is there, or has been told why it is not."""
        return self.connected or bool(self.why)

    @property
    def why(self) -> str:
        """Why it is not connected; empty where it is, or is off, or nobody knows yet."""
        if self._agent is None:
            return ""
        session = self.uplink.session
        why = session.because if self.door.identity else self._because
        return why if session.state is State.CLOSED and why != "not connected yet" else ""

    def clock(self) -> float:
        """Of the host, as it believes."""
        return time.time() + self.skew_s

    # -- power -----------------------------------------------------------------------------------------------------

    def power_on(self, first_after_s: float = 0.0) -> None:
        """A new run of the agent, on what the folder holds."""
        self._set_up()
        self._agent = self._place.born(self._live(first_after_s), f"agent of {self.name}")

    async def power_off(self, because: str = "") -> None:
        """With a goodbye where there is a word to say; otherwise as when the plug is pulled."""
        if because:
            await self.uplink.stop(because)
        if self._agent:
            self._agent.cancel()
            await asyncio.wait([self._agent])
            self._agent = None

    def wipe(self) -> None:
        """A new image: what the agent kept is gone."""
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- the agent -------------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        run_id = self._random.randbytes(8) + time.time_ns().to_bytes(8, "big")
        cable = self.cable
        self.door = Insider(
            self.folder, self._place.token, self._evidence, self.clock, lambda: cable is not None and cable.out
        )
        self.uplink = Uplink(
            Session(run_id, VERSION, self._random),
            lambda: self.door.identity,
            said=lambda _: None,
            refused=self.door.refused,
            dial=cable.dial if cable else channel,
            wall_ns=lambda: int(self.clock() * 1e9),
        )

    async def _live(self, first_after_s: float) -> None:
        """Ticks, until cancelled."""
        if self.cable:
            await self.cable.lay()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.uplink.run(), name=f"uplink of {self.name}")
            await self._observe()
            async with self._place.enrolling:
                await self._step()
            await asyncio.sleep(first_after_s)
            while True:
                await self._observe()
                await self._step()
                await asyncio.sleep(self._place.tick_s)

    async def _observe(self) -> None:
        snapshot = self.box.snapshot()
        snapshot.taken_at.FromNanoseconds(int(self.clock() * 1e9))
        await self.uplink.observe(snapshot, self.box.inventory, self.box.digest)

    async def _step(self) -> None:
        """The first step of the plan, as the agent takes it."""
        session = self.uplink.session
        have = replace(self.door.have(), told=session.told(self.uplink.clock()))
        decision = credentials.plan(have, Want())
        self._because = decision.because if isinstance(decision, Wait) else ""
        if isinstance(decision, Todo):
            try:
                await decision.steps[0].take(self.door)
                session.renewed()
                self._because = self.door.last
            except BedplateError as error:
                self._because = str(error)
            self.uplink.wake()

    def _evidence(self) -> Evidence:
        return evidence_of(Snapshot(inventory=Inventory.FromString(self.box.inventory)))
