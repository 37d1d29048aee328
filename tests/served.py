"""The Fleet service as people meet it: a server on loopback with mTLS and its guard, the real store, real callers."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from bedplate.v1.fleet_pb2_grpc import FleetStub, add_FleetServicer_to_server
from provisioner.access import Guard
from provisioner.config import Config
from provisioner.fleet import Fleet, Settings
from provisioner.pki import Authority, PersonIdentity, Role, authority, new_key
from provisioner.service import FleetServicer
from provisioner.store import Store
from provisioner.world import Accepted, Asked, Change, Met

Options = Sequence[tuple[str, int]]


@dataclass(slots=True)
class Clock:
    """Time as the test wants it."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Served:
    fleet: Fleet
    clock: Clock
    address: str
    ca: Authority
    cut: list[tuple[str, str]]
    channels: list[grpc.aio.Channel] = field(default_factory=list)
    sinks: Callable[[], Sequence[Any]] = tuple  # how those stand that events go to

    def stub(self, name: str = "alice", role: str = "admin", options: Options = ()) -> Any:
        """What a person of that name and role calls with."""
        chain, key = self.ca.issue_person(PersonIdentity(name, Role(role)), now=time.time())
        credentials = grpc.ssl_channel_credentials(self.ca.roots_pem, key, chain)
        self.channels.append(grpc.aio.secure_channel(self.address, credentials, options))
        return FleetStub(self.channels[-1])

    async def write(self, *changes: Change) -> list[int]:
        return await self.fleet.write(changes)


@contextlib.asynccontextmanager
async def served(folder: Path, changes: Sequence[Change] = (), **settings: Any) -> AsyncIterator[Served]:
    clock, ca, cut = Clock(), authority(new_key(), now=time.time()), list[tuple[str, str]]()
    store = Store.open(folder / "bedplate.db")
    store.begin_epoch()
    config = Config(enrol_advertise="provisioner.example:7444")
    fleet = Fleet(store, store.load(clock.now), Settings(config, "1.2.3", ca.sha256), clock)

    async def cut_off(machine_id: str, because: str) -> None:
        cut.append((machine_id, because))

    settings = {"sinks": lambda: [*made.sinks()], **settings}
    guard = Guard(lambda: fleet.world, refused=fleet.conduct.refuse)
    server = grpc.aio.server(interceptors=[guard])
    add_FleetServicer_to_server(FleetServicer(fleet, cut_off, judge=guard.calls.judge, **settings), server)
    chain, key = ca.issue_server(["127.0.0.1"], now=time.time())
    credentials = grpc.ssl_server_credentials([(key, chain)], ca.roots_pem, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    writer = asyncio.create_task(fleet.keep_writing())
    made = Served(fleet, clock, f"127.0.0.1:{port}", ca, cut)
    try:
        if changes:
            await fleet.write(changes)
        yield made
    finally:
        for channel in made.channels:
            await channel.close()
        await server.stop(None)
        writer.cancel()
        await asyncio.wait([writer])
        store.close()


def asked(number: int, *, evidence: bytes = b"", waits_because: str = "its token asks for review") -> Asked:
    return Asked(
        f"m-{number:04}",
        1,
        number.to_bytes(32, "big"),
        evidence,
        f"gpu-{number:02}",
        "NVIDIA DGX-2H",
        f"S{number}",
        "t-1",
        waits_because,
        1_799_999_900.0,
    )


def present(number: int) -> list[Change]:
    """A machine that is let in and whose stream is open."""
    name, at = f"m-{number:04}", 1_799_999_990.0
    met = Met(name, f"s-{number}", 1, b"r" * 16, "0.1.0", "boot", "10.0.0.7", 0.0, at)
    return [asked(number, waits_because=""), Accepted(name, at), met]


@dataclass(frozen=True, slots=True)
class No:
    """How a call was refused."""

    code: str
    line: str
    details: dict[str, Any]


async def refusal(call: Any) -> No:
    """Of a call that must be refused."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return No(error.code().name, error.details() or "", details(error))
    raise AssertionError(f"it was not refused: {answer}")


def details(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """{'ErrorInfo': …, 'BadRequest': …}"""
    values = [value for key, value in error.trailing_metadata() or () if key == "grpc-status-details-bin"]
    return _unpacked(values[0]) if values else {}


def _unpacked(value: Any) -> dict[str, Any]:
    found = {}
    for packed in status_pb2.Status.FromString(value).details:
        kind = packed.type_url.rpartition(".")[2]
        message = getattr(error_details_pb2, kind)()
        packed.Unpack(message)
        found[kind] = message
    return found
