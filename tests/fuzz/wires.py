"""Every method of every service, over its wire: the servers are the real ones, with TLS, guards and a store.

Rule 1: a server that did not know what to say says UNKNOWN or INTERNAL: that is a bug, as a traceback in its log is.
Rule 2: a stream of a machine is one input: its messages, framed.
"""

import asyncio
import contextlib
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from bedplate.v1 import enrolment_pb2, fleet_pb2, node_pb2, uplink_pb2
from bedplate.v1.enrolment_pb2_grpc import EnrolmentStub
from bedplate.v1.snapshot_pb2 import FilesystemVitals, HostVitals, Identity, Inventory, Vitals
from provisioner import onhost
from provisioner.pki import MachineIdentity, key_pem, new_key
from tests.edge import RUN, Edge, edge
from tests.enrolment_desk import Desk, asking, csr_of, minted_in
from tests.fuzz.decoder import Decoder, ReadSoon, in_a_loop
from tests.fuzz.inputs import framed, unframed
from tests.fuzz.messages import filled, serialized
from tests.served import present, served
from tests.shown_agent import serving

BUGS = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}
SESSION = "/bedplate.v1.Uplink/Session"
METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for file in (fleet_pb2, enrolment_pb2, uplink_pb2, node_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
OWN_POOL = [("grpc.use_local_subchannel_pool", 1)]
WATCHED_S = 0.02  # a watch that was let in goes on for ever
Opened = Callable[[Path], AbstractAsyncContextManager[grpc.aio.Channel]]


class WrongWordError(Exception):
    """A status that says that nobody knew what to say."""


# -- whom they go to ---------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _fleet(folder: Path) -> AsyncIterator[grpc.aio.Channel]:
    """As an admin; what was written meanwhile is in the audit, and its chain is whole."""
    async with served(folder, [change for number in (1, 2) for change in present(number)]) as here:
        here.stub()
        yield here.channels[0]
    onhost.verify(folder / "bedplate.db", ())


def _to_the_door(desk: Desk) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(desk.address, grpc.ssl_channel_credentials(desk.ca.roots_pem))


@contextlib.asynccontextmanager
async def _desk(_: Path) -> AsyncIterator[grpc.aio.Channel]:
    async with Desk() as desk, _to_the_door(desk) as channel:
        yield channel


@contextlib.asynccontextmanager
async def _main_port(_: Path) -> AsyncIterator[grpc.aio.Channel]:
    """With a certificate that was given at the door."""
    async with Desk() as desk:
        key, minted = new_key(), await minted_in(desk.book)
        async with _to_the_door(desk) as door:
            held = (await EnrolmentStub(door).Enrol(asking(minted, key=key))).credentials
        mutual = grpc.ssl_channel_credentials(desk.ca.roots_pem, key_pem(key), held.certificate_pem)
        async with grpc.aio.secure_channel(held.uplink_addresses[0], mutual) as channel:
            yield channel


@contextlib.asynccontextmanager
async def _agent(_: Path) -> AsyncIterator[grpc.aio.Channel]:
    async with serving() as (address, _port), grpc.aio.insecure_channel(address) as channel:
        yield channel


DOORS: dict[str, Opened] = {"Fleet": _fleet, "Enrolment": _desk, "Uplink": _main_port, "NodeAgent": _agent}


def _called(name: str) -> Callable[[], contextlib.AbstractContextManager[Callable[[bytes], object]]]:
    method = METHODS[name]

    @contextlib.asynccontextmanager
    async def opened(folder: Path) -> AsyncIterator[ReadSoon]:
        async with DOORS[method.containing_service.name](folder) as channel:
            ask = channel.unary_stream(name) if method.server_streaming else channel.unary_unary(name)
            yield lambda body: _answered(ask, body, watches=method.server_streaming)

    return in_a_loop(opened)


async def _answered(ask: Callable[..., grpc.aio.Call], body: bytes, *, watches: bool) -> None:
    call = ask(body, timeout=20.0)
    if watches:
        await asyncio.wait([asyncio.ensure_future(call.code())], timeout=WATCHED_S)
        call.cancel()
    if (code := await call.code()) in BUGS:
        raise WrongWordError(f"{code}: {await call.details()}")


# -- the stream of a machine -------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _streams(folder: Path) -> AsyncIterator[ReadSoon]:
    """Each input is the stream of another machine; whoever was there before is heard after all of them."""
    async with edge(folder) as here:
        other, names = await here.meet("m-bbbbbbbb"), [f"m-{a}{b}aaaaaa" for a in "abcdefgh" for b in "bcdefgh"]
        await here.enrol(*names)
        turns = itertools.cycle(names)

        async def read(body: bytes) -> None:
            async with _held_by(here, next(turns)) as channel:
                await _streamed(channel, unframed(body))

        yield read
        await other.say(delta=uplink_pb2.Delta(sequence=1, whole=True))
        await other.say(delta=uplink_pb2.Delta(sequence=2, vitals=VITALS))
        await other.say(goodbye=uplink_pb2.Goodbye(because="done"))
        assert await other.end() == ""
        await here.fleet.write(())
        assert here.fleet.store.vitals("m-bbbbbbbb").sequence == 2


def _held_by(here: Edge, name: str) -> grpc.aio.Channel:
    key = new_key()
    issued = here.ca.issue_machine(csr_of(key), MachineIdentity(name, 1), lifetime_s=3600, now=time.time())
    mutual = grpc.ssl_channel_credentials(here.ca.roots_pem, key_pem(key), issued.certificate_pem)
    return grpc.aio.secure_channel(here.address, mutual, OWN_POOL)


async def _streamed(channel: grpc.aio.Channel, bodies: list[bytes]) -> None:
    """To the end of the stream, whatever that is."""
    call = channel.stream_stream(SESSION)()
    try:
        for body in bodies:
            await call.write(body)
        await call.done_writing()
        while isinstance(await call.read(), bytes):
            pass
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass
    if (code := await call.code()) in BUGS:
        raise WrongWordError(f"{code}: {await call.details()}")


INVENTORY = Inventory(identity=Identity(hostname="gpu-01")).SerializeToString()
DIGEST = hashlib.sha256(INVENTORY).digest()
HELLO = uplink_pb2.SessionRequest(hello=uplink_pb2.Hello(run_id=RUN))
KNOWN = uplink_pb2.SessionRequest(hello=uplink_pb2.Hello(run_id=RUN, inventory_digest=DIGEST))
VITALS = Vitals(host=HostVitals(load_1m=1.0), filesystems={"/": FilesystemVitals(free_bytes=1)})
BODY = uplink_pb2.SessionRequest(inventory=uplink_pb2.InventoryBody(inventory=INVENTORY, digest=DIGEST))
MORE = [
    uplink_pb2.SessionRequest(delta=uplink_pb2.Delta(sequence=number, vitals=VITALS, gone=["links/eth0"]))
    for number in range(2, 5)
]
WHOLE = uplink_pb2.SessionRequest(delta=uplink_pb2.Delta(sequence=1, whole=True))


def conversations() -> st.SearchStrategy[bytes]:
    """A hello that is good or not, and some messages after it, of which deltas are often in order."""
    said = serialized(uplink_pb2.SessionRequest, HELLO, KNOWN, BODY, WHOLE)
    hello = st.just(HELLO.SerializeToString()) | said
    deltas = st.lists(filled(uplink_pb2.Delta), max_size=3).map(_numbered)
    more = st.lists(said, max_size=5) | deltas
    return st.builds(lambda first, rest: framed([first, *rest]), hello, more)


def _numbered(deltas: list[uplink_pb2.Delta]) -> list[bytes]:
    for number, delta in enumerate(deltas, 1):
        delta.sequence, delta.whole = number, number == 1 or delta.whole
    return [uplink_pb2.SessionRequest(delta=delta).SerializeToString() for delta in deltas]


def _row(name: str) -> Decoder:
    """On a good day it is asked about a machine that there is, or about nothing in particular."""
    kind = GetMessageClass(METHODS[name].input_type)
    good = kind(machine="m-0001") if "machine" in kind.DESCRIPTOR.fields_by_name else kind()
    return Decoder(_called(name), [good.SerializeToString()], (), serialized(kind), examples=40)


DECODERS: dict[str, Decoder] = {
    **{f"wire: {name}": _row(name) for name in METHODS if name != SESSION},
    f"wire: {SESSION}": Decoder(
        in_a_loop(_streams),
        [framed([one.SerializeToString() for one in (KNOWN, BODY, WHOLE, *MORE)])],
        (),
        conversations(),
        examples=60,
    ),
}
