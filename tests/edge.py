"""The uplink as agents meet it: the real servicer over mTLS on loopback, with its guard, the real store and a clock."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from bedplate.v1.enrolment_pb2 import Credentials
from bedplate.v1.uplink_pb2 import Hello, SessionRequest, SessionResponse
from bedplate.v1.uplink_pb2_grpc import UplinkStub, add_UplinkServicer_to_server
from provisioner.access import Caller, Guard
from provisioner.config import Config
from provisioner.fleet import Fleet, Settings
from provisioner.pki import Authority, MachineIdentity, authority, key_pem, new_key
from provisioner.store import Store
from provisioner.uplink import UplinkServicer
from provisioner.world import Accepted, Asked
from tests.enrolment_desk import csr_of

RUN = b"r" * 16


@dataclass(slots=True)
class Edge:
    fleet: Fleet
    uplink: UplinkServicer
    address: str
    ca: Authority
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    async def enrol(self, *names: str) -> None:
        for name in names:
            key = name.encode().ljust(32)
            asked = Asked(name, 1, key, b"", name, "", "", "t-1", "", 1.0)
            await self.fleet.write([asked, Accepted(name, 1.0)])

    def dial(self, name: str) -> "Peer":
        """A stream of this machine, on a connection of its own."""
        key = new_key()
        issued = self.ca.issue_machine(csr_of(key), MachineIdentity(name, 1), lifetime_s=3600, now=time.time())
        credentials = grpc.ssl_channel_credentials(self.ca.roots_pem, key_pem(key), issued.certificate_pem)
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channels.append(grpc.aio.secure_channel(self.address, credentials, options))
        return Peer(UplinkStub(self.channels[-1]).Session())

    async def meet(self, name: str) -> "Peer":
        """Dialled, and past the welcome."""
        peer = self.dial(name)
        await peer.say(hello=Hello(run_id=RUN))
        assert (await peer.hear()).HasField("welcome")
        return peer


@dataclass(slots=True)
class Peer:
    call: Any

    async def say(self, **message: Any) -> None:
        await self.call.write(SessionRequest(**message))

    async def hear(self) -> SessionResponse:
        message = await asyncio.wait_for(self.call.read(), 3)
        assert isinstance(message, SessionResponse), "the stream ended"
        return message

    async def end(self) -> str:
        """What the provisioner dismissed it with; the stream is over then, with a status."""
        because = ""
        while isinstance(message := await asyncio.wait_for(self.call.read(), 3), SessionResponse):
            because = message.dismissal.because
        assert await asyncio.wait_for(self.call.code(), 3) is grpc.StatusCode.OK
        return because


async def nobody_renews(caller: Caller, csr: bytes) -> Credentials:
    raise AssertionError(caller, csr)


@contextlib.asynccontextmanager
async def edge(folder: Path, **settings: Any) -> AsyncIterator[Edge]:
    """A fleet with the machines m-aaaaaaaa and m-bbbbbbbb."""
    ca = authority(new_key(), now=time.time())
    store = Store.open(folder / "bedplate.db")
    store.begin_epoch()
    fleet = Fleet(store, store.load(time.time()), Settings(Config(), "1.0", ca.sha256), time.time)
    uplink = UplinkServicer(fleet, nobody_renews, **settings)
    server = grpc.aio.server(interceptors=[Guard(lambda: fleet.world)])
    add_UplinkServicer_to_server(uplink, server)
    chain, key = ca.issue_server(["127.0.0.1"], now=time.time())
    credentials = grpc.ssl_server_credentials([(key, chain)], ca.roots_pem, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    writer = asyncio.create_task(fleet.keep_writing())
    made = Edge(fleet, uplink, f"127.0.0.1:{port}", ca)
    try:
        await made.enrol("m-aaaaaaaa", "m-bbbbbbbb")
        yield made
    finally:
        for channel in made.channels:
            await channel.close()
        await server.stop(0.5)
        writer.cancel()
        await asyncio.wait([writer])
        store.close()
