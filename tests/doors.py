"""Comes to a port as somebody, calls a method with next to nothing, and says what came of it."""

import asyncio
import contextlib
import importlib
import pkgutil
import time

import grpc
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

import bedplate.v1
from bedplate.v1.uplink_pb2 import Hello, SessionRequest
from provisioner import pki
from provisioner.pki import Authority, MachineIdentity, PersonIdentity, Role, key_pem, new_key
from tests.enrolment_desk import csr_of

NOW = time.time()
DAY = 86400.0
Pair = tuple[bytes, bytes]  # certificate and key
FIRST = {  # what a stream is begun with
    "/bedplate.v1.Uplink/Session": SessionRequest(hello=Hello(run_id=b"r" * 16)).SerializeToString(),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": reflection_pb2.ServerReflectionRequest(
        list_services=""
    ).SerializeToString(),
}


def served_files() -> list[FileDescriptor]:
    """All that the protos have, but the agent's own service: one that is new is among them without being named."""
    names = [found.name for found in pkgutil.iter_modules(bedplate.v1.__path__) if found.name.endswith("_pb2")]
    return [importlib.import_module(f"bedplate.v1.{name}").DESCRIPTOR for name in names if name != "node_pb2"]


def methods(*files: FileDescriptor) -> dict[str, MethodDescriptor]:
    """Of these, of health and of reflection, as they are called."""
    return {
        f"/{service.full_name}/{method.name}": method
        for file in (*files, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)
        for service in file.services_by_name.values()
        for method in service.methods
    }


def machine(ca: Authority, name: str, incarnation: int) -> Pair:
    key = new_key()
    who = MachineIdentity(name, incarnation)
    return ca.issue_machine(csr_of(key), who, lifetime_s=DAY, now=NOW).certificate_pem, key_pem(key)


def person(ca: Authority, name: str, role: str, *, now: float = NOW) -> Pair:
    return ca.issue_person(PersonIdentity(name, Role(role)), now=now)


def of_two_names(ca: Authority) -> Pair:
    """Which no provisioner makes: it says viewer, and admin."""
    key = new_key()
    uris = [x509.UniformResourceIdentifier(f"bedplate:person:eve:{role}") for role in ("viewer", "admin")]
    builder = pki._builder(key.public_key(), "eve", start=NOW - 60)
    alternatives = x509.SubjectAlternativeName(uris)
    return pki.pem(ca._signed(builder, key.public_key(), alternatives, Eku.CLIENT_AUTH, NOW + DAY)), key_pem(key)


def dial(address: str, ca: Authority, pair: Pair | tuple[None, None]) -> grpc.aio.Channel:
    certificate, key = pair
    secure = grpc.ssl_channel_credentials(ca.roots_pem, key, certificate)
    return grpc.aio.secure_channel(address, secure, [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)])


async def came_of(channel: grpc.aio.Channel, method: str, how: MethodDescriptor) -> str:
    """'in' where the handler answered or judged the request, else the reason of the refusal, or its code."""
    try:
        if how.server_streaming:
            await _streamed(channel, method, client_streams=how.client_streaming)
        else:
            await channel.unary_unary(method)(b"", timeout=10)
    except grpc.aio.AioRpcError as error:
        return _reason(error)
    return "in"


async def _streamed(channel: grpc.aio.Channel, method: str, *, client_streams: bool) -> None:
    """Up to the first message. A refusal may overtake what is being sent."""
    call = (
        channel.stream_stream(method)(timeout=10) if client_streams else channel.unary_stream(method)(b"", timeout=10)
    )
    if client_streams:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(FIRST[method])
    try:
        await call.read()
        if call.done() and await call.code() is not grpc.StatusCode.OK:
            raise AssertionError(await call.details())
    finally:
        call.cancel()


def _reason(error: grpc.aio.AioRpcError) -> str:
    status, info = rpc_status.from_call(error), error_details_pb2.ErrorInfo()
    if status and status.details[0].Unpack(info):
        judged = error.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
        return "in" if judged else info.reason
    return error.code().name
