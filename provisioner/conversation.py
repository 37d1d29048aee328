"""One stream of an agent as gRPC carries it: messages in both directions, and what is under way to the store.

Rule 1: `session` decides; this file reads, writes and waits.
Rule 2: what the store cannot keep is not acknowledged: the stream ends with a word on when to come back.
Rule 3: a stream that says much costs no task for each word: what is stored is heard of by a callback.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from bedplate.v1.uplink_pb2 import Dismissal, SessionRequest, SessionResponse
from provisioner.access import RefusedError
from provisioner.errors import BedplateError, PeerError
from provisioner.fleet import Fleet
from provisioner.handlers import UNDECODABLE
from provisioner.limits import Pace
from provisioner.lives import OVER, Life, OverError
from provisioner.session import ACK_AFTER_S, Keep, Output, Recall, Send, Session
from provisioner.vigil import noteworthy
from provisioner.world import Facts, VitalsKept, VitalsMoved

LOG = logging.getLogger("provisioner")
UNDER_WAY = 16  # batches of one stream that wait for the store before it is read no further
RETRY_S = 10.0  # after an error of ours, or of theirs
DISMISSAL_S = 1.0
DIALS = VitalsKept | VitalsMoved
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
    under_way: set["asyncio.Future[Any]"] = field(default_factory=set)
    writes: set["asyncio.Task[None]"] = field(default_factory=set)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    over: asyncio.Event = field(default_factory=asyncio.Event)  # all that it has to say is submitted
    ack_timer: asyncio.TimerHandle | None = None
    limit: asyncio.Timeout = field(default_factory=lambda: asyncio.timeout(None))
    because: str = ""  # why we end it
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
        except RefusedError:
            raise
        except BedplateError as error:
            self.because = str(error)
        if self.because:
            await self._dismiss()

    async def _listen(self, session: Session) -> None:
        while not session.ended and (message := await self._heard()) is not None:
            await self.handle(session.receive(message, self.fleet.now()))
            if not self.because and self.limit.when() is not None:
                self.limit.reschedule(None)
            while len(self.under_way) >= UNDER_WAY:
                await asyncio.wait(self.under_way, return_when=asyncio.FIRST_COMPLETED)
            if wait_s := self.pace.take(self.machine_id, message.ByteSize(), asyncio.get_running_loop().time()):
                await self._slow_down(wait_s)

    async def _heard(self) -> SessionRequest | None:
        """None at the end. PeerError where it is no message."""
        message: object = await self.context.read()
        if message is UNDECODABLE:
            raise PeerError("a message that cannot be decoded", "DECODE")
        return message if isinstance(message, SessionRequest) else None

    async def _slow_down(self, wait_s: float) -> None:
        """Read no further: HTTP/2's flow control holds the peer. Nothing is lost, and nothing queues up here."""
        if self.fleet.conduct.slowed(self.machine_id, wait_s, self.fleet.now()):
            LOG.warning("machine %s sends faster than it may, and is read more slowly", self.machine_id)
        await asyncio.sleep(wait_s)

    def _broke(self, error: PeerError) -> None:
        """It goes, and that it broke the rules is told as a problem of the machine's is: not a thousand times."""
        self.because, now = f"cannot go on: {error}", self.fleet.now()
        moved = self.fleet.conduct.broke(self.machine_id, error.reason, str(error), now)
        facts = self._facts()
        if facts is not None and (noted := self.fleet.flaps.moved(facts, moved, now)):
            LOG.warning("machine %s broke the conversation: %s", self.machine_id, error)
            self.fleet.submit(noted).add_done_callback(_ignore)

    async def handle(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            match output:
                case Send(message):
                    await self.send(message)
                case Keep():
                    self.keep(output)
                case Recall(digest):
                    body = await self.fleet.read(self.fleet.store.inventory, digest)
                    if self.session:
                        await self.handle(self.session.recalled(body, self.fleet.now()))

    async def send(self, message: SessionResponse) -> None:
        """A write that began is never cancelled: for gRPC it would be under way still, and it would refuse the next."""
        task = asyncio.create_task(self._write(message), name=f"write to {self.machine_id}")
        self.writes.add(task)
        task.add_done_callback(self.writes.discard)
        await asyncio.shield(task)

    async def _write(self, message: SessionResponse) -> None:
        """That the peer is gone is noticed by whoever reads."""
        async with self.writing:
            try:
                await self.context.write(message)
            except grpc.aio.BaseError:
                LOG.debug("machine %s was gone before it was answered", self.machine_id)

    def keep(self, output: Keep) -> None:
        facts = self._facts()
        if facts is None:
            self.cut(OVER, RETRY_S)
            return
        moves = output.moves
        if any(isinstance(change, DIALS) for change in output.changes):
            moves = (*moves, *self.fleet.conduct.went_well(self.machine_id))
        noted = [*noteworthy(facts, output.changes), *self.fleet.flaps.moved(facts, moves, self.fleet.now())]
        changes = [*noted, *output.changes]
        life = Life(self.machine_id, self.incarnation or facts.incarnation)
        done = self.fleet.submit(changes, can_wait=True, of=life)
        self.under_way.add(done)
        done.add_done_callback(lambda done: self._kept(done, output.sequence))

    def _facts(self) -> Facts | None:
        """Of the machine in this stream's life; None once it was forgotten, revoked, or came in again."""
        facts = self.fleet.world.machines.get(self.machine_id)
        gone = facts is None or facts.forgotten_at is not None or self.incarnation not in {0, facts.incarnation}
        return None if gone else facts

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name=f"under way for {self.machine_id}")
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)

    def _kept(self, done: "asyncio.Future[list[int]]", sequence: int) -> None:
        """No task for each: thousands come in a second, and few of them are answered."""
        self.under_way.discard(done)
        if done.cancelled():
            return
        error = done.exception()
        if isinstance(error, OverError):
            return  # who ended that life ends its stream, and says why
        if error:
            self.cut(str(error), RETRY_S)
        elif self.session is not None and not self.because and not self.context.done():
            self._answer(self.session.committed(sequence, self.fleet.now()))

    def _answer(self, outputs: Sequence[Output]) -> None:
        if outputs:
            self.spawn(self.handle(outputs))
        if self.ack_timer is None and self.session and self.session.owes:
            self.ack_timer = asyncio.get_running_loop().call_later(ACK_AFTER_S, self._ack_soon)

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

    async def flushed(self) -> None:
        """Until no write is under way: gRPC would never end a stream that has one, and its peer would wait for that."""
        if self.writes:
            await asyncio.wait(self.writes)

    def end(self) -> None:
        """The stream is over: what that means is submitted, without waiting."""
        self.over.set()
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
