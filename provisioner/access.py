"""Who may call what.

Rule 1: each method of each service has its row here. A method without one is denied, and fails a test.
Rule 2: who calls is what the certificate says that TLS has verified, and nothing that the request says.
Rule 3: machines call the uplink, and else only what is open to all; people never call the uplink.
Rule 4: a machine that was forgotten, or whose certificate is of an older incarnation, is refused at the door.
Rule 5: of whoever may not call nothing is read; of whoever may, so much at a time, and no longer than REQUEST_S.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import Any, Final, Protocol

import grpc

from provisioner.arrivals import Arrivals
from provisioner.calls import Calls
from provisioner.handlers import Come, guarded
from provisioner.pki import MachineIdentity, PersonIdentity, identity
from provisioner.ports import REQUEST_S
from provisioner.refusal import RefusedError as RefusedError  # noqa: PLC0414 - whoever refuses looks for it here
from provisioner.refusal import refuse
from provisioner.shown import NOTHING, Shown, shown
from provisioner.world import World


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
    _F + "ListCredentials": Who.OPERATOR,
    _F + "RevokeCredential": Who.ADMIN,
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
    by: Shown = field(default=NOTHING, compare=False, repr=False)  # the certificate; who calls is the same by another

    def __str__(self) -> str:
        """As in events: 'machine m-4kq7zt2x', 'alice (admin)'."""
        if self.role == "machine":
            return f"machine {self.machine_id}"
        return f"{self.name} ({self.role})" if self.role else "somebody without a certificate"


NOBODY: Final = Caller()
ANOTHER: Final = "another is made on the provisioner's host, with `provisioner credential`"


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
    said = context.auth_context()
    who = caller_of([uri.decode("utf-8", "replace") for uri in said.get("peer_uri", ())])
    pems = said.get("x509_pem_cert", ())
    return replace(who, by=shown(pems[0])) if pems and who != NOBODY else who


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


def taken_back(who: Caller, world: World) -> RefusedError | None:
    """Why this person's certificate is worth nothing any more; None where it is good."""
    at = world.revoked.get(("", who.by.serial_number))
    made_until = world.revoked.get((who.name, ""))
    if at is None and (made_until is None or who.by.issued_at > made_until):
        return None
    line = f"the certificate of {who} with serial number {who.by.serial_number} was revoked: {ANOTHER}"
    return RefusedError(grpc.StatusCode.PERMISSION_DENIED, "CREDENTIAL_REVOKED", line)


def untrusted(who: Caller, trusted: frozenset[bytes]) -> RefusedError | None:
    """Why the root of this certificate is not enough: the connection is older than what is trusted now."""
    if who == NOBODY or who.by.issuer in trusted:
        return None
    again = "enrol it again with a new join token; it stays who it is" if who.machine_id else ANOTHER
    line = f"the certificate of {who} is of a CA that is trusted no more: {again}"
    return RefusedError(grpc.StatusCode.PERMISSION_DENIED, "CA_DROPPED", line)


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


class Gate(Protocol):
    """Lets a call pass that may be made, when it may: for as long as it runs, while its request comes, and while it is
    worked at. RefusedError where it is to come back later.
    """

    def passing(self, method: str, who: Caller, peer: str, /, *, stays: bool) -> AbstractAsyncContextManager[None]: ...
    def reading(self, who: Caller, peer: str, /) -> AbstractAsyncContextManager[None]: ...
    def turn(self, who: Caller, /, *, stays: bool) -> AbstractAsyncContextManager[None]: ...


class _Open:
    """Where nobody counts."""

    def passing(self, *_: Any, **__: Any) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    reading = turn = passing


@dataclass(frozen=True, eq=False)
class Guard(grpc.aio.ServerInterceptor):
    """Stands before every method of a server. `world` is the one door to who is known now, `gate` to how many call,
    `refused` is told the reason of each refusal, and `broken_off` the method whose request never came whole.

    With other `arrivals` (dataclasses.replace) it is the same guard at another port.
    """

    world: Callable[[], World]
    gate: Gate = field(default_factory=_Open)
    refused: Callable[[str], object] = str
    trusted: Callable[[], frozenset[bytes]] | None = None  # ids of the roots' keys; None: TLS alone says who comes in
    broken_off: Callable[[str], object] = str
    arrivals: Arrivals = field(default_factory=lambda: Arrivals(0.0))
    calls: Calls = field(default_factory=Calls)
    request_s: float = REQUEST_S

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """The certificate is known only once the call runs: so each handler is wrapped, not judged, here."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return grpc.stream_unary_rpc_method_handler(partial(self._unserved, method))
        check = partial(self._entered, method, stays=bool(handler.response_streaming))
        return guarded(handler, check, of_machine=METHODS.get(method) is Who.MACHINE)

    async def _unserved(self, method: str, _: Any, context: Any) -> None:
        """As gRPC answers by itself, and counted."""
        self.arrivals.leave(self.arrivals.enter(context.peer()))
        line = f"cannot call {method}: this port serves no such method"
        refused = RefusedError(grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN", line)
        self.refused(refused.reason)
        await refuse(context, refused)

    @asynccontextmanager
    async def _entered(self, method: str, context: Any, come: Come | None, *, stays: bool) -> AsyncIterator[Any]:
        """For as long as the call runs; what is refused in it is the call's status."""
        peer = context.peer()
        arrived = self.arrivals.enter(peer)
        try:
            who = caller(context)
            verdict = partial(self._verdict, method, who)
            with self.calls.standing(verdict) if stays else nullcontext():  # first of all: no moment lies between
                if refused := verdict():
                    raise refused
                async with self.gate.passing(method, who, peer, stays=stays):
                    request = await self._come(method, context, come, self.gate.reading(who, peer)) if come else None
                    async with self.gate.turn(who, stays=stays):
                        if refused := verdict():  # the world has moved while it waited, or came
                            raise refused
                        yield request
        except RefusedError as refused:
            self.refused(refused.reason)
            await refuse(context, refused)
        finally:
            self.arrivals.leave(arrived)

    async def _come(self, method: str, context: Any, come: Come, reading: AbstractAsyncContextManager[None]) -> Any:
        """What the call came with. One that broke off before that was whole ends here, and mostly nobody hears it."""
        try:
            async with asyncio.timeout(self.request_s), reading:
                request = await come()
        except TimeoutError:
            line = f"cannot read the request: it was not whole within {self.request_s:g} s"
            raise RefusedError(grpc.StatusCode.DEADLINE_EXCEEDED, "REQUEST_TOO_SLOW", line) from None
        except asyncio.CancelledError:
            self.broken_off(method)
            raise
        if request is grpc.aio.EOF:
            self.broken_off(method)
            line = "cannot read the request: the call ended before it was whole"
            await refuse(context, RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "UNDECODABLE", line))
        return request

    def _verdict(self, method: str, who: Caller) -> RefusedError | None:
        """Why this call may not begin, or not go on."""
        if refused := denial(method, who):
            return refused
        world = self.world()
        if self.trusted and (refused := untrusted(who, self.trusted())):
            return refused
        if METHODS[method] is Who.MACHINE:
            return standing(MachineIdentity(who.machine_id, who.incarnation), world)
        return taken_back(who, world) if who.role and not who.machine_id else None
