"""The tick of the agent: observe, judge, plan, say, take.

Rule 1: a tick that finds nothing changed costs next to nothing: inventory is read when the kernel says that something
        changed, and what is read on every tick are the dials.
Rule 2: of a plan only the first step is taken, then the machine is observed afresh. A step that takes its time does not
        hold up the next tick, and there is never a second one beside it.
Rule 3: one sentence a tick says what the agent is doing and why; it goes to the log, to systemd and to who asks.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from bedplate.v1.snapshot_pb2 import Snapshot
from nodeagent import credentials
from nodeagent.credentials import Have, Want
from nodeagent.decision import Settled, Step, Todo, Wait
from nodeagent.errors import BedplateError
from nodeagent.host import Host
from nodeagent.logs import OnChange
from nodeagent.observe import Observer
from nodeagent.probes import EVERYTHING
from nodeagent.session import State
from nodeagent.steps import IdentityDoor
from nodeagent.uplink import Uplink

LOG = logging.getLogger("nodeagent")


@dataclass(slots=True)
class Agent:
    """What the daemon's edges look at: the latest snapshot, and why things are as they are."""

    host: Host
    observer: Observer
    uplink: Uplink
    door: IdentityDoor
    have: Callable[[], Have]
    say: Callable[[str], None]
    want: Want = field(default_factory=Want)
    clock: Callable[[], float] = time.monotonic
    snapshot: Snapshot = field(default_factory=Snapshot)
    digest: bytes = b""
    revision: int = 0  # of the snapshot: how many were taken
    because: str = "the first scan has not ended"
    _identity_because: str = ""
    _step: "asyncio.Task[None] | None" = None
    _log: OnChange = field(default_factory=OnChange)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _seen: asyncio.Event = field(default_factory=asyncio.Event)

    async def tick(self, woken: frozenset[str] = frozenset()) -> None:
        """One round of the five verbs."""
        await self.observe(woken)
        told = self.uplink.session.told(self.clock())
        have = replace(self.have(), told=told)
        decision = credentials.plan(have, self.want)
        self._identity_because = decision.because
        # What came of asking anew is younger than why the stream was refused.
        asks = self.uplink.identity() is None or not decision.because.startswith(have.refused)
        self.because = sentence(self.uplink, decision.because if asks else "", self.snapshot)
        if self.uplink.session.state is not State.GREETING:  # for the time of an attempt the last word stands
            self.say(self.because)
        match decision:
            case Todo() if self._step is None or self._step.done():
                self._step = asyncio.create_task(self._take(decision.steps[0]), name="step")
            case Todo() | Settled() | Wait():
                pass

    async def observe(self, woken: frozenset[str] = frozenset()) -> None:
        """Look at the machine, and tell those who watch."""
        async with self._looking:
            snapshot = await asyncio.to_thread(self.observer.observe, self.clock(), woken)
            self.snapshot = snapshot
            inventory = snapshot.inventory.SerializeToString(deterministic=True)
            self.digest = hashlib.sha256(inventory).digest()
            self.revision += 1
            await self.uplink.observe(snapshot, inventory, self.digest)
        seen, self._seen = self._seen, asyncio.Event()
        seen.set()

    async def fresh(self) -> None:
        """Scan everything now."""
        await self.observe(EVERYTHING)

    async def wait_changed(self, since: int) -> None:
        """Until there is a snapshot younger than that revision."""
        while self.revision <= since:
            await self._seen.wait()

    def explain(self) -> tuple[str, list[str]]:
        """What the agent is doing and why, and what that rests on."""
        session = self.uplink.session
        since = datetime.fromtimestamp(time.time() - (self.clock() - session.changed_at), UTC)
        evidence = [
            f"identity: {self._identity_because or 'not looked at yet'}",
            f"stream: {session.because}, since {since:%Y-%m-%d %H:%M:%S} UTC",
            f"stored there: delta {session.acknowledged} of {session.sequence}",
            f"last scan: {self.snapshot.taken_at.ToJsonString()}, inventory {self.digest.hex()[:12]}",
        ]
        evidence += [f"{problem.probe}: {problem.detail}" for problem in self.snapshot.problems]
        return self.because, evidence

    async def stop(self, because: str) -> None:
        """Say goodbye and leave a step that is being taken to its own crash safety."""
        if self._step is not None:
            self._step.cancel()
        await self.uplink.stop(because)

    async def _take(self, step: Step[IdentityDoor]) -> None:
        try:
            await step.take(self.door)
            self.uplink.session.renewed()
            self.uplink.wake()
        except BedplateError as error:
            self._log.say("step", str(error), logging.WARNING)
        except Exception as error:  # not foreseen: the trace of it, once
            if self._log.say("step", f"cannot take {step}: {type(error).__name__}: {error}", logging.ERROR):
                LOG.info("where that failed", exc_info=True)
        else:
            self._log.forget("step")


def sentence(uplink: Uplink, identity: str, snapshot: Snapshot) -> str:
    """'connected to 10.0.0.5:7443; every probe answered'; `identity`: why it has none, where that is why."""
    match uplink.session.state:
        case State.OPEN:
            link = f"connected to {uplink.address}"
        case State.GREETING:
            link = f"waiting for the welcome of {uplink.address}"
        case State.CLOSED:
            link = f"not connected: {identity or uplink.session.because}"
    count = len(snapshot.problems)
    if not count:
        return f"{link}; every probe answered"
    first = snapshot.problems[0]
    return f"{link}; {count} {'question' if count == 1 else 'questions'} without an answer: {first.detail}"
