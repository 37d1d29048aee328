"""The door to the provisioner: synchronous gRPC over mTLS, for as long as one command runs.

Rule 1: every call has a deadline, and every failure becomes a line for a person (`refusals`).
Rule 2: a write carries one request id through all its attempts, so that it happens once however often it is sent.
Rule 3: a read that cannot reach the provisioner is not tried again: the person is waiting, and learns why.
"""

import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message

from bedplate.v1.fleet_pb2_grpc import FleetStub
from provisioner.cli.contexts import Context
from provisioner.cli.diagnosis import UnusableError, credentials, reason
from provisioner.cli.refusals import UNREACHABLE, RefusedError, Status, refused

TIMEOUT_S = 10.0
LATER_S = 10.0  # a person does not wait for longer, and reads when to come back
WRITE_WAITS_S = (0.2, 0.5, 1.0)
LARGEST_MESSAGE = 16 << 20
OPTIONS = (
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.enable_http_proxy", 0),  # the way to the provisioner is the one in the context, whatever the shell says
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)
PASSING = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
logging.getLogger("grpc._common").setLevel(logging.CRITICAL)  # an answer that is none is said in a line, by `failure`

Request_contra = TypeVar("Request_contra", bound=Message, contravariant=True)
Response_co = TypeVar("Response_co", bound=Message, covariant=True)


class Unary(Protocol[Request_contra, Response_co]):
    def __call__(self, request: Request_contra, /, timeout: float | None = None) -> Response_co: ...


@dataclass(frozen=True, slots=True)
class Provisioner:
    """`wait` is the clock's part: it returns after so many seconds."""

    context: Context
    fleet: FleetStub
    wait: Callable[[float], object] = field(default=threading.Event().wait)

    def read(
        self,
        doing: str,
        method: Unary[Request_contra, Response_co],
        request: Request_contra,
        timeout_s: float = TIMEOUT_S,
    ) -> Response_co:
        """`doing` is how the failure would be told: "list machines". Told to come back soon, it does, once."""
        try:
            return method(request, timeout=timeout_s)
        except grpc.RpcError as error:
            if (wait_s := later_s(error)) is None:
                raise self.failure(doing, error) from error
            self.wait(wait_s)
        try:
            return method(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise self.failure(doing, error) from error

    def write(
        self, doing: str, method: Unary[Request_contra, Response_co], request: Callable[[str], Request_contra]
    ) -> Response_co:
        """`request` is given the request id."""
        message = request(str(uuid.uuid4()))
        for wait_s in WRITE_WAITS_S:
            try:
                return method(message, timeout=TIMEOUT_S)
            except grpc.RpcError as error:
                later = later_s(error)
                if error.code() not in PASSING and later is None:
                    raise self.failure(doing, error) from error
            self.wait(later or wait_s)
        return self.read(doing, method, message)

    def failure(self, doing: str, error: grpc.RpcError) -> RefusedError:
        """Where the provisioner was not reached, the reason is looked for step by step."""
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            why = reason(self.context) or error.details() or "it cannot be reached"
            return RefusedError(f"cannot {doing}: {why}", UNREACHABLE)
        if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            why = reason(self.context) or f"{self.context.address} did not answer in time"
            return refused(doing, Status("DEADLINE_EXCEEDED", why))
        return refused(doing, status(error))


@contextmanager
def connected(doing: str, context: Context) -> Iterator[Provisioner]:
    """The channel connects when it is first used."""
    try:
        pem = credentials(context)
    except UnusableError as error:
        raise RefusedError(f"cannot {doing}: {error}", UNREACHABLE) from error
    secure = grpc.ssl_channel_credentials(pem.ca, pem.key, pem.cert)
    with grpc.secure_channel(context.address, secure, OPTIONS) as channel:
        yield Provisioner(context, FleetStub(channel))


def later_s(error: grpc.RpcError) -> float | None:
    """When it may come back, where the provisioner said so and it is worth waiting for; it was refused as too fast."""
    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return None
    from google.rpc import error_details_pb2 as details  # noqa: PLC0415 - 20 ms that only a failure pays

    for packed in _details(error):
        again = details.RetryInfo()
        if _holds(packed, again):
            wait_s = again.retry_delay.seconds + again.retry_delay.nanos / 1e9
            return max(wait_s, 0.0) if wait_s <= LATER_S else None
    return None


def status(error: grpc.RpcError) -> Status:
    """With what google.rpc's details say, for those that this program knows."""
    from google.rpc import error_details_pb2 as details  # noqa: PLC0415

    violations: list[str] = []
    cures: list[str] = []
    why = details.ErrorInfo()
    for packed in _details(error):
        bad, cure, local = details.BadRequest(), details.Help(), details.LocalizedMessage()
        if _holds(packed, bad):
            violations += [violation.description for violation in bad.field_violations if violation.description]
        elif _holds(packed, cure):
            cures += [link.description or link.url for link in cure.links]
        elif _holds(packed, local):
            cures.append(local.message)
        else:
            _holds(packed, why)
    return Status(error.code().name, error.details() or "", tuple(violations), tuple(cures), why.reason)


def _holds(packed: Any, message: Message) -> bool:
    """Unpacked into the message, where it is one of that kind and not garbled."""
    try:
        return bool(packed.Unpack(message))
    except DecodeError:
        return False


def _details(error: grpc.RpcError) -> Sequence[Any]:
    """The google.rpc details of a status, packed."""
    from grpc_status import rpc_status  # noqa: PLC0415

    try:
        rich = rpc_status.from_call(cast("grpc.Call", error))  # what a stub raises is both
    except (ValueError, DecodeError):  # details that contradict the status, or are none
        rich = None
    return rich.details if rich is not None else ()
