"""A light machine: it enrols, speaks without pause, and remembers what it was promised.

Rule: its dials are a function of the delta's number, so that whoever knows the number knows what must be stored.
"""

import asyncio
import hashlib
import os
from dataclasses import dataclass, field
from typing import Any

import grpc

from bedplate.v1.enrolment_pb2 import Credentials, JoinToken
from bedplate.v1.uplink_pb2 import Delta, Hello, InventoryBody, SessionRequest, SessionResponse, Welcome
from bedplate.v1.uplink_pb2_grpc import UplinkStub
from tests.kills.newcomer import Newcomer, serial_number_of
from tests.kills.records import EVERY, Records, Told, inventory_of, vitals_of

PACE_S = 0.05
AGAIN_S = 0.05
YOUNG = 60  # deltas, after which it asks for another certificate


@dataclass(slots=True)
class Machine:
    newcomer: Newcomer
    token: JoinToken
    address: str
    records: Records
    open_in: int = 0  # the epoch in which its stream is open
    _sequence: int = 0
    _epoch: int = 0
    _run_id: bytes = field(default_factory=lambda: os.urandom(16))
    _told: Told | None = None
    _bodies: dict[bytes, int] = field(default_factory=dict)  # digest -> the last delta before its body went up

    async def live(self) -> None:
        """Until cancelled: whatever fails is tried again."""
        while True:
            try:
                await self._talk(await self._enrol())
            except (grpc.RpcError, asyncio.InvalidStateError):
                pass
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) and task.cancelling():
                    raise  # otherwise it is the stream that was cancelled under us
            self.open_in = 0
            await asyncio.sleep(AGAIN_S)

    def _must(self, true: bool, what: str) -> None:  # noqa: FBT001 - as `assert`
        if not true:
            self.records.broken.append(f"{self.newcomer.name}: {what}")

    async def _enrol(self) -> Credentials:
        answer = await self.newcomer.ask(None if self._told else self.token)
        held, told = answer.credentials, self._told
        self._must(answer.HasField("credentials"), f"it is not let in: {answer.pending.because}")
        if told is None:
            told = Told(held.machine_id, held.incarnation, self.newcomer.key_sha256, self._run_id)
            self._told = self.records.told[self.newcomer.name] = told
        who = (held.machine_id, held.incarnation)
        self._must(who == (told.machine_id, told.incarnation), f"it was {told.machine_id}, and is {who} now")
        told.serial_numbers.append(serial_number_of(held))
        return held

    async def _talk(self, held: Credentials) -> None:
        async with self.newcomer.channel(self.address, held) as channel:
            call = UplinkStub(channel).Session()
            digest = hashlib.sha256(inventory_of(self.newcomer.name, self._sequence)).digest()
            hello = Hello(run_id=self._run_id, sequence=self._sequence, inventory_digest=digest, epoch=self._epoch)
            await call.write(SessionRequest(hello=hello))
            last = self._sequence + YOUNG
            reader = asyncio.create_task(self._listen(call), name=f"reader of {self.newcomer.name}")
            try:
                while not reader.done() and self._sequence < last:
                    await asyncio.sleep(PACE_S)
                    if self.open_in:
                        await call.write(SessionRequest(delta=self._delta()))
            finally:
                reader.cancel()
                await asyncio.wait([reader])

    def _delta(self) -> Delta:
        self._sequence += 1
        digest = hashlib.sha256(inventory_of(self.newcomer.name, self._sequence)).digest()
        vitals = vitals_of(self._sequence)
        return Delta(sequence=self._sequence, whole=True, vitals=vitals, inventory_digest=digest)

    async def _listen(self, call: Any) -> None:
        while isinstance(heard := await call.read(), SessionResponse):
            match heard.WhichOneof("message"):
                case "welcome":
                    self._welcomed(heard.welcome)
                case "ack":
                    self._acknowledged(heard.ack.sequence)
                case "want_inventory":
                    await self._show(call, heard.want_inventory.digest)
                case _:
                    return

    def _welcomed(self, welcome: Welcome) -> None:
        told = self._told
        assert told is not None
        self._must(welcome.epoch >= self._epoch, f"epoch {welcome.epoch} after {self._epoch}")
        stored, most = welcome.stored_sequence, self._sequence
        self._must(told.acknowledged <= stored <= most, f"{stored} stored of {told.acknowledged} to {most}")
        self.open_in = self._epoch = welcome.epoch
        self.records.epoch = max(self.records.epoch, welcome.epoch)

    def _acknowledged(self, sequence: int) -> None:
        """What was submitted before that delta is stored too."""
        assert self._told is not None
        self._must(sequence <= self._sequence, f"{sequence} are acknowledged, and {self._sequence} were sent")
        self._told.acknowledged = max(self._told.acknowledged, sequence)
        self._told.inventories |= {digest for digest, before in self._bodies.items() if sequence > before}

    async def _show(self, call: Any, digest: bytes) -> None:
        assert self._told is not None
        self._must(digest not in self._told.inventories, "an inventory is asked for that was stored")
        for sequence in range(self._sequence, -1, -EVERY):
            body = inventory_of(self.newcomer.name, sequence)
            if hashlib.sha256(body).digest() == digest:
                await call.write(SessionRequest(inventory=InventoryBody(digest=digest, inventory=body)))
                self._bodies.setdefault(digest, self._sequence)
