"""Who may call what on this host.

Rule 1: each method has its row in METHODS. A method without one is denied, and fails a test.
Rule 2: who came in by the unix socket was judged by the gate, and may do all. Over TCP the role stands in the client
        certificate that TLS has verified; nothing that a request says counts.
Rule 3: a machine is never a caller: its certificate opens the way to the provisioner, not to its neighbours.
"""

import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from nodeagent.errors import BedplateError

DOMAIN: Final = "bedplate"
ROLES: Final = ("viewer", "operator", "admin")  # each may what those before it may
LOCAL: Final = "admin"

_N, _H, _R = "/bedplate.v1.NodeAgent/", "/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/"
METHODS: Final[Mapping[str, str]] = {
    _N + "GetSnapshot": "viewer",
    _N + "WatchSnapshot": "viewer",
    _N + "GetTopology": "viewer",
    _N + "Explain": "viewer",
    _N + "Capture": "operator",
    _H + "Check": "viewer",
    _H + "Watch": "viewer",
    _H + "List": "viewer",
    _R + "ServerReflectionInfo": "viewer",
}
PERSON: Final = re.compile(r"bedplate:person:([a-z0-9][a-z0-9._@-]{0,62}):(viewer|operator|admin)", re.ASCII)


class RefusedError(BedplateError):
    """A call that is ended with a status. `reason` is for programs: "ROLE_TOO_LOW"."""

    def __init__(self, code: grpc.StatusCode, reason: str, line: str) -> None:
        super().__init__(line)
        self.code = code
        self.reason = reason


def role_of(uris: Sequence[str]) -> str:
    """The role in a certificate with these URI names; nothing where it says two things, or is no person's."""
    person = PERSON.fullmatch(uris[0]) if len(uris) == 1 else None
    return person[2] if person else ""


def denial(method: str, role: str) -> RefusedError | None:
    """Why this role may not call this method; None where it may."""
    needed = METHODS.get(method)
    if needed is None:
        line = f"cannot call {method}: nobody may, for it has no row in the table of who may call what"
        return RefusedError(grpc.StatusCode.PERMISSION_DENIED, "METHOD_WITHOUT_A_ROW", line)
    if not role:
        line = f"cannot call {method}: present the client certificate of a person with the role {needed}"
        return RefusedError(grpc.StatusCode.PERMISSION_DENIED, "NOT_A_PERSON", line)
    if ROLES.index(role) < ROLES.index(needed):
        line = f"cannot call {method}: it takes the role {needed}, and the certificate says {role}"
        return RefusedError(grpc.StatusCode.PERMISSION_DENIED, "ROLE_TOO_LOW", line)
    return None


def role(context: Any) -> str:
    """The role of who is at the other end of this call."""
    if context.peer().startswith("unix:"):
        return LOCAL
    return role_of([uri.decode("utf-8", "replace") for uri in context.auth_context().get("peer_uri", ())])


async def refuse(context: Any, refused: RefusedError) -> NoReturn:
    """End the call with a status whose details a program can read: google.rpc.ErrorInfo."""
    status = status_pb2.Status(code=refused.code.value[0], message=str(refused))
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=refused.reason, domain=DOMAIN))
    await context.abort(refused.code, str(refused), (("grpc-status-details-bin", status.SerializeToString()),))
    raise AssertionError("abort does not return")


Behaviour = Callable[[Any, Any], Any]
UNDECODABLE: Final = object()  # stands where a message would, had it been one


class Guard(grpc.aio.ServerInterceptor):
    """Stands before every method of the server, and makes statuses of refusals."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """The certificate is known only once the call runs: so each handler is wrapped, not judged, here."""
        handler = await continuation(handler_call_details)
        return handler and _guarded(handler, handler_call_details.method)


def _decoding(deserializer: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """What cannot be decoded is the caller's fault, and no error of ours with a page of the log for each."""
    if deserializer is None:
        return None

    def decoded(octets: bytes) -> Any:
        try:
            return deserializer(octets)
        except DecodeError:
            return UNDECODABLE

    return decoded


def _guarded(handler: Any, method: str) -> Any:
    def made(make: Callable[..., Any], behaviour: Behaviour) -> Any:
        return make(
            behaviour,
            request_deserializer=_decoding(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    match handler.request_streaming, handler.response_streaming:
        case False, False:
            return made(grpc.unary_unary_rpc_method_handler, _one(handler.unary_unary, method))
        case False, True:
            return made(grpc.unary_stream_rpc_method_handler, _many(handler.unary_stream, method))
        case True, False:
            return made(grpc.stream_unary_rpc_method_handler, _one(handler.stream_unary, method))
        case _:
            return made(grpc.stream_stream_rpc_method_handler, _many(handler.stream_stream, method))


def _one(behaviour: Behaviour, method: str) -> Behaviour:
    async def guarded(request: Any, context: Any) -> Any:
        try:
            _check(method, context, request)
            return await behaviour(request, context)
        except RefusedError as refused:
            await refuse(context, refused)

    return guarded


def _many(behaviour: Behaviour, method: str) -> Behaviour:
    """The server tells generators from those that write by looking at the function: so there is a wrapper for each."""
    if not inspect.isasyncgenfunction(behaviour):
        return _one(behaviour, method)

    async def guarded(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            _check(method, context, request)
            async for response in behaviour(request, context):
                yield response
        except RefusedError as refused:
            await refuse(context, refused)

    return guarded


def _check(method: str, context: Any, request: Any) -> None:
    if refused := denial(method, role(context)):
        raise refused
    if request is UNDECODABLE:
        line = f"cannot call {method}: the request is no message of this method; see docs/api.md"
        raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "UNDECODABLE", line)
