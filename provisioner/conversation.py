"""One stream of an agent as gRPC carries it: messages in both directions, and what is under way to the store.

Rule 1: `session` decides; this file reads, writes and waits.
Rule 2: what the store cannot keep is not acknowledged: the stream ends with a word on when to come back.
Rule 3: a stream that says much costs no task and no future for each word: what is stored is heard of by a callback.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import grpc

from bedplate.v1.uplink_pb2 import Dismissal, SessionRequest, SessionResponse
from provisioner.access import RefusedError
from provisioner.errors import BedplateError, PeerError
from provisioner.flaps import Move
from provisioner.fleet import Fleet, Outcome
from provisioner.handlers import UNDECODABLE
from provisioner.limits import Pace
from provisioner.lives import OVER, Life, OverError
from provisioner.logs import about
from provisioner.session import Keep, Output, Recall, Send, Session
from provisioner.vigil import noteworthy
from provisioner.world import Change, Facts, InventoryKept, VitalsKept, VitalsMoved, machine_after

LOG = logging.getLogger("provisioner")
UNDER_WAY = 16  # of one stream: what waits for the store, or to be sent, before it is read no further
RETRY_S = 10.0  # after an error of ours, or of theirs
DISMISSAL_S = 1.0
DIALS = (VitalsKept, VitalsMoved)
Context = grpc.aio.ServicerContext[SessionRequest, SessionResponse]


@dataclass(slots=True)
class Conversation:
    """One stream: its session, and what is under way on it."""

    fleet: Fleet
    machine_id: str
    context: Context
    task: "asyncio.Task[None] | None"
    pace: Pace
    incarnation: int = 0  # of the certificate that it came by
    issuer: bytes = b""  # of that too
    session: Session | None = None  # until it is known what is stored
    under_way: int = 0
    room: "asyncio.Future[None] | None" = None  # somebody waits for less to be under way
    life: Life | None = None
    inventory: InventoryKept | None = None  # the last that it has submitted: the world may not have it yet
    writes: set["asyncio.Task[None]"] = field(default_factory=set)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    over: bool = False  # all that it has to say is submitted
    waited_for: "asyncio.Future[None] | None" = None  # somebody waits for that: an Event for each would be a kilobyte
    ack_timer: asyncio.TimerHandle | None = None
    limit: asyncio.Timeout = field(default_factory=lambda: asyncio.timeout(None))
    because: str = ""  # why we end it
    lost: bool = False  # that it broke off is counted
    retry_after_s: float = RETRY_S

    async def run(self, begin: Callable[[], Awaitable[Session]], hello_s: float) -> None:
        """Until the stream ends, however it does: the peer, the limit of time, whoever cuts it off."""
        try:
            async with self.limit:
                self.session = await begin()
                if not self.because:  # else it was cut off meanwhile, and the limit is now
                    self.limit.reschedule(asyncio.get_running_loop().time() + hello_s)
                await self._listen(self.session)
        except TimeoutError:
            if not self.because:
                self._broke(PeerError(f"no hello within {hello_s:g} s", "NO_HELLO"))
        except PeerError as error:
            self._broke(error)
        except RefusedError as refused:
            self.because = refused.line
            raise
        except BedplateError as error:
            self.because = str(error)
        if self.because:
            await self._dismiss()

    async def _listen(self, session: Session) -> None:
        loop = asyncio.get_running_loop()
        while not session.ended and (heard := await self._heard()) is not None:
            message, octets = heard
            await self.handle(session.receive(message, self.fleet.now(), octets))
            if not self.because and self.limit.when() is not None:
                self.limit.reschedule(None)
            while self.under_way >= UNDER_WAY:
                self.room = loop.create_future()
                await self.room
            size = len(octets)
            del heard, message, octets  # or each stream would hold its last word until the next one comes
            if wait_s := self.pace.take(self.machine_id, size, loop.time()):
                await self._slow_down(wait_s)

    async def _heard(self) -> tuple[SessionRequest, bytes] | None:
        """A message, and its octets; None at the end. PeerError where it is no message."""
        heard: Any = await self.context.read()
        if heard is UNDECODABLE:
            raise PeerError("a message that cannot be decoded", "DECODE")
        return None if heard is grpc.aio.EOF else heard

    async def _slow_down(self, wait_s: float) -> None:
        """Read no further: HTTP/2's flow control holds the peer. Nothing is lost, and nothing queues up here."""
        if self.fleet.conduct.slowed(self.machine_id, wait_s, self.fleet.now()):
            line = "machine %s sends faster than it may, and is read more slowly"
            LOG.warning(line, self.machine_id, extra=about(self.machine_id))
        await asyncio.sleep(wait_s)

    def _broke(self, error: PeerError) -> None:
        """It goes, and that it broke the rules is told as a problem of the machine's is: not a thousand times."""
        self.because, now = f"cannot go on: {error}", self.fleet.now()
        moved = self.fleet.conduct.broke(self.machine_id, error.reason, str(error), now)
        facts = self._facts()
        if facts is not None and (noted := self.fleet.flaps.moved(facts, moved, now)):
            extra = about(self.machine_id, reason=error.reason)
            LOG.warning("machine %s broke the conversation: %s", self.machine_id, error, extra=extra)
            self.fleet.flaps.kept(self.machine_id, moved)  # nowhere but there
            self.fleet.submit(noted).add_done_callback(_ignore)

    async def handle(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            match output:
                case Keep():
                    self.keep(output)
                case Send(message):
                    self.post(message)
                case Recall(digest):
                    body = await self.fleet.read(self.fleet.store.inventory, digest)
                    if self.session:
                        await self.handle(self.session.recalled(body, self.fleet.now()))

    async def send(self, message: SessionResponse) -> None:
        """A write that began is never cancelled: for gRPC it would be under way still, and it would refuse the next."""
        await asyncio.shield(self.post(message))

    def post(self, message: SessionResponse) -> "asyncio.Task[None]":
        """Sent as soon as what was posted before it is."""
        task = asyncio.create_task(self._write(message), name=f"write to {self.machine_id}")
        self.under_way += 1
        self.writes.add(task)
        task.add_done_callback(self._written)
        return task

    def _written(self, task: "asyncio.Task[None]") -> None:
        self.writes.discard(task)
        self._make_room()

    async def _write(self, message: SessionResponse) -> None:
        """That the peer is gone is noticed by whoever reads."""
        async with self.writing:
            try:
                await self.context.write(message)
            except grpc.aio.BaseError:
                extra = about(self.machine_id)
                LOG.debug("machine %s was gone before it was answered", self.machine_id, extra=extra)

    def keep(self, output: Keep) -> None:
        facts = self._facts()
        if facts is None:
            self.cut(OVER, RETRY_S)
            return
        if self.life is None or self.life.incarnation != facts.incarnation:
            self.life = Life(self.machine_id, facts.incarnation)
        moves = self._moves(output)
        changes = [*self._noted(facts, output, moves), *output.changes]
        self.under_way += 1
        self.fleet.report(changes, partial(self._kept, output.sequence, moves), of=self.life)

    def _moves(self, output: Keep) -> Sequence[Move]:
        if isinstance(output.changes[0], DIALS):
            return (*output.moves, *self.fleet.conduct.went_well(self.machine_id))
        return output.moves

    def _noted(self, facts: Facts, output: Keep, moves: Sequence[Move]) -> list[Change]:
        """The events that this is worth."""
        if isinstance(change := output.changes[0], InventoryKept):
            facts, self.inventory = self._ahead(facts), replace(change, body=None)
        noted = self.fleet.damped(noteworthy(facts, output.changes))
        return [*noted, *self.fleet.flaps.moved(facts, moves, self.fleet.now())] if moves else noted

    def _ahead(self, facts: Facts) -> Facts:
        """With the inventory before this one, which may be on its way to the store: there and back is two changes."""
        return machine_after(facts, self.inventory, facts.revision) if self.inventory else facts

    def _facts(self) -> Facts | None:
        """Of the machine in this stream's life; None once it was forgotten, revoked, or came in again."""
        facts = self.fleet.world.machines.get(self.machine_id)
        gone = facts is None or facts.forgotten_at is not None or self.incarnation not in {0, facts.incarnation}
        return None if gone else facts

    def _make_room(self) -> None:
        self.under_way -= 1
        if self.room and not self.room.done() and self.under_way < UNDER_WAY:
            self.room.set_result(None)

    def _kept(self, sequence: int, moves: Sequence[Move], outcome: Outcome) -> None:
        """No task for each: thousands come in a second, and few of them are answered."""
        self._make_room()
        if isinstance(outcome, OverError):
            return  # who ended that life ends its stream, and says why
        if isinstance(outcome, BedplateError):
            self.cut(str(outcome), RETRY_S)
            return
        if moves:
            self.fleet.flaps.kept(self.machine_id, moves)
        if self.session is not None and not self.because and not self.context.done():
            self._answer(self.session.committed(sequence, self.fleet.now()))

    def _answer(self, acks: Sequence[Send]) -> None:
        for ack in acks:
            self.post(ack.message)
        if self.ack_timer is None and self.session:
            in_s = self.session.owes_in_s(self.fleet.now())
            if in_s is not None:
                self.ack_timer = asyncio.get_running_loop().call_later(in_s, self._ack_soon)

    def _ack_soon(self) -> None:
        self.ack_timer = None
        if self.session is not None and not self.context.done():
            self._answer(self.session.tick(self.fleet.now()))

    def cut(self, because: str, retry_after_s: float) -> None:
        """End the stream, from outside and without waiting: the peer is told, its task ends."""
        if not self.because and not self.context.done():
            self.because, self.retry_after_s = because, retry_after_s
            with contextlib.suppress(RuntimeError):  # it is ending already
                self.limit.reschedule(asyncio.get_running_loop().time())

    async def _dismiss(self) -> None:
        """Tell the agent to go, and when to come back. One that does not read holds nobody up."""
        dismissal = Dismissal(because=self.because, retry_after_s=self.retry_after_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISMISSAL_S):
                await self.send(SessionResponse(dismissal=dismissal))

    def lose(self) -> None:
        """It is over: counted once, where neither end has said that it would be. Of that gRPC does not tell why."""
        if not (self.lost or self.because or self.over or (self.session and self.session.ended)):
            self.lost = True
            self.fleet.conduct.lose(self.machine_id, self.fleet.now())

    async def wait_over(self) -> None:
        """Until all that it has to say is submitted."""
        if not self.over:
            self.waited_for = self.waited_for or asyncio.get_running_loop().create_future()
            await asyncio.shield(self.waited_for)

    async def flushed(self) -> None:
        """Until no write is under way: gRPC would never end a stream that has one, and its peer would wait for that."""
        if self.writes:
            await asyncio.wait(self.writes)

    def end(self) -> None:
        """The stream is over: what that means is submitted, without waiting."""
        self.lose()
        self.over = True
        if self.waited_for and not self.waited_for.done():
            self.waited_for.set_result(None)
        if self.ack_timer is not None:
            self.ack_timer.cancel()
        because = self.because or "its stream broke without a goodbye"
        outputs = self.session.lost(because, self.fleet.now()) if self.session else []
        for output in outputs:
            facts = self.fleet.world.machines.get(self.machine_id)  # revoked or not: that a stream ended is so
            if isinstance(output, Keep) and facts is not None and facts.forgotten_at is None:
                self.fleet.submit(output.changes).add_done_callback(_ignore)


def _ignore(done: "asyncio.Future[list[int]]") -> None:
    """An error was logged by the writer; nobody waits for this one."""
    done.cancelled() or done.exception()
