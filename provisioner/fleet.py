"""The one place where facts come to be: batches into the store, then into the world; and the tick that watches time.

Rule 1: one batch is written at a time, and all that arrived meanwhile is the next: under load the batches grow, and
        no person waits for more than two commits. What machines say can wait: it is gathered for a moment before.
Rule 2: the world has a change only once it is durable.
Rule 3: the tick is the five verbs: observe, judge, plan, say, take; what is to be done is decided in `vigil`.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from provisioner.conduct import Conduct
from provisioner.config import Config
from provisioner.decision import Settled, Todo, Wait
from provisioner.errors import BedplateError
from provisioner.flaps import Flaps, Swing
from provisioner.lives import MEANWHILE, OVER, UNENDED, Life, Lives, OverError
from provisioner.logs import about
from provisioner.store import ChangeError, MeanwhileError, Store, StoreError
from provisioner.vigil import plan
from provisioner.world import Change, World

P = ParamSpec("P")
T = TypeVar("T")

BATCH = 5000  # changes in one transaction at most
GATHER_S = 0.2  # what can wait does so: a transaction costs as much as a hundred rows of it
LOG = logging.getLogger("provisioner")


@dataclass(frozen=True, slots=True)
class Settings:
    """What those who answer people and machines need of the configuration."""

    config: Config
    version: str
    ca_sha256: bytes  # of the CA that the server shows: join tokens name it
    next_ca_sha256: bytes = b""  # of the one that takes its place, while one does

    @property
    def silent_after_s(self) -> float:
        return self.config.silent_after_s


Outcome = list[int] | BedplateError  # the revision of each change, or why there is none


@dataclass(slots=True)
class _Wish:
    changes: Sequence[Change]
    heard: Callable[[Outcome], None]
    of: Life | None

    def tell(self, outcome: Outcome) -> None:
        """The only writer outlives whoever hears of it."""
        try:
            self.heard(outcome)
        except Exception:
            LOG.exception("what came of a write was not understood", extra=about(*_machines(self.changes)))


class Fleet:
    """What the services share: the world as it is, one way to change it, one way to wait for a change."""

    def __init__(self, store: Store, world: World, settings: Settings, clock: Callable[[], float]) -> None:
        self.store = store
        self.world = world
        self.settings = settings
        self.now = clock
        self.status = ""
        self._about = list[str]()  # machines
        self.flaps = Flaps()
        self.conduct = Conduct()
        self._writer = ThreadPoolExecutor(1, "writer")  # its own: it waits behind nobody's questions
        self._surveyor = ThreadPoolExecutor(1, "survey")
        self._trouble = ""  # what is wrong with the store, until it takes something again
        self._wishes: deque[_Wish] = deque()
        self._wished = asyncio.Event()
        self._pressed = asyncio.Event()  # somebody waits for it
        self._changed = asyncio.Event()

    def submit(
        self, changes: Sequence[Change], *, can_wait: bool = False, of: Life | None = None
    ) -> "asyncio.Future[list[int]]":
        """Done with the revision of each once they are durable and the world has them; with StoreError where they
        are not. Submitted in order, they come to be in order, whether some of them can wait or not. `of`: they count
        in this life of a machine; OverError where it is over by the time they would come to be.
        """
        done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self.report(tuple(changes), partial(_settle, done), of=of)
        if not can_wait:
            self._pressed.set()
        return done

    def report(self, changes: Sequence[Change], heard: Callable[[Outcome], None], *, of: Life | None = None) -> None:
        """`submit` for those who say much: it can wait, and what comes of it is said to `heard`, which does not raise,
        at once: no future, callback and turn of the loop for each.
        """
        self._wishes.append(_Wish(changes, heard, of))
        self._wished.set()

    async def write(self, changes: Sequence[Change]) -> list[int]:
        """`submit`, and wait; a caller that is cancelled meanwhile takes nothing back."""
        return await asyncio.shield(self.submit(changes))

    def damped(self, found: Sequence[Change | Swing]) -> list[Change]:
        """What is to be written where this was found: of what goes to and fro not each change is an event."""
        return self.flaps.damped(found)

    async def read(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a read of the store where it blocks nobody."""
        return await asyncio.to_thread(function, *args, **kwargs)

    async def survey(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """A read that looks at many machines or rows: one at a time, apart from those that streams wait for."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._surveyor, partial(function, *args, **kwargs))

    async def wait_past(self, revision: int) -> None:
        """Until the world is younger than that."""
        while self.world.revision <= revision:
            await self._changed.wait()

    async def keep_writing(self) -> None:
        """Runs for ever: the only writer."""
        while True:
            await self._wished.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHER_S):
                    await self._pressed.wait()
            await self._write_batch()

    async def _write_batch(self) -> None:
        self._pressed.clear()
        batch, late, size, lives = list[_Wish](), list[_Wish](), 0, Lives(self.world)
        while self._wishes and size < BATCH:
            wish = self._wishes.popleft()
            if wish.of is None and lives.follow(wish.changes):
                lives.add(wish.changes)
            elif wish.of is None or not lives.goes_on(wish.of):
                late.append(wish)
                continue
            batch.append(wish)
            size += len(wish.changes)
        if self._wishes:
            self._pressed.set()
        else:
            self._wished.clear()
        await self._write(batch)
        self._tell_late(late)

    def _tell_late(self, late: Sequence[_Wish]) -> None:
        """What ended their life is durable by now, or was refused itself: then a stream goes on, and lacks this."""
        lives = Lives(self.world)
        for wish in late:
            if wish.of is None:
                self._fail(wish, MeanwhileError(MEANWHILE))
            else:
                self._fail(wish, StoreError(UNENDED) if lives.goes_on(wish.of) else OverError(OVER))

    async def _write(self, batch: Sequence[_Wish]) -> None:
        """Where a change is at fault, it takes no other with it; where the store is, all of them fail at once."""
        changes = [change for wish in batch for change in wish.changes]
        try:
            loop = asyncio.get_running_loop()
            revisions = await loop.run_in_executor(self._writer, self.store.write, changes)
        except StoreError as error:
            if not isinstance(error, ChangeError):
                self._refuse(batch, error)
            elif not await self._halved(batch):
                LOG.error("%s", error, extra=about(*_machines(changes)))
                self._fail(batch[0], error)
        except Exception as error:  # the only writer outlives whatever is wrong with one change
            if not await self._halved(batch):
                kinds = ", ".join(type(change).__name__ for change in changes)  # no secrets
                LOG.exception("cannot write %s", kinds, extra=about(*_machines(changes)))
                self._fail(batch[0], BedplateError(f"cannot write: {error!r}"))
        else:
            self._came_to_be(batch, revisions)

    async def _halved(self, batch: Sequence[_Wish]) -> bool:
        middle = len(batch) // 2
        if not middle:
            return False
        await self._write(batch[:middle])
        await self._write(self._unbroken(batch[middle:]))
        return True

    def _unbroken(self, batch: Sequence[_Wish]) -> list[_Wish]:
        """Those that lie on nothing that was refused; the others hear that."""
        rest = []
        for wish in batch:
            if wish.of and wish.of.refused:
                self._fail(wish, OverError(OVER))
            else:
                rest.append(wish)
        return rest

    def _fail(self, wish: _Wish, error: BedplateError) -> None:
        """Nothing of it comes to be."""
        self.flaps.refused(wish.changes)
        if wish.of:
            wish.of.refused = True
        wish.tell(error)

    def _refuse(self, batch: Sequence[_Wish], error: StoreError) -> None:
        if str(error) != self._trouble:
            self._trouble = str(error)
            LOG.error("%s", error)
        for wish in batch:
            self._fail(wish, error)

    def _came_to_be(self, batch: Sequence[_Wish], revisions: list[int]) -> None:
        if self._trouble and revisions:
            self._trouble = ""
            LOG.info("the store takes what is written again")
        self.world = self.store.world
        self._tell()
        start = 0
        for wish in batch:
            end = start + len(wish.changes)
            wish.tell(revisions[start:end])
            start = end

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def keep_ticking(
        self, say: Callable[[str], Awaitable[None]], beat: Callable[[], None], every_s: float = 1.0
    ) -> None:
        """Runs for ever: observe, judge, plan, say, take. One sentence a tick, logged and said when it changes; `beat`
        after each: the service manager's watchdog.
        """
        while True:
            try:
                await self.tick(say)
            except Exception as error:  # no tick ends the provisioner
                if repr(error) != self.status:
                    self.status = repr(error)
                    LOG.exception("the tick failed")
            beat()
            await asyncio.sleep(every_s)

    async def tick(self, say: Callable[[str], Awaitable[None]]) -> None:
        """One look at the world and at most one step."""
        now, trouble, machines = self.now(), "", list[str]()
        decision = plan(self.world, now, self.settings.silent_after_s)
        try:
            await self._settle_flaps(now)
            match decision:
                case Todo():
                    machines = [machine_id for machine_id, *_ in decision.steps[0].machines]
                    await decision.steps[0].take(self)
                case Settled() | Wait():
                    pass
        except BedplateError as error:
            trouble = str(error)
        await self._say(trouble or decision.because, machines, say)

    async def _settle_flaps(self, now: float) -> None:
        if settled := self.flaps.settled(now, self.world.machines):
            await self.write(settled)
        self.flaps.forget(now)

    async def _say(self, sentence: str, machines: list[str], say: Callable[[str], Awaitable[None]]) -> None:
        """The same sentence about others is another one: they are found by it."""
        if (sentence, machines) != (self.status, self._about):
            self.status, self._about = sentence, machines
            LOG.info("%s", sentence, extra=about(*machines))
            await say(sentence)


def _machines(changes: Sequence[Change]) -> list[str]:
    """Those that the changes concern, each once."""
    found = (getattr(change, "machine_id", "") for change in changes)
    return [machine_id for machine_id in dict.fromkeys(found) if machine_id]


def _settle(done: "asyncio.Future[list[int]]", outcome: Outcome) -> None:
    if done.done():
        return
    if isinstance(outcome, BedplateError):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)
