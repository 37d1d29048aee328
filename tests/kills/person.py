"""A person with a script: writes of every kind, one after the other, each until it is answered.

Rule: a write that was not answered is asked again under the same request id; it may have come to be or not, and is
answered once.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import grpc

from bedplate.v1 import fleet_pb2 as pb
from bedplate.v1.enrolment_pb2 import JoinToken
from bedplate.v1.fleet_pb2_grpc import FleetStub
from nodeagent.meeting import decode
from tests.kills.newcomer import LIMIT_S, OPTIONS, Newcomer
from tests.kills.records import Answered, Records

PACE_S = 0.04
AGAIN_S = 0.05
UNANSWERED = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}


@dataclass(slots=True)
class Person:
    """`guest` makes the newcomers that are let in, revoked and forgotten."""

    address: str
    credentials: grpc.ChannelCredentials
    guest: Callable[[str], Newcomer]
    records: Records
    random: Random
    _count: int = 0
    _tokens: list[str] = field(default_factory=list)  # that may be revoked
    _review: JoinToken | None = None

    async def live(self) -> None:
        """Until cancelled."""
        while True:
            work = self.random.choice((self._make, self._make, self._make, self._end, self._visit))
            await work()
            await asyncio.sleep(PACE_S)

    async def call(self, method: str, request: Any) -> Any:
        """Once; grpc.RpcError where nobody answers."""
        async with grpc.aio.secure_channel(self.address, self.credentials, OPTIONS) as channel:
            return await getattr(FleetStub(channel), method)(request, timeout=LIMIT_S)

    async def _write(self, method: str, **fields: Any) -> Any:
        self._count += 1
        request_id = f"r-{self._count}"
        request = getattr(pb, f"{method}Request")(request_id=request_id, **fields)
        answer = await self._until_answered(lambda: self.call(method, request))
        self.records.answered[request_id] = Answered(method, request, answer.SerializeToString(deterministic=True))
        return answer

    async def _until_answered(self, ask: Callable[[], Any]) -> Any:
        while True:
            try:
                return await ask()
            except grpc.aio.AioRpcError as error:
                if error.code() not in UNANSWERED:
                    self.records.broken.append(f"a write is refused: {error.code().name}: {error.details()}")
            await asyncio.sleep(AGAIN_S)

    async def _make(self) -> None:
        answer = await self._write("CreateToken", uses_allowed=self.random.randrange(3))
        self._tokens.append(answer.token.token_id)

    async def _end(self) -> None:
        if self._tokens:
            await self._write("RevokeToken", token_id=self._tokens.pop())

    async def _visit(self) -> None:
        """A host comes, waits, is let in, gets a token for another key, is revoked, and goes."""
        if self._review is None:
            answer = await self._write("CreateToken", uses_allowed=0, review=True)
            self._review = decode(answer.join_token)
        guest = self.guest(f"guest-{self._count}")
        pending = (await self._until_answered(lambda: guest.ask(self._review))).pending
        name = pending.machine_id
        await self._write("AcceptMachine", machine=name)
        held = (await self._until_answered(lambda: guest.ask(None))).credentials
        if held.machine_id != name:
            self.records.broken.append(f"{name} was let in, and its certificate is for {held.machine_id or 'nobody'}")
        for method in self.random.sample(("RekeyMachine", "RevokeMachine"), self.random.randrange(3)):
            await self._write(method, machine=name)
        await self._write("ForgetMachine", machine=name)
