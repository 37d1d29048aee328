"""A machine's certificate is taken back while it is used: at any moment of a stream's life, with the provisioner as it
runs. Afterwards nothing of it stands, and nothing of it is let in.
"""

import asyncio
import contextlib
from pathlib import Path

import grpc
import pytest

from bedplate.v1 import fleet_pb2 as pb
from bedplate.v1.fleet_pb2_grpc import FleetStub
from bedplate.v1.uplink_pb2 import Hello, RenewRequest, SessionRequest, SessionResponse
from bedplate.v1.uplink_pb2_grpc import UplinkStub
from provisioner.world import Accepted, Asked
from tests.doors import NOW, dial, machine, person
from tests.enrolment_desk import csr_of
from tests.test_every_door import Site, site

LETTERS = "abcdefghijklmnopqrstuvwxyz"


async def enrolled(here: Site, name: str) -> None:
    await here.fleet.write(
        [Asked(name, 1, name.encode().ljust(32), b"", name, "", "", "t-1", "", NOW), Accepted(name, NOW)]
    )


async def reads_to_its_end(stream: grpc.aio.StreamStreamCall[SessionRequest, SessionResponse]) -> None:
    """A peer that says hello, and then reads and never sends again."""
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError):
        await stream.write(SessionRequest(hello=Hello(run_id=b"r" * 16)))
        while isinstance(await stream.read(), SessionResponse):
            pass


async def reason(call: grpc.aio.UnaryUnaryCall[RenewRequest, object]) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {(error.details() or '').split(':')[0]}"
    return "renewed"


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["RevokeMachine", "ForgetMachine"])
def test_at_whatever_moment_of_its_stream_a_machine_is_turned_out_nothing_of_it_stands_afterwards(
    tmp_path: Path, verb: str
) -> None:
    """Each machine is turned out some turns of the loop later than the one before: before, in and after its opening."""

    async def main() -> None:
        async with site(tmp_path) as here, contextlib.AsyncExitStack() as channels:
            admin = FleetStub(
                await channels.enter_async_context(dial(here.main, here.ca, person(here.ca, "ada", "admin")))
            )
            request = getattr(pb, f"{verb}Request")
            for turns, letter in enumerate(LETTERS):
                name = f"m-{letter}{'q' * 7}"
                await enrolled(here, name)
                link = UplinkStub(
                    await channels.enter_async_context(dial(here.main, here.ca, machine(here.ca, name, 1)))
                )
                assert await reason(link.Renew(RenewRequest(csr=csr_of()))) == "renewed", "the connection stands"
                stream = link.Session()
                reader = asyncio.create_task(reads_to_its_end(stream))
                for _ in range(turns * 4):
                    await asyncio.sleep(0)
                await getattr(admin, verb)(request(machine=name, request_id=name))
                async with asyncio.timeout(10):
                    await asyncio.wait([reader])
                    assert await stream.code() in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.OK}
                assert (await reason(link.Renew(RenewRequest(csr=csr_of())))).startswith("PERMISSION_DENIED")
                facts = here.fleet.world.machines[name]
                assert facts.revoked or facts.forgotten_at is not None

    asyncio.run(main())


@pytest.mark.slow
def test_a_stream_that_stands_and_never_sends_is_told_why_it_ends(tmp_path: Path) -> None:
    async def main() -> None:
        async with site(tmp_path) as here, contextlib.AsyncExitStack() as channels:
            admin = FleetStub(
                await channels.enter_async_context(dial(here.main, here.ca, person(here.ca, "ada", "admin")))
            )
            names = ["m-xxxxxxxx", "m-yyyyyyyy"]
            streams = []
            for name in names:
                await enrolled(here, name)
                link = UplinkStub(
                    await channels.enter_async_context(dial(here.main, here.ca, machine(here.ca, name, 1)))
                )
                streams.append(link.Session())
                await streams[-1].write(SessionRequest(hello=Hello(run_id=b"r" * 16)))
                assert isinstance(await streams[-1].read(), SessionResponse)
            for name, stream in zip(names, streams, strict=True):
                await admin.RevokeMachine(pb.RevokeMachineRequest(machine=name, request_id=name))
                heard = ""
                async with asyncio.timeout(10):
                    while isinstance(answer := await stream.read(), SessionResponse):
                        heard = answer.dismissal.because
                assert heard == "this machine's certificate was revoked"

    asyncio.run(main())
