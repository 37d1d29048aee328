"""A provisioner's door, and hosts that come to it with what their hardware shows."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from bedplate.v1 import fleet_pb2 as pb
from bedplate.v1.enrolment_pb2 import EnrolResponse, Evidence
from bedplate.v1.snapshot_pb2 import Identity
from provisioner.access import standing
from provisioner.enrolment import EnrolmentServicer
from provisioner.pki import MachineIdentity, PrivateKey
from provisioner.tokens import decode
from tests.enrolment_desk import asking
from tests.served import Served, served

OLD_HOST = {
    "hostname": "gpu-07",
    "product_serial": "J1234567",
    "product_uuid": "4c4c4544-0051-3610-8052-b4c04f4d3232",
    "board_serial": "B7654321",
    "chassis_serial": "C1122334",
    "bmc_mac": "b0:7b:25:00:00:01",
}
OLD_MACS = ("b0:7b:25:00:00:10", "b0:7b:25:00:00:11")
ADDRESS = "10.0.0.7"
NEW_BOARD = {"product_uuid": "99999999-0051-3610-8052-b4c04f4d3232", "board_serial": "B9999999"}


def evidence(macs: tuple[str, ...] = (), **identity: str) -> bytes:
    return Evidence(identity=Identity(**identity), permanent_macs=macs).SerializeToString(deterministic=True)


@dataclass
class Yard:
    """A provisioner, and hosts that come to its door."""

    here: Served
    door: EnrolmentServicer
    requests: int = 0

    async def token(self, uses: int = 100) -> str:
        made = await self.here.stub().CreateToken(pb.CreateTokenRequest(request_id=self.intent(), uses_allowed=uses))
        return made.join_token

    async def come(
        self, key: PrivateKey, join_token: str, macs: tuple[str, ...] = OLD_MACS, **identity: str
    ) -> EnrolResponse:
        said = decode(join_token)
        shown = Evidence(identity=Identity(**(OLD_HOST | identity)), permanent_macs=macs)
        request = asking(key=key, evidence=shown, token_id=said.token_id, token_secret=said.secret)
        return await self.door.enrol(request, ADDRESS)

    def intent(self) -> str:
        self.requests += 1
        return f"r-{self.requests}"

    def good(self, machine_id: str, incarnation: int) -> bool:
        return standing(MachineIdentity(machine_id, incarnation), self.here.fleet.world) is None

    async def accept(self, newcomer: str, replaces: str = "") -> pb.Machine:
        request = pb.AcceptMachineRequest(machine=newcomer, request_id=self.intent(), replaces=replaces)
        return (await self.here.stub().AcceptMachine(request)).machine

    async def kinds(self) -> list[str]:
        return [event.kind for event in (await self.here.stub().ListEvents(pb.ListEventsRequest())).events]


def story(folder: Path, tell: Callable[[Yard], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20), served(folder) as here:
            await tell(Yard(here, EnrolmentServicer(here.fleet, here.ca)))

    asyncio.run(whole())
