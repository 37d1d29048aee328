"""A join token is revoked while somebody comes in by it: once its revocation is answered, nobody comes in by it later.

And who comes in at the same moment by another one hears nothing of that.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from bedplate.v1 import fleet_pb2 as pb
from bedplate.v1.enrolment_pb2 import EnrolResponse
from bedplate.v1.enrolment_pb2_grpc import EnrolmentStub
from bedplate.v1.fleet_pb2_grpc import FleetStub
from provisioner import tokens
from provisioner.access import RefusedError
from provisioner.enrolment import ROUND, EnrolmentServicer
from provisioner.fleet import Fleet
from provisioner.world import Asked, Noted, TokenRevoked
from tests.doors import NOW, dial, person
from tests.enrolment_desk import asking, minted_in, showing
from tests.served import served
from tests.test_every_door import Site, site
from tests.test_revoked_at_once import Successor, enrolled, held

SAID = (
    "cannot let this machine in: it came in again, was revoked or forgotten, or its join token was revoked, while that "
    "was being decided; try again"
)


async def wait_in_line(fleet: Fleet, wishes: int) -> None:
    """Until so many writes wait behind the one that is under way."""
    async with asyncio.timeout(10):
        while len(fleet._wishes) != wishes:  # noqa: ASYNC110 - they are on their way
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def revoking(here: Site, folder: Path, admin: FleetStub, token_id: str) -> AsyncIterator[None]:
    """The store is held while somebody revokes it: that waits to be written, and is so before what comes later."""
    with held(folder / "bedplate.db"):
        here.fleet.submit([Noted("token.created", "", "", "something is under way", "provisioner", NOW)])
        await wait_in_line(here.fleet, 0)
        revoked = asyncio.ensure_future(admin.RevokeToken(pb.RevokeTokenRequest(token_id=token_id, request_id="once")))
        await wait_in_line(here.fleet, 1)
        yield
    assert (await revoked).token.HasField("revoked_at")


@pytest.mark.parametrize("bound", [False, True])
def test_nobody_comes_in_by_a_token_whose_revocation_was_on_its_way_before(tmp_path: Path, *, bound: bool) -> None:
    """By one of `token create`, and by one of `machine rekey`."""

    async def main() -> None:
        async with site(tmp_path) as here, contextlib.AsyncExitStack() as channels:
            who = person(here.ca, "ada", "admin")
            admin = FleetStub(await channels.enter_async_context(dial(here.main, here.ca, who)))
            door = EnrolmentStub(await channels.enter_async_context(dial(here.door, here.ca, (None, None))))
            await enrolled(here, Successor.NAME, showing().SerializeToString())
            if bound:
                made = await admin.RekeyMachine(pb.RekeyMachineRequest(machine=Successor.NAME, request_id="r-1"))
            else:
                made = await admin.CreateToken(pb.CreateTokenRequest(request_id="r-1"))
            said = tokens.decode(made.join_token)
            shown = showing() if bound else showing("gpu-02", "another")
            request = asking(evidence=shown, token_id=said.token_id, token_secret=said.secret)
            before = here.fleet.world.machines
            async with revoking(here, tmp_path, admin, said.token_id):
                coming = asyncio.ensure_future(door.Enrol(request))
                await wait_in_line(here.fleet, 2)
            with pytest.raises(grpc.aio.AioRpcError) as first:
                await coming
            assert (first.value.code(), first.value.details()) == (grpc.StatusCode.UNAVAILABLE, SAID)
            with pytest.raises(grpc.aio.AioRpcError) as again:
                await door.Enrol(request)
            assert again.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert f"the join token {said.token_id} was revoked at " in (again.value.details() or "")
            assert here.fleet.world.machines == before
            entries = (await admin.ListAudit(pb.ListAuditRequest())).entries
            assert [one.method for one in entries][1:] == ["RevokeToken"]

    asyncio.run(main())


def test_one_whose_token_is_revoked_meanwhile_keeps_out_none_of_those_that_came_with_it(tmp_path: Path) -> None:
    """A whole round, decided before it was written that one of their tokens is revoked."""

    async def main() -> None:
        async with asyncio.timeout(30), served(tmp_path) as here:
            door, good = EnrolmentServicer(here.fleet, here.ca), await minted_in(here.fleet, uses=0)
            stolen = await minted_in(here.fleet)
            asks = [asking(good, evidence=showing(f"gpu-{number}", f"S{number}")) for number in range(ROUND)]
            asks[17] = asking(stolen, evidence=showing("gpu-17", "S17"))
            with held(tmp_path / "bedplate.db"):
                here.fleet.submit([TokenRevoked(stolen.token_id, here.clock.now)])
                await wait_in_line(here.fleet, 0)
                round_ = asyncio.gather(*map(door.enrol, asks), return_exceptions=True)
                await wait_in_line(here.fleet, 1)
                (wish,) = here.fleet._wishes
                assert sum(isinstance(one, Asked) for one in wish.changes) == ROUND, "they are written together"
            answers = await round_
            refused = answers.pop(17)
            assert isinstance(refused, RefusedError)
            assert refused.reason == "TOKEN_REVOKED"
            let_in = {one.credentials.machine_id for one in answers if isinstance(one, EnrolResponse)}
            assert len(let_in) == ROUND - 1
            assert {one.id for one in here.fleet.world.known} == let_in
            entries, _ = here.fleet.store.audit(limit=2 * ROUND)
            assert {one.machine_id for one in entries} == let_in
            assert len(entries) == ROUND - 1

    asyncio.run(main())
