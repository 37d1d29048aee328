"""The agent's edge of the conversation against provisioners that misbehave, over real mTLS on loopback."""

import asyncio
import contextlib
import hashlib
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest

from bedplate.v1.snapshot_pb2 import Problem, Snapshot
from bedplate.v1.uplink_pb2 import Dismissal, SessionResponse, Welcome
from bedplate.v1.uplink_pb2_grpc import UplinkServicer, add_UplinkServicer_to_server
from nodeagent.identity import Identity
from nodeagent.session import Session, State
from nodeagent.uplink import Uplink
from provisioner.pki import MachineIdentity, authority, key_pem, new_key
from tests.enrolment_desk import csr_of

WELCOME = SessionResponse(welcome=Welcome(epoch=1))


class Peer(UplinkServicer):
    """A provisioner whose whole behaviour is one function of the stream."""

    def __init__(self, talk: Callable[[Any], Any]) -> None:
        self._talk = talk

    async def Session(self, _requests: object, context: Any) -> None:
        await self._talk(context)


@contextlib.asynccontextmanager
async def meeting(talk: Callable[[Any], Any]) -> AsyncIterator[Identity]:
    """A provisioner that talks so, and a machine that it knows."""
    ca, key, server = authority(new_key(), now=time.time()), new_key(), grpc.aio.server()
    add_UplinkServicer_to_server(Peer(talk), server)
    chain, its_key = ca.issue_server(["127.0.0.1"], now=time.time())
    doors = grpc.ssl_server_credentials([(its_key, chain)], ca.roots_pem, require_client_auth=True)
    address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', doors)}"
    issued = ca.issue_machine(csr_of(key), MachineIdentity("m-1", 1), lifetime_s=3600, now=time.time())
    texts = (issued.certificate_pem.decode(), key_pem(key).decode(), ca.roots_pem.decode())
    await server.start()
    try:
        yield Identity("m-1", 1, 0.0, 0.0, 0.0, "t-1", (address,), *texts)
    finally:
        await server.stop(None)


def dialling(identity: Identity | None, said: Callable[[str], None] = print, **settings: Any) -> Uplink:
    session = Session(b"r" * 16, "0.1.0", random.Random(1))  # noqa: S311 - jitter
    return Uplink(session, lambda: identity, said=said, **settings)


def seen(text: str) -> tuple[Snapshot, bytes, bytes]:
    snapshot = Snapshot(problems=[Problem(probe="gpus", detail=text)])
    inventory = snapshot.inventory.SerializeToString()
    return snapshot, inventory, hashlib.sha256(inventory).digest()


@contextlib.asynccontextmanager
async def running(uplink: Uplink) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(uplink.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(true: Callable[[], bool], limit_s: float = 10.0) -> None:
    async with asyncio.timeout(limit_s):
        while not true():  # noqa: ASYNC110 - many things, seldom
            await asyncio.sleep(0.01)


def test_a_provisioner_that_takes_nothing_any_more_holds_up_neither_the_tick_nor_the_agent() -> None:
    async def story() -> None:
        enough = asyncio.Event()

        async def deaf(context: Any) -> None:
            await context.read()  # the hello, and nothing after it
            await context.write(WELCOME)
            await enough.wait()

        async with meeting(deaf) as identity:
            uplink = dialling(identity, patience_s=0.3)
            await uplink.observe(*seen("little"))
            async with running(uplink) as task:
                await until(lambda: uplink.session.state is State.OPEN)
                # more than the windows of HTTP/2 hold: who sends it waits for the one that does not read
                async with asyncio.timeout(3):
                    await uplink.observe(*seen("x" * (8 << 20)))
                await until(lambda: uplink.session.state is State.CLOSED)
                assert uplink.session.because == f"cannot go on with {uplink.address}: it took nothing for 0.3 s"
                assert not task.done()
            enough.set()

    asyncio.run(story())


def test_a_tick_that_is_ended_while_it_sends_ends_the_stream_and_not_the_agent() -> None:
    async def story() -> None:
        enough = asyncio.Event()

        async def deaf(context: Any) -> None:
            await context.read()
            await context.write(WELCOME)
            await enough.wait()

        async with meeting(deaf) as identity:
            uplink = dialling(identity)
            await uplink.observe(*seen("little"))
            async with running(uplink) as task:
                await until(lambda: uplink.session.state is State.OPEN)
                tick = asyncio.create_task(uplink.observe(*seen("x" * (8 << 20))))
                await asyncio.wait({tick}, timeout=0.3)
                tick.cancel()
                async with asyncio.timeout(4):
                    await uplink.stop("SIGTERM")
                await asyncio.wait({task}, timeout=4)
                assert task.done()
                assert task.exception() is None
            enough.set()

    asyncio.run(story())


@pytest.mark.parametrize("flaw", [{"uplink_addresses": ()}, {"certificate": "?"}, {"ca": "?"}])
def test_an_identity_that_nobody_can_dial_with_is_a_sentence_and_is_tried_again_later(flaw: dict[str, Any]) -> None:
    async def story() -> None:
        async def mute(context: Any) -> None:
            await context.read()

        async with meeting(mute) as identity:
            sentences = list[str]()
            uplink = dialling(replace(identity, **flaw), sentences.append)
            await uplink.observe(*seen("little"))
            async with running(uplink) as task:
                await until(lambda: bool(sentences))
                assert not task.done()
                assert sentences[0].startswith("cannot ")
                assert uplink.session.dial_at > uplink.clock()

    asyncio.run(story())


def test_a_dismissal_is_the_end_also_where_the_provisioner_never_ends_the_stream() -> None:
    async def story() -> None:
        enough, begun, left = asyncio.Event(), list[Any](), list[Any]()

        async def busy(context: Any) -> None:
            begun.append(context)
            await context.read()
            dismissal = Dismissal(because="no hello within 10 s", retry_after_s=0.5)
            await context.write(SessionResponse(dismissal=dismissal))
            try:
                await enough.wait()
            finally:
                left.append(context)

        async with meeting(busy) as identity:
            uplink = dialling(identity)
            await uplink.observe(*seen("little"))
            async with running(uplink):
                await until(lambda: len(begun) >= 3 and begun[:2] == left[:2])
            enough.set()

    asyncio.run(story())


def test_a_provisioner_that_says_what_is_no_message_and_then_nothing_is_left_at_once() -> None:
    async def garbage(_requests: object, context: Any) -> None:
        await context.write(b"\xff")
        await asyncio.Event().wait()

    async def story() -> None:
        server = grpc.aio.server()
        handlers = {"Session": grpc.stream_stream_rpc_method_handler(garbage)}  # bytes: no message is made of them
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bedplate.v1.Uplink", handlers),))
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        who = Identity("m-1", 1, 0.0, 0.0, 0.0, "t-1", (address,), "", "", "")
        uplink = dialling(who, dial=lambda _, to: grpc.aio.insecure_channel(to))
        await uplink.observe(*seen("little"))
        async with running(uplink):
            await until(lambda: "no message" in uplink.session.because)
        assert uplink.session.because == f"cannot go on with {address}: what it says is no message of this protocol"
        await server.stop(None)

    asyncio.run(story())
