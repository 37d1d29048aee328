"""Bytes that nobody should send: to every decoder, to every method over its wire, and in the files of a machine."""

import asyncio
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from bedplate.v1 import enrolment_pb2, fleet_pb2, node_pb2, uplink_pb2
from bedplate.v1.enrolment_pb2_grpc import EnrolmentStub
from bedplate.v1.snapshot_pb2 import Inventory, Snapshot
from nodeagent import session as agents
from nodeagent.host import replayed
from nodeagent.observe import scan
from nodeagent.page import page
from provisioner import onhost
from provisioner.pki import MachineIdentity, key_pem, new_key
from tests.edge import RUN, Edge, edge
from tests.enrolment_desk import Desk, asking, csr_of, minted_in
from tests.fuzz.decoders import DECODERS
from tests.fuzz.mutations import NASTY, filled, mutated
from tests.fuzz.run import many
from tests.served import present, served
from tests.shown_agent import serving

MACHINES = Path(__file__).parent / "machines"
INPUTS, CALLS, STREAMS, TREES = 250, 60, 200, 12
BUGS = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}  # what a server says that did not know what to say
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in (fleet_pb2, enrolment_pb2, uplink_pb2, node_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_reads_or_refuses_whatever_it_is_handed(name: str) -> None:
    assert [str(failure) for failure in many(name, 0, INPUTS)] == []


# -- over the wire -----------------------------------------------------------------------------------------------------


def _inputs(method: MethodDescriptor, count: int) -> list[bytes]:
    """Messages filled with anything; and each second one with some bytes changed."""
    kind, made = GetMessageClass(method.input_type), []
    for seed in range(count):
        random = Random(f"{method.full_name}/{seed}")  # noqa: S311 - a seed
        whole = filled(random, kind).SerializeToString()
        made.append(mutated(random, [whole]) if seed % 2 else whole)
    return made


async def _called(channel: grpc.aio.Channel, name: str, bodies: Sequence[bytes]) -> list[grpc.StatusCode]:
    """What each of these bytes was answered with."""
    method = METHODS[name]
    if method.server_streaming:
        calls = [channel.unary_stream(name)(body, timeout=1.0) for body in bodies]
        await asyncio.gather(*(call.read() for call in calls), return_exceptions=True)
        for call in calls:
            call.cancel()
    else:
        calls = [channel.unary_unary(name)(body, timeout=20.0) for body in bodies]
    return list(await asyncio.gather(*(call.code() for call in calls)))


def _of(service: str) -> list[str]:
    found = [name for name, method in METHODS.items() if method.containing_service.name == service]
    return [name for name in found if not METHODS[name].client_streaming]


@pytest.mark.slow
def test_every_method_of_every_service_is_met_here() -> None:
    met = [name for service in ("Fleet", "Enrolment", "Uplink", "NodeAgent") for name in _of(service)]
    assert {*met, "/bedplate.v1.Uplink/Session"} == set(METHODS)


async def _all_answer(channel: grpc.aio.Channel, service: str) -> None:
    for name in _of(service):
        bodies = _inputs(METHODS[name], CALLS)
        codes = await _called(channel, name, bodies)
        assert {(name, code, body[:200]) for code, body in zip(codes, bodies, strict=True) if code in BUGS} == set()


@pytest.mark.slow
def test_no_bytes_break_a_method_for_people(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def whole() -> None:
        async with served(tmp_path, [change for number in (1, 2) for change in present(number)]) as here:
            here.stub()
            await _all_answer(here.channels[0], "Fleet")

    asyncio.run(whole())
    onhost.verify(tmp_path / "bedplate.db", ())
    assert [record.message for record in caplog.records if record.exc_info] == []


@pytest.mark.slow
def test_no_bytes_break_the_door_for_newcomers_nor_a_renewal(caplog: pytest.LogCaptureFixture) -> None:
    async def whole() -> None:
        async with Desk() as desk:
            roots = grpc.ssl_channel_credentials(desk.ca.roots_pem)
            async with grpc.aio.secure_channel(desk.address, roots) as channel:
                await _all_answer(channel, "Enrolment")
            async with await _as_a_machine(desk) as channel:
                await _all_answer(channel, "Uplink")

    asyncio.run(whole())
    assert [record.message for record in caplog.records if record.exc_info] == []


async def _as_a_machine(desk: Desk) -> grpc.aio.Channel:
    """To the main port, with a certificate that was given at the door."""
    key, minted = new_key(), await minted_in(desk.book)
    roots = grpc.ssl_channel_credentials(desk.ca.roots_pem)
    async with grpc.aio.secure_channel(desk.address, roots) as channel:
        held = (await EnrolmentStub(channel).Enrol(asking(minted, key=key))).credentials
    mutual = grpc.ssl_channel_credentials(desk.ca.roots_pem, key_pem(key), held.certificate_pem)
    return grpc.aio.secure_channel(held.uplink_addresses[0], mutual)


@pytest.mark.slow
def test_no_bytes_break_the_agent_s_own_service(caplog: pytest.LogCaptureFixture) -> None:
    async def whole() -> None:
        async with serving() as (address, _), grpc.aio.insecure_channel(address) as channel:
            await _all_answer(channel, "NodeAgent")

    asyncio.run(whole())
    assert [record.message for record in caplog.records if record.exc_info] == []


@pytest.mark.slow
def test_no_stream_of_a_machine_breaks_the_provisioner_or_another_machine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def whole() -> None:
        async with edge(tmp_path) as here:
            other = await here.meet("m-bbbbbbbb")
            names = [f"m-{first}{second}aaaaaa" for first in "abcdefgh" for second in "bcdefgh"]
            await here.enrol(*names)
            for seed in range(STREAMS):
                async with _held_by(here, names[seed % len(names)]) as channel:
                    await _streamed(channel, seed)
            await other.say(delta=uplink_pb2.Delta(sequence=1, whole=True))
            await other.say(goodbye=uplink_pb2.Goodbye(because="done"))
            assert await other.end() == ""
            await here.fleet.write(())
            assert here.fleet.store.vitals("m-bbbbbbbb").sequence == 1

    asyncio.run(whole())
    assert [record.message for record in caplog.records if record.exc_info] == []


def _held_by(here: Edge, name: str) -> grpc.aio.Channel:
    key, now = new_key(), time.time()
    issued = here.ca.issue_machine(csr_of(key), MachineIdentity(name, 1), lifetime_s=3600, now=now)
    mutual = grpc.ssl_channel_credentials(here.ca.roots_pem, key_pem(key), issued.certificate_pem)
    return grpc.aio.secure_channel(here.address, mutual, [("grpc.use_local_subchannel_pool", 1)])


async def _streamed(channel: grpc.aio.Channel, seed: int) -> None:
    """A hello that is good or not, and some messages after it, to the end of the stream, whatever that is."""
    random = Random(seed)  # noqa: S311 - a seed
    call = channel.stream_stream("/bedplate.v1.Uplink/Session")()
    hello = uplink_pb2.Hello(run_id=RUN) if random.random() < 0.7 else filled(random, uplink_pb2.Hello)
    bodies = [uplink_pb2.SessionRequest(hello=hello).SerializeToString()]
    for _ in range(random.randrange(6)):
        whole = filled(random, uplink_pb2.SessionRequest)
        if whole.WhichOneof("message") == "delta" and random.random() < 0.8:
            whole.delta.sequence, whole.delta.whole = len(bodies), True
        body = whole.SerializeToString()
        bodies.append(mutated(random, [body]) if random.random() < 0.2 else body)
    try:
        for body in bodies:
            await call.write(body)
        await call.done_writing()
        async with asyncio.timeout(10):
            while isinstance(await call.read(), bytes):
                pass
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.code()


def test_no_message_of_a_provisioner_breaks_the_agent_s_session() -> None:
    for seed in range(600):
        random = Random(seed)  # noqa: S311 - a seed
        session = agents.Session(RUN, "1", random)
        snapshot = Snapshot()
        session.observe(snapshot, b"", b"d" * 32, 0.0)
        session.connected(1.0, Timestamp())
        try:
            if random.random() < 0.8:
                session.receive(uplink_pb2.SessionResponse(welcome=uplink_pb2.Welcome(epoch=1)), 1.0)
            for now in range(random.randrange(6)):
                body = filled(random, uplink_pb2.SessionResponse).SerializeToString()
                heard = uplink_pb2.SessionResponse.FromString(mutated(random, [body]) if seed % 2 else body)
                for request in session.receive(heard, float(now)):
                    request.SerializeToString()
                session.observe(snapshot, b"", b"e" * 32, float(now))
        except (agents.PeerError, DecodeError):
            session.lost("it broke the rules", 9.0)


# -- the files of a machine --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vm", "h100"])
def test_a_machine_whose_files_are_anything_is_scanned_with_problems(tmp_path: Path, model: str) -> None:
    root = shutil.copytree(MACHINES / model, tmp_path / model, symlinks=True)
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
    files = [path for path in files if path.name != "capture.json"]
    for seed in range(TREES):
        random = Random(f"{model}/{seed}")  # noqa: S311 - a seed
        spoilt = {path: path.read_bytes() for path in random.sample(files, min(len(files), 40))}
        for path, before in spoilt.items():
            path.write_bytes(mutated(random, [before, *NASTY]))
        snapshot = scan(replayed(root))
        assert page(snapshot)
        Inventory.FromString(snapshot.inventory.SerializeToString())
        assert not [problem for problem in snapshot.problems if "\n" in problem.detail], f"seed {seed}"
        for path, before in spoilt.items():
            path.write_bytes(before)
