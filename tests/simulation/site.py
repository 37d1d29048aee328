"""One life of the provisioner: from `Site(...)` to `die`. It stands in for `fleet`, `uplink` and the tick's loop.

Rule: facts come to be as in `fleet`: one batch at a time, what arrives meanwhile is the next, and the world has a
change only once it is on the disk. A life that dies loses what was not.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ParamSpec, TypeVar

from provisioner.access import standing
from provisioner.decision import Todo
from provisioner.errors import BedplateError
from provisioner.flaps import Flaps, Swing
from provisioner.lives import MEANWHILE, OVER, UNENDED, Life, Lives, OverError
from provisioner.outbox import Outbox
from provisioner.store import MeanwhileError, StoreError
from provisioner.vigil import plan
from provisioner.world import Change
from tests.simulation.disk import Disk
from tests.simulation.invariants import Invariants
from tests.simulation.loop import Loop
from tests.simulation.oracle import FLAP_WINDOW_S
from tests.simulation.timeline import Timeline

SILENT_AFTER_S = 45.0
TICK_S = 2.0
P = ParamSpec("P")
T = TypeVar("T")
Told = Callable[[BedplateError | None], None]


@dataclass(frozen=True, slots=True)
class Wish:
    changes: tuple[Change, ...]
    author: object  # the conversation that wishes it, or who else
    told: Told
    of: Life | None = None


class Site:
    def __init__(self, timeline: Timeline, disk: Disk, invariants: Invariants) -> None:
        self.timeline = timeline
        self.store = disk
        self.invariants = invariants
        self.alive = True
        self.deaf = False  # to what agents say of the epoch that they obey
        self.slow_s = 0.02  # a commit, about
        epoch = disk.begin_epoch()
        self.world = disk.load(timeline.now)
        self.settings = SimpleNamespace(silent_after_s=SILENT_AFTER_S)
        self._wishes: list[Wish] = []
        self._writing: list[Wish] = []
        self._late: list[Wish] = []
        self._noting = self._settling = False
        self.flaps = Flaps(FLAP_WINDOW_S)
        self.conversations: dict[str, Any] = {}  # machine id -> conversation
        self.loop = Loop(timeline)
        self._changed = asyncio.Event()
        timeline.say("provisioner", "begins epoch", epoch)
        invariants.loaded(self.world)
        timeline.after(TICK_S, self._tick)

    def now(self) -> float:
        return self.timeline.now

    def submit(
        self, changes: Sequence[Change], author: object, told: Told = lambda _: None, of: Life | None = None
    ) -> None:
        self._wishes.append(Wish(tuple(changes), author, told, of))
        if not self._writing and not self._late:
            self._begin_batch()

    def die(self, committed: bool) -> None:  # noqa: FBT001 - the moment of a kill: before or after the commit
        """As by kill -9."""
        self.alive = False
        self.loop.die()
        self.timeline.say("provisioner", "dies,", len(self._writing), "wishes in its hand", "written" * committed)
        if committed and self._writing:
            self._put_down()
        self._wishes, self._writing, self._late = [], [], []
        conversations, self.conversations = list(self.conversations.values()), {}
        for conversation in conversations:
            conversation.orphan()

    def judge(self, machine_id: str) -> None:
        """End its stream, where that is one of a life that is over."""
        conversation = self.conversations.get(machine_id)
        if conversation and (refused := standing(conversation.who, self.world)):
            conversation.cut(refused.line, 60.0)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _begin_batch(self) -> None:
        lives = Lives(self.world)
        for wish in self._wishes:
            if not (lives.goes_on(wish.of) if wish.of else lives.follow(wish.changes)):
                self._late.append(wish)
                continue
            lives.add(wish.changes)
            self._writing.append(wish)
        self._wishes = []
        self.timeline.after(self.slow_s * self.timeline.between(0.2, 3.0), self._end_batch)

    def _end_batch(self) -> None:
        if not self.alive:
            return
        error: StoreError | None = None
        try:
            self._put_down()
        except StoreError as refused:
            error = refused
            self.timeline.say("provisioner", str(refused))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        batch, late, self._writing, self._late = self._writing, self._late, [], []
        if error:
            self._refused(batch)
        for wish in batch:
            if error and wish.of:
                wish.of.refused = True
        if self._wishes:
            self._begin_batch()
        for wish in batch:
            wish.told(error)
        self._tell_late(late)

    def _tell_late(self, late: Sequence[Wish]) -> None:
        lives = Lives(self.world)
        if late:
            self._refused(late)
        for wish in late:
            if wish.of and lives.goes_on(wish.of):  # what was to end it did not come to be
                wish.of.refused = True
                wish.told(StoreError(UNENDED))
            else:
                wish.told(OverError(OVER) if wish.of else MeanwhileError(MEANWHILE))

    def _refused(self, wishes: Sequence[Wish]) -> None:
        for wish in wishes:
            self.flaps.refused(wish.changes)
        self.invariants.refused([change for wish in wishes for change in wish.changes], self.timeline.now)

    def _put_down(self) -> None:
        before = self.world
        changes = [change for wish in self._writing for change in wish.changes]
        revisions = self.store.write(changes)
        authors = [wish.author for wish in self._writing for _ in wish.changes]
        self.world = self.store.world
        for wish in self._writing:
            self.invariants.outward.committed(wish.changes, wish.author)
        entries = list(zip(revisions, changes, authors, strict=True))
        self.invariants.committed(before, self.world, entries, self.timeline.now)

    def _tick(self) -> None:
        if not self.alive:
            return
        self.timeline.after(TICK_S, self._tick)
        self.invariants.phases(self.world, self.timeline.now, SILENT_AFTER_S)
        self._settle_flaps()
        if self._noting:
            return
        decision = plan(self.world, self.timeline.now, SILENT_AFTER_S)
        if isinstance(decision, Todo):
            self.timeline.say("provisioner", decision.because)
            _drive(decision.steps[0].take(self))

    def _settle_flaps(self) -> None:
        now = self.timeline.now
        if self._settling:
            return
        if not (settled := self.flaps.settled(now, self.world.machines)):
            self.flaps.forget(now)
            self.invariants.flaps(self.flaps, now)
            return
        self._settling = True

        def done(error: StoreError | None) -> None:
            self._settling = False
            if error is None:
                self.flaps.forget(now)

        self.submit(settled, "flaps", done)

    # -- for the product's own coroutines --------------------------------------------------------------------------

    async def read(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Before or after it, time goes by."""
        if self.timeline.chance(0.5):
            await asyncio.sleep(self.timeline.between(0.0, 0.02))
            return function(*args, **kwargs)
        found = function(*args, **kwargs)
        await asyncio.sleep(self.timeline.between(0.0, 0.02))
        return found

    async def wait_past(self, revision: int) -> None:
        while self.world.revision <= revision:
            await self._changed.wait()

    async def deliver(self, sinks: Sequence[Any]) -> None:
        """The outbox of this life."""
        try:
            outbox = await Outbox.opened(self, sinks, self.timeline.random)
        except StoreError:
            await asyncio.sleep(1.0)
            self.loop.create_task(self.deliver(sinks))
            return
        for sink in sinks:
            self.invariants.outward.begins(sink.name, sink.wants)
        for name, work in outbox.works():
            self.loop.create_task(work, name=name)

    def damped(self, found: Sequence[Change | Swing]) -> list[Change]:
        return self.flaps.damped(found)

    async def write(self, changes: Sequence[Change]) -> list[int]:
        """The tick's one step: the next look is after it."""
        self._noting = True
        self.submit(changes, "vigil", self._noted)
        return []

    def _noted(self, _: StoreError | None) -> None:
        self._noting = False


def _drive(step: Any) -> None:
    """A coroutine that waits for nothing."""
    try:
        step.send(None)
    except StopIteration:
        return
    raise AssertionError("the step waits for something")
