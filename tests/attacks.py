"""What a hostile peer does to a provisioner, over real sockets: each a coroutine that goes on until it is cancelled.

A connection that is closed on it is what it came for: it makes another. It takes a breath between its deeds: attacker,
attacked and healthy are one process here, and it is not to win by taking the others' processor from them.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import grpc

from bedplate.v1.enrolment_pb2 import EnrolRequest
from bedplate.v1.fleet_pb2 import ListMachinesRequest
from bedplate.v1.snapshot_pb2 import Vitals
from bedplate.v1.uplink_pb2 import Delta, Hello, InventoryBody, SessionRequest
from tests import doors
from tests.crowd import Crowd
from tests.http2 import ENROL, OPENING, PING, RST_STREAM, SETTINGS, WINDOW, Halves, begun, client, frame

RUN = b"e" * 16
BREATH_S = 0.005
HALF_A_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
EVIL = "m-aaaaaaab"
Attack = Callable[[Crowd], Awaitable[None]]


# -- below TLS, and instead of it -----------------------------------------------------------------------------------


async def garbage_instead_of_tls(crowd: Crowd) -> None:
    await _again(crowd, lambda _, writer: _sent(writer, os.urandom(4096)))


async def plaintext_instead_of_tls(crowd: Crowd) -> None:
    await _again(crowd, lambda _, writer: _sent(writer, OPENING))


async def handshakes_that_never_end(crowd: Crowd) -> None:
    """The first bytes of a ClientHello, and then nothing."""
    async with contextlib.AsyncExitStack() as stack:
        for number in range(300):
            _, writer = await asyncio.open_connection(*ports(crowd)[number % 2])
            stack.callback(writer.close)
            writer.write(HALF_A_HELLO)
        await asyncio.Event().wait()


async def idle_connections(crowd: Crowd) -> None:
    """Through TLS as a stranger, without a call."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(200):
            writer = await stack.enter_async_context(_stranger(crowd))
            writer.write(OPENING)
        await asyncio.Event().wait()


# -- HTTP/2 ---------------------------------------------------------------------------------------------------------


async def garbage_after_tls(crowd: Crowd) -> None:
    await _flood(crowd, lambda _: os.urandom(4096))


async def settings_without_end(crowd: Crowd) -> None:
    await _flood(crowd, lambda _: frame(SETTINGS, 0, 0, b"") * 100)


async def pings_without_end(crowd: Crowd) -> None:
    await _flood(crowd, lambda _: frame(PING, 0, 0, b"12345678") * 100)


async def calls_that_are_reset_at_once(crowd: Crowd) -> None:
    """Rapid reset: each call is begun and given up in one write."""

    def calls(number: int) -> bytes:
        streams = range(number * 200 + 1, number * 200 + 201, 2)
        return b"".join(begun(stream) + frame(RST_STREAM, 0, stream, b"\0\0\0\x08") for stream in streams)

    await _flood(crowd, calls)


async def calls_that_are_begun_and_never_said(crowd: Crowd) -> None:
    """Headers of a call without its message: nothing of ours may wait for it without end."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(50):
            writer = await stack.enter_async_context(_stranger(crowd))
            calls = b"".join(begun(stream) for stream in range(1, 200, 2))
            writer.write(OPENING + calls)
        await asyncio.Event().wait()


async def requests_of_a_stranger_that_never_come_whole(crowd: Crowd) -> None:
    """By 40 connections, and again once they are ended."""
    await asyncio.gather(*(_halves(crowd, None, Halves(ENROL, 8, 60_000)) for _ in range(40)))


async def requests_of_a_person_that_never_come_whole(crowd: Crowd) -> None:
    eve = doors.person(crowd.ca, "eve", "viewer", now=time.time())
    await _halves(crowd, eve, Halves("/bedplate.v1.Fleet/ListMachines", 40, 4_000_000))


async def requests_of_an_older_life_that_never_come_whole(crowd: Crowd) -> None:
    """By the certificate of a life that the machine is not in."""
    old = doors.machine(crowd.ca, EVIL, 7)
    await _halves(crowd, old, Halves("/bedplate.v1.Uplink/Renew", 40, 4_000_000))


# -- with a machine's certificate -----------------------------------------------------------------------------------


async def a_hundred_megabytes(crowd: Crowd) -> None:
    body = bytes(100 << 20)
    while True:
        await _streamed(crowd, [SessionRequest(hello=Hello(run_id=RUN)).SerializeToString(), body])


async def bytes_that_are_no_message(crowd: Crowd) -> None:
    """Not protobuf; not UTF-8; groups nested deeper than a decoder goes; a length without an end."""
    hello = SessionRequest(hello=Hello(run_id=RUN)).SerializeToString()
    for body in _for_ever((b"\xff" * 100, b"\n\x04\n\x02\xff\xfe", b"\x0b" * 10_000, b"\n\xff\xff\xff\xff\x07")):
        await _streamed(crowd, [hello, body])


async def deltas_out_of_order(crowd: Crowd) -> None:
    hello = Hello(run_id=RUN)
    for numbers in _for_ever(((1, 2, 9, 3), (5, 4, 7), (1, 1 << 63))):
        deltas = [SessionRequest(delta=Delta(sequence=number, whole=True)) for number in numbers]
        await _streamed(crowd, [one.SerializeToString() for one in (SessionRequest(hello=hello), *deltas)])


async def the_same_delta_without_end(crowd: Crowd) -> None:
    await _talking(crowd, lambda _: SessionRequest(delta=Delta(sequence=1, whole=True)))


async def good_messages_as_fast_as_it_can(crowd: Crowd) -> None:
    await _talking(crowd, lambda number: SessionRequest(delta=Delta(sequence=number, whole=True, vitals=Vitals())))


async def inventories_that_nobody_asked_for(crowd: Crowd) -> None:
    body = InventoryBody(digest=b"d" * 32, inventory=bytes(1 << 20))
    await _talking(crowd, lambda _: SessionRequest(inventory=body))


async def a_stream_that_is_never_read(crowd: Crowd) -> None:
    """What it says is good; what it is told stays where it is."""
    call = crowd.machine(EVIL).Session()
    await call.write(SessionRequest(hello=Hello(run_id=RUN)))
    for number in range(1, 1 << 30):
        await call.write(SessionRequest(delta=Delta(sequence=number, whole=True)))


async def streams_in_a_tight_loop(crowd: Crowd) -> None:
    stub = crowd.machine(EVIL)
    while True:
        call = stub.Session()
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            await call.write(SessionRequest(hello=Hello(run_id=RUN)))
            await call.read()
        await asyncio.sleep(BREATH_S)


async def enrolments_without_end(crowd: Crowd) -> None:

    async def ask(stub: Any) -> None:
        while True:
            with contextlib.suppress(grpc.RpcError):
                await stub.Enrol(EnrolRequest(csr=b"x" * 200, token_id="t-none", token_secret=b"s"))

    await asyncio.gather(*(ask(stub) for stub in [crowd.stranger() for _ in range(10)] for _ in range(8)))


async def lists_without_end(crowd: Crowd) -> None:
    """As a person who may: 200 at a time."""
    people = [crowd.person("eve", "viewer") for _ in range(10)]

    async def ask(stub: Any) -> None:
        while True:
            with contextlib.suppress(grpc.RpcError):
                await stub.ListMachines(ListMachinesRequest(page_size=1000))

    await asyncio.gather(*(ask(stub) for stub in people for _ in range(20)))


# -- inside ---------------------------------------------------------------------------------------------------------


async def _halves(crowd: Crowd, pair: doors.Pair | None, halves: Halves) -> None:
    address = ports(crowd)[0 if pair else 1]
    tls = client(crowd.ca.roots_pem, pair)
    while True:
        with contextlib.suppress(OSError):
            await halves.hold(address, tls)
        halves = replace(halves, window=WINDOW, first=WINDOW)
        await asyncio.sleep(BREATH_S)


async def _streamed(crowd: Crowd, bodies: Sequence[bytes]) -> None:
    """A stream of these bytes, read until the provisioner has ended it."""
    crowd.machine(EVIL)
    channel = crowd.channels.pop()
    try:
        call = channel.stream_stream("/bedplate.v1.Uplink/Session")()
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            for body in bodies:
                await call.write(body)
            while await call.read() is not grpc.aio.EOF:
                pass
    finally:
        await channel.close()
    await asyncio.sleep(BREATH_S)


async def _talking(crowd: Crowd, message: Callable[[int], SessionRequest]) -> None:
    """Messages, one after the other; what is answered is read."""
    stub = crowd.machine(EVIL)
    while True:
        call = stub.Session()
        reader = asyncio.create_task(_read(call))
        try:
            with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
                await call.write(SessionRequest(hello=Hello(run_id=os.urandom(16))))
                number = 0
                while not call.done():
                    number += 1
                    await call.write(message(number))
        finally:
            call.cancel()
            reader.cancel()
            await asyncio.wait([reader])


async def _read(call: Any) -> None:
    with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
        while await call.read() is not grpc.aio.EOF:
            pass


async def _again(crowd: Crowd, work: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
    """On connections to both ports, one after the other, each until it is closed on us."""
    for host, port in _for_ever(ports(crowd)):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            with contextlib.suppress(OSError):
                await work(reader, writer)
                await reader.read()
        finally:
            writer.transport.abort()


async def _flood(crowd: Crowd, octets: Callable[[int], bytes]) -> None:
    """HTTP/2 as a stranger, each connection until it is closed on us."""
    while True:
        with contextlib.suppress(OSError):
            async with _stranger(crowd) as writer:
                await _sent(writer, OPENING)
                for number in range(1 << 20):
                    await _sent(writer, octets(number))


async def _sent(writer: asyncio.StreamWriter, octets: bytes) -> None:
    writer.write(octets)
    await writer.drain()
    await asyncio.sleep(BREATH_S)


async def stranger(crowd: Crowd) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Through TLS, without a certificate."""
    return await asyncio.open_connection(*ports(crowd)[1], ssl=client(crowd.ca.roots_pem))


@contextlib.asynccontextmanager
async def _stranger(crowd: Crowd) -> AsyncIterator[asyncio.StreamWriter]:
    _, writer = await stranger(crowd)
    try:
        yield writer
    finally:
        writer.transport.abort()


def ports(crowd: Crowd) -> tuple[tuple[str, int], ...]:
    pairs = (address.rpartition(":") for address in (crowd.config.listen, crowd.config.enrol_listen))
    return tuple((host, int(port)) for host, _, port in pairs)


def _for_ever(things: Sequence[Any]) -> Any:
    while True:
        yield from things
