"""The gRPC server on the host: it translates, and decides nothing.

Rule 1: it shows what the agent has; it never scans by itself but where it is asked to.
Rule 2: whoever reads slowly gets the newest snapshot next, not every one in between: nothing is queued for anybody.
Rule 3: the same services stand behind the gate on the unix socket and, where it is configured, on TCP with mTLS.
"""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from bedplate.v1 import node_pb2
from bedplate.v1.node_pb2 import (
    CaptureRequest,
    CaptureResponse,
    ExplainRequest,
    ExplainResponse,
    GetSnapshotRequest,
    GetSnapshotResponse,
    GetTopologyRequest,
    GetTopologyResponse,
    WatchSnapshotRequest,
    WatchSnapshotResponse,
)
from bedplate.v1.node_pb2_grpc import NodeAgentServicer, add_NodeAgentServicer_to_server
from bedplate.v1.snapshot_pb2 import Snapshot, Vitals
from nodeagent.access import Guard, RefusedError
from nodeagent.capture import capture_tar
from nodeagent.config import Config
from nodeagent.deadband import moved
from nodeagent.errors import BedplateError
from nodeagent.gate import Gate
from nodeagent.host import Host

SERVICES = (
    node_pb2.DESCRIPTOR.services_by_name["NodeAgent"].full_name,
    health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
    reflection.SERVICE_NAME,
)
GRACE_S = 0.5
MAX_CAPTURE_BYTES = 64 << 20
MAX_CALLS = 64
OPTIONS = (
    ("grpc.so_reuseport", 0),  # or a second agent would take half of the calls
    ("grpc.max_receive_message_length", 64 << 10),  # requests are tiny
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.max_concurrent_streams", MAX_CALLS),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


class AgentView(Protocol):
    """What the agent shows to those who ask. A snapshot that it gave out is never changed afterwards."""

    @property
    def host(self) -> Host: ...
    @property
    def snapshot(self) -> Snapshot: ...
    @property
    def digest(self) -> bytes: ...
    @property
    def revision(self) -> int: ...
    async def fresh(self) -> None: ...
    async def wait_changed(self, since: int) -> None: ...
    def explain(self) -> tuple[str, list[str]]: ...


class Servicer(NodeAgentServicer):
    def __init__(self, agent: AgentView) -> None:
        self._agent = agent
        self._capturing = asyncio.Lock()

    async def GetSnapshot(self, request: GetSnapshotRequest, _: object) -> GetSnapshotResponse:
        agent = self._agent
        if request.fresh:
            await agent.fresh()
        await agent.wait_changed(0)
        return GetSnapshotResponse(snapshot=agent.snapshot, inventory_digest=agent.digest)

    async def WatchSnapshot(self, _: WatchSnapshotRequest, __: object) -> AsyncIterator[WatchSnapshotResponse]:
        agent, seen, shown, digest = self._agent, 0, Snapshot(), b""
        while True:
            await agent.wait_changed(seen)
            seen = agent.revision
            if agent.digest != digest or news(shown, agent.snapshot):
                shown, digest = agent.snapshot, agent.digest
                yield WatchSnapshotResponse(snapshot=shown)

    async def GetTopology(self, _: GetTopologyRequest, __: object) -> GetTopologyResponse:
        await self._agent.wait_changed(0)
        return GetTopologyResponse(topology=self._agent.snapshot.inventory.topology)

    async def Explain(self, _: ExplainRequest, __: object) -> ExplainResponse:
        because, evidence = self._agent.explain()
        return ExplainResponse(because=because, evidence=evidence)

    async def Capture(self, request: CaptureRequest, _: object) -> AsyncIterator[CaptureResponse]:
        """One at a time: a capture holds the whole machine's files in memory."""
        if self._capturing.locked():
            line = "cannot capture: another capture is under way; wait for its end"
            raise RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "CAPTURE_UNDER_WAY", line)
        async with self._capturing:
            size = 0
            async for chunk in _pieces(self._agent.host, scrub=request.scrub):
                size += len(chunk)
                if size > MAX_CAPTURE_BYTES:
                    line = f"cannot capture: it would be larger than {MAX_CAPTURE_BYTES >> 20} MiB"
                    raise RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "CAPTURE_TOO_LARGE", line)
                yield CaptureResponse(chunk=chunk)


def news(before: Snapshot, after: Snapshot) -> bool:
    """Whether a dial left its dead band, or a problem came or went."""
    if list(before.problems) != list(after.problems):
        return True
    changed, gone = moved(before.vitals, after.vitals)
    return bool(gone) or changed != Vitals()


async def _pieces(host: Host, *, scrub: bool) -> AsyncIterator[bytes]:
    """The capture, each piece made in a thread when it is wanted."""
    pieces, lock = iter(capture_tar(host, scrub=scrub)), threading.Lock()

    def following() -> bytes | None:
        with lock:  # a call that was cancelled may have left a thread behind in the generator
            return next(pieces, None)

    try:
        while (piece := await asyncio.to_thread(following)) is not None:
            yield piece
    except (BedplateError, OSError) as error:
        raise RefusedError(grpc.StatusCode.INTERNAL, "CAPTURE_FAILED", str(error)) from error


@asynccontextmanager
async def serve(config: Config, agent: AgentView) -> AsyncIterator[int]:
    """The server while the block runs; yields its TCP port, or 0. BedplateError where it cannot begin."""
    gate = Gate(Path(config.socket), config.socket_group) if config.socket else None
    async with AsyncExitStack() as stack:
        server = grpc.aio.server(interceptors=(Guard(),), options=OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
        await _furnish(server, agent)
        port = _listen_on_tcp(server, config) if config.listen else 0
        if gate:
            gate.prepare()
            server.add_insecure_port(f"unix:{gate.inner}")
            stack.push_async_callback(gate.close)
        await server.start()
        stack.push_async_callback(server.stop, GRACE_S)
        if gate:
            stack.callback(gate.shut)
            await gate.open()
        yield port


class _Health(health.aio.HealthServicer):
    """With the list, which the library leaves out."""

    async def List(self, _request: Any, _context: Any) -> Any:
        good = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
        return health_pb2.HealthListResponse(statuses=dict.fromkeys(("", *SERVICES), good))  # type: ignore[attr-defined]  # its stubs are older


async def _furnish(server: grpc.aio.Server, agent: AgentView) -> None:
    add_NodeAgentServicer_to_server(Servicer(agent), server)
    state = _Health()
    for name in ("", *SERVICES):
        await state.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    reflection.enable_server_reflection(SERVICES, server)


def _listen_on_tcp(server: grpc.aio.Server, config: Config) -> int:
    _refuse_if_taken(config.listen)
    credentials = grpc.dynamic_ssl_server_credentials(
        _certificates(config), _again(config), require_client_authentication=True
    )
    try:
        return int(server.add_secure_port(config.listen, credentials))
    except RuntimeError as error:
        cause = "the port was taken, or listen_certificate and listen_key do not belong together"
        raise BedplateError(f"cannot listen on {config.listen}: {cause}") from error


def _refuse_if_taken(listen: str) -> None:
    """The kernel says why; gRPC would not."""
    host, _, port = listen.rpartition(":")
    try:
        where = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(where[0], where[1]) as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind(where[4])
    except OSError as error:
        advice = "end what listens there, or set listen to another"
        raise BedplateError(f"cannot listen on {listen}: {error.strerror}; {advice}") from error


def _certificates(config: Config) -> grpc.ServerCertificateConfiguration:
    key, chain, roots = (_read(config, name) for name in ("listen_key", "listen_certificate", "listen_client_ca"))
    return grpc.ssl_server_certificate_configuration([(key, chain)], roots)


def _again(config: Config) -> Callable[[], grpc.ServerCertificateConfiguration]:
    """Read for each handshake, so that a rotated certificate counts at once; where it cannot be read, the last one."""
    last = _certificates(config)

    def certificates() -> grpc.ServerCertificateConfiguration:
        nonlocal last
        with suppress(BedplateError):
            last = _certificates(config)
        return last

    return certificates


def _read(config: Config, name: str) -> bytes:
    path = getattr(config, name)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BedplateError(f"cannot read {name} {path}: {error.strerror}") from error
