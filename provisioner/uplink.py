"""The gRPC edge of the conversations with agents: it carries messages, and `session` decides.

Rule 1: a machine has one stream; a younger one ends the older, whose last facts are submitted before it begins.
Rule 2: what the store cannot keep is not acknowledged: the stream ends with a word on when to come back.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import grpc

from bedplate.v1.enrolment_pb2 import Credentials
from bedplate.v1.snapshot_pb2 import Vitals
from bedplate.v1.uplink_pb2 import Dismissal, Problems, RenewRequest, RenewResponse, SessionRequest, SessionResponse
from bedplate.v1.uplink_pb2_grpc import UplinkServicer as Servicer
from provisioner.access import Caller, caller
from provisioner.errors import BedplateError
from provisioner.fleet import Fleet
from provisioner.session import ACK_AFTER_S, Keep, Known, Output, PeerError, Recall, Send, Session
from provisioner.vigil import on_inventory, on_meeting
from provisioner.world import Change, Facts, InventoryKept, Met

LOG = logging.getLogger("provisioner")
UNDER_WAY = 64  # batches of one stream that wait for the store before it is read no further
RETRY_S = 10.0  # after an error of ours
Context = grpc.aio.ServicerContext[SessionRequest, SessionResponse]
Renewer = Callable[[Caller, bytes], Awaitable[Credentials]]


@dataclass(slots=True)
class Conversation:
    """One stream: its session, and what is under way on it."""

    fleet: Fleet
    session: Session
    context: Context
    task: "asyncio.Task[None] | None"
    under_way: set["asyncio.Task[None]"] = field(default_factory=set)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    ack_timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Until the stream ends."""
        try:
            while isinstance(message := await self.context.read(), SessionRequest):
                await self.handle(self.session.receive(message, self.fleet.now()))
                while len(self.under_way) > UNDER_WAY:
                    await asyncio.wait(self.under_way, return_when=asyncio.FIRST_COMPLETED)
        except PeerError as error:
            LOG.warning("machine %s broke the conversation: %s", self.session.known.machine_id, error)
            await self.dismiss(f"cannot go on: {error}", RETRY_S)

    async def handle(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            match output:
                case Send(message):
                    await self.send(message)
                case Keep(changes, sequence):
                    self.keep(changes, sequence)
                case Recall(digest):
                    body = await self.fleet.read(self.fleet.store.inventory, digest)
                    await self.handle(self.session.recalled(body, self.fleet.now()))

    async def send(self, message: SessionResponse) -> None:
        async with self.writing:
            await self.context.write(message)

    def keep(self, changes: tuple[Change, ...], sequence: int) -> None:
        facts = self.fleet.world.machines.get(self.session.known.machine_id)
        if facts is None or facts.forgotten_at is not None:
            return
        done = self.fleet.submit([*_noteworthy(facts, changes), *changes])
        task = asyncio.create_task(self._kept(done, sequence), name=f"keep {facts.id} {sequence}")
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)

    async def _kept(self, done: "asyncio.Future[list[int]]", sequence: int) -> None:
        try:
            await done
        except BedplateError as error:
            await self.dismiss(str(error), RETRY_S)
            if self.task:
                self.task.cancel()
            return
        if self.context.done():
            return
        await self.handle(self.session.committed(sequence, self.fleet.now()))
        if self.ack_timer is None:
            self.ack_timer = asyncio.get_running_loop().call_later(ACK_AFTER_S, self._ack_soon)

    def _ack_soon(self) -> None:
        self.ack_timer = None
        outputs = self.session.tick(self.fleet.now())
        if outputs and not self.context.done():
            task = asyncio.create_task(self.handle(outputs), name="ack")
            self.under_way.add(task)
            task.add_done_callback(self.under_way.discard)

    async def dismiss(self, because: str, retry_after_s: float) -> None:
        """Tell the agent to go, and when to come back."""
        if self.context.done():
            return
        try:
            await self.send(SessionResponse(dismissal=Dismissal(because=because, retry_after_s=retry_after_s)))
        except (grpc.RpcError, asyncio.InvalidStateError):
            LOG.debug("machine %s was gone before it was dismissed", self.session.known.machine_id)

    def end(self, because: str) -> None:
        """The stream is over: what that means is submitted, without waiting."""
        if self.ack_timer is not None:
            self.ack_timer.cancel()
        for output in self.session.lost(because, self.fleet.now()):
            if isinstance(output, Keep):
                facts = self.fleet.world.machines.get(self.session.known.machine_id)
                if facts is not None and facts.forgotten_at is None:
                    self.fleet.submit(output.changes).add_done_callback(_ignore)


class UplinkServicer(Servicer):
    """bedplate.v1.Uplink."""

    def __init__(self, fleet: Fleet, renewer: Renewer) -> None:
        self._fleet = fleet
        self._renewer = renewer
        self._conversations: dict[str, Conversation] = {}
        self._stopping = False

    async def Session(  # type: ignore[override]  # one coroutine that reads and writes its context
        self, _: AsyncIterator[SessionRequest], context: Context
    ) -> None:
        who = caller(context)
        facts = self._fleet.world.machines[who.machine_id]
        if (older := self._conversations.get(facts.id)) and older.task:
            older.end("a younger stream of the same machine took its place")
            older.task.cancel()
            await asyncio.wait([older.task])
        known = await self._fleet.read(self._known, facts)
        session = Session(
            known,
            name=f"{self._fleet.world.epoch}-{secrets.token_hex(6)}",
            epoch=self._fleet.world.epoch,
            peer=_address(context.peer()),
            interval_s=self._fleet.settings.config.vitals_interval_s,
        )
        conversation = Conversation(self._fleet, session, context, asyncio.current_task())
        self._conversations[facts.id] = conversation
        try:
            if not self._stopping:
                await conversation.run()
        finally:
            if self._conversations.get(facts.id) is conversation:
                del self._conversations[facts.id]
            conversation.end("its stream broke")

    async def Renew(
        self, request: RenewRequest, context: grpc.aio.ServicerContext[RenewRequest, RenewResponse]
    ) -> RenewResponse:
        return RenewResponse(credentials=await self._renewer(caller(context), request.csr))

    async def cut_off(self, machine_id: str, because: str) -> None:
        """End the stream of one machine now."""
        conversation = self._conversations.get(machine_id)
        if conversation and conversation.task:
            await conversation.dismiss(because, 60.0)
            conversation.task.cancel()

    async def stop(self) -> None:
        """Dismiss everybody; they come back spread over a time that grows with their number."""
        self._stopping = True
        spread_s = max(1.0, len(self._conversations) / 500)
        conversations = list(self._conversations.values())
        await asyncio.gather(
            *(one.dismiss("the provisioner is stopping", random.uniform(0.5, 0.5 + spread_s)) for one in conversations)  # noqa: S311
        )
        for one in conversations:
            one.end("the provisioner stopped")

    @property
    def streams(self) -> int:
        return len(self._conversations)

    def _known(self, facts: Facts) -> Known:
        row = self._fleet.store.vitals(facts.id)
        return Known(
            machine_id=facts.id,
            run_id=row.run_id if row else b"",
            sequence=row.sequence if row else 0,
            vitals=Vitals.FromString(row.vitals) if row else Vitals(),
            problems=Problems.FromString(row.problems) if row else Problems(),
            digest=facts.inventory_digest,
            digests=frozenset(entry.digest for entry in self._fleet.store.history(facts.id)),
        )


def _noteworthy(facts: Facts, changes: Sequence[Change]) -> list[Change]:
    noted: list[Change] = []
    for change in changes:
        if isinstance(change, Met):
            noted += on_meeting(facts, change)
        elif isinstance(change, InventoryKept):
            noted += on_inventory(facts, change)
    return noted


def _address(peer: str) -> str:
    """'ipv4:127.0.0.1:41234' -> '127.0.0.1'"""
    return peer.partition(":")[2].rpartition(":")[0].strip("[]").replace("%5B", "").replace("%5D", "") or peer


def _ignore(done: "asyncio.Future[list[int]]") -> None:
    """An error was logged by the writer; nobody waits for this one."""
    done.cancelled() or done.exception()
