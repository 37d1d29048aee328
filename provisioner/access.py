"""Who may call what.

Rule 1: each method of each service has its row here. A method without one is denied, and fails a test.
Rule 2: who calls is what the certificate says that TLS has verified, and nothing that the request says.
Rule 3: machines call the uplink, and else only what is open to all; people never call the uplink.
Rule 4: a machine that was forgotten, or whose certificate is of an older incarnation, is refused at the door.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NoReturn, Protocol

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from provisioner.errors import BedplateError
from provisioner.pki import MachineIdentity, PersonIdentity, identity
from provisioner.world import World

DOMAIN: Final = "bedplate"


class Who(Enum):
    ANYONE = "anyone"  # without a certificate too
    MACHINE = "a machine"
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


_E, _U, _F = "/bedplate.v1.Enrolment/", "/bedplate.v1.Uplink/", "/bedplate.v1.Fleet/"
_H, _R = "/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/"
_R1 = "/grpc.reflection.v1.ServerReflection/"

METHODS: Final[Mapping[str, Who]] = {
    _E + "Enrol": Who.ANYONE,  # its door is the join token
    _U + "Session": Who.MACHINE,
    _U + "Renew": Who.MACHINE,
    _F + "ListMachines": Who.VIEWER,
    _F + "GetMachine": Who.VIEWER,
    _F + "WatchMachines": Who.VIEWER,
    _F + "ListEvents": Who.VIEWER,
    _F + "WatchEvents": Who.VIEWER,
    _F + "GetMachineTopology": Who.VIEWER,
    _F + "ExplainMachine": Who.VIEWER,
    _F + "GetStatus": Who.VIEWER,
    _F + "ListTokens": Who.OPERATOR,
    _F + "ListAudit": Who.OPERATOR,  # who writes may see what was written: the night shift asks who did it
    _F + "AcceptMachine": Who.OPERATOR,
    _F + "ForgetMachine": Who.OPERATOR,
    _F + "RevokeMachine": Who.OPERATOR,
    _F + "RekeyMachine": Who.OPERATOR,
    _F + "CreateToken": Who.OPERATOR,
    _F + "RevokeToken": Who.OPERATOR,
    _H + "Check": Who.ANYONE,
    _H + "Watch": Who.ANYONE,
    _H + "List": Who.ANYONE,
    _R + "ServerReflectionInfo": Who.ANYONE,  # it tells what the published protos tell
    _R1 + "ServerReflectionInfo": Who.ANYONE,
}

_ENOUGH: Final[Mapping[Who, frozenset[str]]] = {
    Who.ANYONE: frozenset({"", "machine", "viewer", "operator", "admin"}),
    Who.MACHINE: frozenset({"machine"}),
    Who.VIEWER: frozenset({"viewer", "operator", "admin"}),
    Who.OPERATOR: frozenset({"operator", "admin"}),
    Who.ADMIN: frozenset({"admin"}),
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as the certificate says."""

    name: str = ""  # of a person; of a machine, its id
    role: str = ""  # "viewer", "operator", "admin", "machine"; empty: nobody that we know
    machine_id: str = ""
    incarnation: int = 0

    def __str__(self) -> str:
        """As in events: 'machine m-4kq7zt2x', 'alice (admin)'."""
        if self.role == "machine":
            return f"machine {self.machine_id}"
        return f"{self.name} ({self.role})" if self.role else "somebody without a certificate"


NOBODY: Final = Caller()


class RefusedError(BedplateError):
    """A call that is ended with a status: raised by whoever serves it, made into the status by the guard."""

    def __init__(self, code: grpc.StatusCode, reason: str, line: str, *details: Message, **facts: str) -> None:
        super().__init__(line)
        self.code = code
        self.reason = reason  # for programs: "ROLE_TOO_LOW"
        self.line = line  # for people
        self.details = details
        self.facts = facts  # for programs: revision="17"


def caller_of(uris: list[str]) -> Caller:
    """The caller of a certificate with these URI names. One that says two things, or none of ours, is nobody."""
    who = identity(uris[0]) if len(uris) == 1 else None
    match who:
        case MachineIdentity(machine_id, incarnation):
            return Caller(machine_id, "machine", machine_id, incarnation)
        case PersonIdentity(name, role):
            return Caller(name, role.value)
        case None:
            return NOBODY


def caller(context: Any) -> Caller:
    """Who is at the other end of this call (a ServicerContext of grpc or grpc.aio)."""
    return caller_of([uri.decode("utf-8", "replace") for uri in context.auth_context().get("peer_uri", ())])


def denial(method: str, who: Caller) -> RefusedError | None:
    """Why this caller may not call this method; None where it may."""
    needed = METHODS.get(method)
    if needed is None:
        line = f"cannot call {method}: nobody may, for it has no row in the table of who may call what"
        return RefusedError(grpc.StatusCode.PERMISSION_DENIED, "METHOD_WITHOUT_A_ROW", line)
    if who.role in _ENOUGH[needed]:
        return None
    if who == NOBODY:
        line = f"cannot call {method}: present a client certificate of this provisioner's CA"
        return RefusedError(grpc.StatusCode.UNAUTHENTICATED, "NO_IDENTITY", line)
    need = "a machine's certificate" if needed is Who.MACHINE else f"the role {needed.value}"
    line = f"cannot call {method}: {who} may not; it takes {need}"
    return RefusedError(grpc.StatusCode.PERMISSION_DENIED, "ROLE_TOO_LOW", line)


def standing(who: MachineIdentity, world: World) -> RefusedError | None:
    """Why this machine's certificate is worth nothing (any more); None where it is good."""
    facts = world.machines.get(who.machine_id)
    if facts is None or facts.forgotten_at is not None:
        line = f"machine {who.machine_id} is not known here (any more): enrol it again with a new join token"
        return RefusedError(grpc.StatusCode.PERMISSION_DENIED, "MACHINE_FORGOTTEN", line)
    if facts.revoked:
        line = (
            f"the certificate of machine {who.machine_id} was revoked: give the agent the join token that "
            f"`bedplate machine rekey {who.machine_id}` makes; it makes a new key by itself"
        )
        return RefusedError(grpc.StatusCode.PERMISSION_DENIED, "CERTIFICATE_REVOKED", line)
    if who.incarnation != facts.incarnation:
        line = (
            f"the certificate is of incarnation {who.incarnation} of machine {who.machine_id}, which is at "
            f"{facts.incarnation}: whatever still holds it is not that machine any more; enrol it with a new join token"
        )
        return RefusedError(grpc.StatusCode.PERMISSION_DENIED, "OLDER_INCARNATION", line)
    if facts.accepted_at is None:
        line = f"machine {who.machine_id} waits for a person: {facts.waits_because}"
        return RefusedError(grpc.StatusCode.PERMISSION_DENIED, "MACHINE_PENDING", line)
    return None


async def refuse(context: Any, refused: RefusedError) -> NoReturn:
    """End the call with a status whose details a program can read: google.rpc.ErrorInfo, then those given."""
    status = status_pb2.Status(code=refused.code.value[0], message=refused.line)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=refused.reason, domain=DOMAIN, metadata=refused.facts))
    for detail in refused.details:
        status.details.add().Pack(detail)
    try:
        await context.abort(refused.code, refused.line, (("grpc-status-details-bin", status.SerializeToString()),))
    except grpc.aio.InternalError as error:  # it went away instead of reading that: as if it had hung up before
        raise asyncio.CancelledError from error
    raise AssertionError("abort does not return")


Behaviour = Callable[[Any, Any], Any]
Check = Callable[[Any], AbstractAsyncContextManager[None]]  # for as long as the call runs


class Passing(Protocol):
    """Lets a call pass that may be made, when it may; RefusedError where it is to come back later."""

    def __call__(self, method: str, who: Caller, peer: str, /, *, stays: bool) -> AbstractAsyncContextManager[None]: ...


def _everybody(_method: str, _who: Caller, _peer: str, *, stays: bool) -> AbstractAsyncContextManager[None]:  # noqa: ARG001
    """Where nobody counts."""
    return nullcontext()


class Guard(grpc.aio.ServerInterceptor):
    """Stands before every method of a server. `world` is the one door to who is known now, `passing` to how many call,
    `refused` is told the reason of each refusal.
    """

    def __init__(
        self,
        world: Callable[[], World],
        passing: Passing = _everybody,
        refused: Callable[[str], object] = str,
    ) -> None:
        self._world = world
        self._passing = passing
        self._refused = refused

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """The certificate is known only once the call runs: so each handler is wrapped, not judged, here."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        return handler and _guarded(handler, lambda context: self._entered(method, context, handler.response_streaming))

    @asynccontextmanager
    async def _entered(self, method: str, context: Any, stays: bool) -> AsyncIterator[None]:  # noqa: FBT001 - one caller
        """For as long as the call runs; what is refused in it is the call's status."""
        try:
            who = caller(context)
            self._check(method, who)
            async with self._passing(method, who, context.peer(), stays=stays):
                yield
        except RefusedError as refused:
            self._refused(refused.reason)
            await refuse(context, refused)

    def _check(self, method: str, who: Caller) -> None:
        refused = denial(method, who)
        if refused is None and METHODS[method] is Who.MACHINE:
            refused = standing(MachineIdentity(who.machine_id, who.incarnation), self._world())
        if refused is not None:
            raise refused


class Undecodable:
    """Stands where a message would, had it been one."""


UNDECODABLE: Final = Undecodable()


def _decoding(deserializer: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """What cannot be decoded is the peer's fault, and no error of ours with a page of the log for each."""
    if deserializer is None:
        return None

    def decoded(octets: bytes) -> Any:
        try:
            return deserializer(octets)
        except DecodeError:
            return UNDECODABLE

    return decoded


def _whole(request: Any) -> None:
    if request is UNDECODABLE:
        line = "cannot read the request: it is no message of this method; see docs/api.md"
        raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "UNDECODABLE", line)


def _guarded(handler: Any, check: Check) -> Any:
    serializers = {
        "request_deserializer": _decoding(handler.request_deserializer),
        "response_serializer": handler.response_serializer,
    }
    match handler.request_streaming, handler.response_streaming:
        case False, False:
            return grpc.unary_unary_rpc_method_handler(_one(handler.unary_unary, check), **serializers)
        case False, True:
            return grpc.unary_stream_rpc_method_handler(_many(handler.unary_stream, check), **serializers)
        case True, False:
            return grpc.stream_unary_rpc_method_handler(_one(handler.stream_unary, check), **serializers)
        case _:
            return grpc.stream_stream_rpc_method_handler(_many(handler.stream_stream, check), **serializers)


def _one(behaviour: Behaviour, check: Check) -> Behaviour:
    async def guarded(request: Any, context: Any) -> Any:
        async with check(context):
            _whole(request)
            return await behaviour(request, context)

    return guarded


def _many(behaviour: Behaviour, check: Check) -> Behaviour:
    """The server tells generators from those that write by looking at the function: so there is a wrapper for each."""
    if not inspect.isasyncgenfunction(behaviour):
        return _one(behaviour, check)

    async def guarded(request: Any, context: Any) -> AsyncIterator[Any]:
        async with check(context):
            _whole(request)
            async for response in behaviour(request, context):
                yield response

    return guarded
