"""A machine's certificate is taken back while it is used, or another key takes its place: at any moment of a stream's
life, with the provisioner as it runs. Afterwards nothing of it stands, and nothing of it is let in.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from bedplate.v1 import fleet_pb2 as pb
from bedplate.v1.enrolment_pb2 import EnrolResponse
from bedplate.v1.enrolment_pb2_grpc import EnrolmentStub
from bedplate.v1.fleet_pb2_grpc import FleetStub
from bedplate.v1.uplink_pb2 import Goodbye, Hello, RenewRequest, SessionRequest, SessionResponse
from bedplate.v1.uplink_pb2_grpc import UplinkStub
from provisioner import tokens
from provisioner.pki import PrivateKey, key_pem, new_key
from provisioner.world import Accepted, Asked
from tests.doors import NOW, Pair, dial, machine, person
from tests.enrolment_desk import asking, csr_of, showing
from tests.test_every_door import Site, site

LETTERS = "abcdefghijklmnopqrstuvwxyz"


Stream = grpc.aio.StreamStreamCall[SessionRequest, SessionResponse]


async def enrolled(here: Site, name: str, evidence: bytes = b"") -> None:
    await here.fleet.write(
        [Asked(name, 1, name.encode().ljust(32), evidence, name, "", "", "t-1", "", NOW), Accepted(name, NOW)]
    )


async def met(address: str, here: Site, pair: Pair, channels: contextlib.AsyncExitStack) -> Stream:
    """A stream that stands, and is quiet."""
    link = UplinkStub(await channels.enter_async_context(dial(address, here.ca, pair)))
    stream: Stream = link.Session()
    await stream.write(SessionRequest(hello=Hello(run_id=b"r" * 16)))
    assert isinstance(await stream.read(), SessionResponse)
    return stream


async def last_word(stream: Stream) -> str:
    """Why it is dismissed, once it ends."""
    heard = ""
    async with asyncio.timeout(10):
        while isinstance(answer := await stream.read(), SessionResponse):
            heard = answer.dismissal.because
    return heard


async def reads_to_its_end(stream: Stream) -> None:
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


@pytest.mark.parametrize("verb", ["RevokeMachine", "ForgetMachine"])
def test_a_stream_ends_though_whoever_turned_its_machine_out_hung_up_while_that_was_written(
    tmp_path: Path, verb: str
) -> None:
    async def main() -> None:
        async with site(tmp_path) as here, contextlib.AsyncExitStack() as channels:
            channel = await channels.enter_async_context(dial(here.main, here.ca, person(here.ca, "ada", "admin")))
            admin, name = FleetStub(channel), "m-xxxxxxxx"
            await enrolled(here, name)
            stream = await met(here.main, here, machine(here.ca, name, 1), channels)
            await here.fleet.write(())
            with held(tmp_path / "bedplate.db"):
                call = getattr(admin, verb)(getattr(pb, f"{verb}Request")(machine=name, request_id="once"))
                async with asyncio.timeout(10):
                    while not any(task.get_name() == f"{verb} once" for task in asyncio.all_tasks()):  # noqa: ASYNC110 - it is on its way
                        await asyncio.sleep(0)
                call.cancel()
                await admin.ListMachines(pb.ListMachinesRequest())  # on the same connection: the hanging up came first
            assert "machine" in await last_word(stream)

    asyncio.run(main())


@contextlib.contextmanager
def held(store: Path) -> Iterator[None]:
    """Nobody writes to it meanwhile: what is to be written waits."""
    with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield
        holder.execute("ROLLBACK")


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
                streams.append(await met(here.main, here, machine(here.ca, name, 1), channels))
            for name, stream in zip(names, streams, strict=True):
                await admin.RevokeMachine(pb.RevokeMachineRequest(machine=name, request_id=name))
                assert await last_word(stream) == "this machine's certificate was revoked"

    asyncio.run(main())


class Successor:
    """A host that shows what `m-xxxxxxxx` shows, with a key of its own."""

    NAME = "m-xxxxxxxx"

    def __init__(self, here: Site, channels: contextlib.AsyncExitStack) -> None:
        self.here, self.channels = here, channels
        self.key: PrivateKey = new_key()

    async def asks(self, join_token: str = "") -> EnrolResponse:
        """Without a token it is known by its key."""
        door = EnrolmentStub(await self.channels.enter_async_context(dial(self.here.door, self.here.ca, (None, None))))
        said = tokens.decode(join_token) if join_token else None
        shown = {"token_id": said.token_id, "token_secret": said.secret} if said else {}
        answer: EnrolResponse = await door.Enrol(asking(key=self.key, evidence=showing(), **shown))
        return answer

    async def meets(self, answer: EnrolResponse) -> Stream:
        assert (answer.credentials.machine_id, answer.credentials.incarnation) == (self.NAME, 2)
        pair = answer.credentials.certificate_pem, key_pem(self.key)
        return await met(self.here.main, self.here, pair, self.channels)


@contextlib.asynccontextmanager
async def succeeded(folder: Path) -> AsyncIterator[tuple[FleetStub, Stream, Successor]]:
    """An operator, the open stream of a machine, and who is to be that machine next."""
    async with site(folder) as here, contextlib.AsyncExitStack() as channels:
        who = person(here.ca, "olga", "operator")
        olga = FleetStub(await channels.enter_async_context(dial(here.main, here.ca, who)))
        await enrolled(here, Successor.NAME, showing().SerializeToString())
        older = await met(here.main, here, machine(here.ca, Successor.NAME, 1), channels)
        yield olga, older, Successor(here, channels)


async def stands(stream: Stream) -> None:
    """It ends by its own goodbye, and nobody has dismissed it before."""
    await stream.write(SessionRequest(goodbye=Goodbye(because="that is all")))
    assert await last_word(stream) == ""
    assert await stream.code() is grpc.StatusCode.OK


@pytest.mark.slow
def test_the_quiet_stream_of_a_machine_ends_once_another_key_is_let_in_as_that_machine(tmp_path: Path) -> None:
    async def main() -> None:
        async with succeeded(tmp_path) as (olga, older, successor):
            made = await olga.RekeyMachine(pb.RekeyMachineRequest(machine=Successor.NAME, request_id="r-1"))
            answer = await successor.asks(made.join_token)
            assert await last_word(older) == (
                "another key was let in as this machine; its older certificate is worth nothing"
            )
            younger = await successor.meets(answer)
            await successor.asks()  # as one does whose answer was lost
            await stands(younger)

    asyncio.run(main())


@pytest.mark.slow
def test_the_quiet_stream_of_a_machine_whose_place_another_takes_ends_once_a_person_has_said_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with succeeded(tmp_path) as (olga, older, successor):
            made = await olga.CreateToken(pb.CreateTokenRequest(request_id="r-1"))
            waits = (await successor.asks(made.join_token)).pending.machine_id
            asked = pb.AcceptMachineRequest(machine=waits, request_id="r-2", replaces=Successor.NAME)
            await olga.AcceptMachine(asked)
            assert await last_word(older) == (
                "another host took this machine's place; its certificate is worth nothing"
            )
            younger = await successor.meets(await successor.asks())
            await olga.AcceptMachine(asked)  # as one does whose answer was lost
            await stands(younger)

    asyncio.run(main())
