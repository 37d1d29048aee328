"""What the other end of a conversation says to one of our programs, when it is not what it should be."""

import asyncio
import contextlib
import gzip
import json
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st

from bedplate.v1.enrolment_pb2 import EnrolResponse, Pending
from bedplate.v1.snapshot_pb2 import Snapshot
from bedplate.v1.uplink_pb2 import SessionResponse, Welcome
from nodeagent import probes
from nodeagent.enrolment import Newcomer
from nodeagent.errors import BedplateError
from nodeagent.host import live
from nodeagent.identity import Identity
from nodeagent.nvml.client import Client
from nodeagent.root import Root
from nodeagent.session import PeerError, Session
from nodeagent.uplink import Uplink
from provisioner import pki, post, tokens
from provisioner.bus import Broker, BusError, Message
from provisioner.config import Webhook
from tests.edge import RUN
from tests.fuzz.decoder import Decoder, ReadSoon, in_a_folder, in_a_loop, plain
from tests.fuzz.inputs import framed, misshapen, unframed
from tests.fuzz.messages import serialized
from tests.nvml import fake
from tests.outgoing import plain as plain_broker

WELCOME = SessionResponse(welcome=Welcome(epoch=1)).SerializeToString()

NVML = Path(__file__).parents[1] / "machines/h100/answers/nvml.json"
GPUS = ["0000:53:00.0", "0000:64:00.0"]
REPLIES = [
    {"answer": json.loads(NVML.read_bytes()), "stuck_s": 0.0},
    {"answer": {"gpus": [{"pci_address": GPUS[0], "uuid": "GPU-1", "celsius": 40.0}]}, "stuck_s": 0.0},
    {"unanswered": {"kind": "FAILED", "detail": "cannot ask the NVIDIA driver: x"}, "code": 18, "stuck_s": 61.0},
]
WILL = Message("bedplate/v1/provisioner/state", b"{}", "application/json")
PACKETS = (  # of a broker: CONNACK, PUBACK, PINGRESP, DISCONNECT, and a PUBLISH
    b"\x20\x06\x00\x00\x03\x21\x00\x14",
    b"\x40\x03\x00\x01\x10",
    b"\xd0\x00",
    b"\xe0\x02\x8e\x00",
    b"\x32\x08\x00\x01a\x00\x01\x00hi",
)
ANSWERS = (
    b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\n\r\nok",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"ok"),
)


def _packet(kind: int, body: bytes) -> bytes:
    return bytes((kind, len(body))) + body


def _session(body: bytes) -> None:
    """The agent's end, for which each message is one second."""
    session, snapshot = Session(RUN, "1", random.Random(1)), Snapshot()  # noqa: S311 - jitter
    session.observe(snapshot, b"", b"d" * 32, 0.0)
    session.connected(1.0, Timestamp())
    try:
        for now, one in enumerate(unframed(body), 1):
            for request in session.receive(SessionResponse.FromString(one), float(now)):
                request.SerializeToString()
            session.observe(snapshot, b"", b"e" * 32, float(now))
    finally:
        session.lost("it is over", 9.0)
        assert session.dial_at < 1e6


def _worker(body: bytes, folder: Path) -> None:
    """The NVML worker's client, and the probes that ask it. A worker says this to the first question, and ends."""
    machine, said = folder / "machine", folder / "said"
    if not machine.exists():
        fake.machine(machine, GPUS)
    said.write_bytes(body)
    client = Client(Root(machine), worker=("sh", "-c", 'read line; cat "$0"', str(said)), patience_s=0.0)
    host = live(client.doors(), root=Root(machine))
    try:
        answers = [probes.ask(probe, host.view()) for probe in probes.registry() if "gpu" in probe.name]
    finally:
        client.close()
    assert [one.detail for answer in answers for one in answer.problems if "\n" in one.detail] == []


@contextlib.asynccontextmanager
async def _saying() -> AsyncIterator[tuple[int, list[bytes]]]:
    """The port of somebody who says these bytes to whoever has said something, and hangs up."""
    said = [b""]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read(1 << 16)
            writer.write(said[0])
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], said


@contextlib.asynccontextmanager
async def _broker(_: Path) -> AsyncIterator[ReadSoon]:
    """A broker that says this to whoever connects. What was asked for is over then, with a sentence."""
    async with _saying() as (port, said):
        broker = Broker(plain_broker(port), "bedplate")

        async def read(body: bytes) -> None:
            said[0] = body
            async with broker.connected(WILL) as line:
                published = asyncio.create_task(line.publish(WILL))
                try:
                    with contextlib.suppress(BusError):
                        await line.lost()
                finally:
                    published.cancel()
                    await asyncio.gather(published, return_exceptions=True)

        yield read


@contextlib.asynccontextmanager
async def _receiver(folder: Path) -> AsyncIterator[ReadSoon]:
    """An address that is posted to, and answers this."""
    async with _saying() as (port, said):
        url = f"http://127.0.0.1:{port}/private"

        async def read(body: bytes) -> None:
            said[0] = body
            try:
                await send(b"{}", {"content-type": "application/json"})
            except post.PostError as error:
                _fit_to_be_logged(str(error))
                raise

        async with post.opened(Webhook("pager", url, str(folder), timeout_s=5.0)) as send:
            yield read


def _fit_to_be_logged(line: str) -> None:
    assert line.isprintable(), line
    assert "private" not in line, "of the address only host and port may be told"


@contextlib.asynccontextmanager
async def _door(folder: Path) -> AsyncIterator[ReadSoon]:
    """A provisioner with the right root that answers this to a newcomer, with a good token and a folder of its own."""
    said, ca = [b""], pki.authority(pki.new_key(), now=time.time())
    chain, key = ca.issue_server(["127.0.0.1"], now=time.time())

    async def enrol(_request: bytes, _context: object) -> bytes:
        return said[0]

    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler(
        "bedplate.v1.Enrolment", {"Enrol": grpc.unary_unary_rpc_method_handler(enrol)}
    )
    server.add_generic_rpc_handlers((handler,))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    await server.start()
    token = tokens.encode(tokens.mint(), [f"127.0.0.1:{port}"], ca.sha256)

    async def read(body: bytes) -> None:
        said[0] = body
        newcomer = Newcomer(folder, lambda: token, "0.1.0")
        try:
            await newcomer.enrol()
        finally:
            assert newcomer.have().again_in_s <= 3600, "it asks again within the hour, whatever it was told"
            assert newcomer.identity is None

    try:
        yield read
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def _stream(_: Path) -> AsyncIterator[ReadSoon]:
    """The agent's edge, and a provisioner that writes this on its stream and ends it."""
    said = [b""]

    async def session(_requests: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        for one in unframed(said[0]):
            await context.write(one)

    server = grpc.aio.server()
    handlers = {"Session": grpc.stream_stream_rpc_method_handler(session)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bedplate.v1.Uplink", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    who = Identity("m-aaaaaaaa", 1, 0.0, 0.0, 0.0, "t-1", (f"127.0.0.1:{port}",), "", "", "")

    async def read(body: bytes) -> None:
        said[0], over = body, asyncio.Event()
        link = Uplink(
            Session(RUN, "1", random.Random(1)),  # noqa: S311 - jitter
            lambda: who,
            dial=lambda _, address: grpc.aio.insecure_channel(address),
            said=lambda line: None if line.startswith("connected") else over.set(),
        )
        await link.observe(Snapshot(), b"", b"d" * 32)
        task = asyncio.create_task(link.run())
        await over.wait()
        task.cancel()
        await asyncio.wait([task])

    try:
        yield read
    finally:
        await server.stop(None)


def _said() -> st.SearchStrategy[bytes]:
    said = serialized(SessionResponse)
    return st.builds(lambda first, rest: framed([first, *rest]), st.just(WELCOME) | said, st.lists(said, max_size=5))


DECODERS: dict[str, Decoder] = {
    "agent: what the provisioner says on its stream": Decoder(
        plain(_session), [framed([WELCOME])], (PeerError, DecodeError), _said()
    ),
    "agent: what the provisioner writes on its stream, over the wire": Decoder(
        in_a_loop(_stream), [framed([WELCOME])], (), _said(), examples=60
    ),
    "agent: what the provisioner answers a newcomer": Decoder(
        in_a_loop(_door),
        [EnrolResponse(pending=Pending(machine_id="m-a", because="wait", retry_after_s=5)).SerializeToString()],
        (BedplateError,),
        serialized(EnrolResponse),
        examples=15,  # each starts the program that makes keys
    ),
    "provisioner: what a broker says": Decoder(
        in_a_loop(_broker),
        [b"".join(PACKETS), *(PACKETS[0] + packet for packet in PACKETS)],
        (BusError,),
        st.lists(st.builds(_packet, st.integers(0, 255), st.binary(max_size=12)), max_size=4).map(
            lambda packets: PACKETS[0] + b"".join(packets)
        ),
    ),
    "provisioner: what a webhook answers": Decoder(in_a_loop(_receiver), ANSWERS, (post.PostError,)),
    "agent: what the NVML worker answers": Decoder(
        in_a_folder(_worker),
        [json.dumps(one).encode() + b"\n" for one in REPLIES],
        (),
        misshapen(REPLIES).map(lambda line: line + b"\n"),
        examples=100,
    ),
}
