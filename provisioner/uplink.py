"""The gRPC edge where agents come in: who has a stream, and what is known as it begins.

Rule: a machine has one stream; a younger one ends the older, whose last facts are submitted before it begins.
"""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import grpc

from bedplate.v1.enrolment_pb2 import Credentials
from bedplate.v1.uplink_pb2 import RenewRequest, RenewResponse, SessionRequest
from bedplate.v1.uplink_pb2_grpc import UplinkServicer as Servicer
from provisioner.access import Caller, caller, standing
from provisioner.conversation import RETRY_S, Context, Conversation
from provisioner.errors import BedplateError
from provisioner.fleet import Fleet
from provisioner.limits import paced
from provisioner.pki import MachineIdentity
from provisioner.ports import host_of
from provisioner.session import Known, Session
from provisioner.world import Facts

HELLO_S = 10.0  # a stream on which nobody says hello for so long is nobody's
STOP_S = 1.5
Talk = Session  # in the servicer that name is a method's
Renewer = Callable[[Caller, bytes], Awaitable[Credentials]]
Renewal = Callable[[Facts, bytes], float | None]  # of a machine by a certificate of that issuer: renew within, seconds


class UplinkServicer(Servicer):
    """bedplate.v1.Uplink."""

    def __init__(
        self, fleet: Fleet, renewer: Renewer, *, hello_s: float = HELLO_S, renewal: Renewal = lambda *_: None
    ) -> None:
        self._fleet = fleet
        self._renewer = renewer
        self._renewal = renewal
        self._hello_s = hello_s
        self._conversations: dict[str, Conversation] = {}
        self._stopping = False
        config = fleet.settings.config
        self._pace = paced(config.machine_messages_per_s, config.machine_bytes_per_s)

    async def Session(  # type: ignore[override]  # one coroutine that reads and writes its context
        self, _: AsyncIterator[SessionRequest], context: Context
    ) -> None:
        who = caller(context)
        task, pace = asyncio.current_task(), self._pace
        conversation = Conversation(self._fleet, who.machine_id, context, task, pace, who.incarnation, who.by.issuer)
        older = self._conversations.get(who.machine_id)
        self._conversations[who.machine_id] = conversation  # before anything is awaited: the next one finds this one
        try:
            await conversation.run(lambda: self._begin(who, older, context), self._hello_s)
        finally:
            if self._conversations.get(who.machine_id) is conversation:
                del self._conversations[who.machine_id]
            conversation.end()
            await conversation.flushed()

    async def Renew(
        self, request: RenewRequest, context: grpc.aio.ServicerContext[RenewRequest, RenewResponse]
    ) -> RenewResponse:
        return RenewResponse(credentials=await self._renewer(caller(context), request.csr))

    async def cut_off(self, machine_id: str, because: str) -> None:
        """End the stream of one machine now, unless it is of the life that the machine is in: that is a younger one."""
        conversation = self._conversations.get(machine_id)
        if conversation and standing(MachineIdentity(machine_id, conversation.incarnation), self._fleet.world):
            conversation.cut(because, 60.0)

    async def stop(self) -> None:
        """Dismiss everybody; they come back spread over a time that grows with their number."""
        self._stopping = True
        spread_s = max(1.0, len(self._conversations) / 500)
        conversations = list(self._conversations.values())
        for one in conversations:
            one.cut("the provisioner is stopping", random.uniform(0.5, 0.5 + spread_s))  # noqa: S311
        if tasks := [one.task for one in conversations if one.task]:
            await asyncio.wait(tasks, timeout=STOP_S)
        for one in conversations:
            one.end()

    @property
    def streams(self) -> int:
        return len(self._conversations)

    @property
    def conversations(self) -> Mapping[str, Conversation]:
        return self._conversations

    async def _begin(self, who: Caller, older: Conversation | None, context: Context) -> Talk:
        """The session, in the state that the older stream has left: ended, and all that it submitted written."""
        if older:
            older.lose()  # its machine has given it up: had it said so, it would be over
            older.cut("a younger stream of the same machine took its place", RETRY_S)
            await older.wait_over()
        if self._stopping:
            raise BedplateError("the provisioner is stopping")
        await asyncio.shield(self._fleet.submit((), can_wait=True))
        world = self._fleet.world
        if refused := standing(MachineIdentity(who.machine_id, who.incarnation), world):
            raise refused  # it was forgotten meanwhile
        facts = world.machines[who.machine_id]
        known = await self._fleet.read(self._known, facts)
        return Session(
            known,
            name=f"{world.epoch}-{secrets.token_hex(6)}",
            epoch=world.epoch,
            peer=host_of(context.peer()),
            interval_s=self._fleet.settings.config.vitals_interval_s,
            issuer=who.by.issuer,
            renew_within_s=self._renewal(facts, who.by.issuer),
        )

    def _known(self, facts: Facts) -> Known:
        row = self._fleet.store.vitals(facts.id)
        return Known(
            machine_id=facts.id,
            run_id=row.run_id if row else b"",
            sequence=row.sequence if row else 0,
            vitals=row.vitals if row else b"",
            problems=row.problems if row else b"",
            digest=facts.inventory_digest,
            digests=frozenset(entry.digest for entry in self._fleet.store.history(facts.id)),
        )
