"""The gRPC edge of our conversation with the provisioner: it dials, carries messages, and decides nothing.

Rule 1: the agent dials out only. Presence is the stream itself, kept alive by HTTP/2 pings that the gRPC core answers.
Rule 2: every stream has a channel of its own, so that a new certificate and a new address are taken at once.
Rule 3: when to dial again, and what to send, is the session's to say.
Rule 4: whatever the other end does, it holds up nobody here: a stream that takes nothing for a while is given up, and
        what was not foreseen costs one stream, never the agent.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from bedplate.v1.snapshot_pb2 import Snapshot
from bedplate.v1.uplink_pb2 import SessionRequest, SessionResponse
from bedplate.v1.uplink_pb2_grpc import UplinkStub
from nodeagent.errors import BedplateError
from nodeagent.meeting import COME_ANEW, Met, trouble
from nodeagent.refusal import retry_after
from nodeagent.session import PeerError, Session, State

LOG = logging.getLogger("nodeagent")
WELCOME_S = 30.0
PATIENCE_S = 10.0
GOODBYE_S = 2.0
CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 20_000),  # less than the provisioner's: one end asks, and this is the one that must dial
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # a minute, if nobody says otherwise
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 1 << 20),
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)
REFUSED = f"does it take this machine's certificate no more (over, or its CA changed)? Then {COME_ANEW}"
UNREACHABLE = re.compile("Connection refused|No route to host|Connection timed out|Network is unreachable")
Call = grpc.aio.StreamStreamCall[SessionRequest, SessionResponse]


class Identity(Protocol):
    """What it takes to be somebody: a certificate, its key, the roots, and where to dial."""

    @property
    def certificate_pem(self) -> bytes: ...
    @property
    def key_pem(self) -> bytes: ...
    @property
    def ca_pem(self) -> bytes: ...
    @property
    def uplink_addresses(self) -> Sequence[str]: ...


def channel(identity: Identity, address: str) -> grpc.aio.Channel:
    """A channel of its own to the provisioner, as this machine."""
    credentials = grpc.ssl_channel_credentials(identity.ca_pem, identity.key_pem, identity.certificate_pem)
    return grpc.aio.secure_channel(address, credentials, CHANNEL_OPTIONS)


@dataclass(slots=True)
class Uplink:
    """One for the life of an agent. `identity` gives None as long as there is none."""

    session: Session
    identity: Callable[[], Identity | None]
    clock: Callable[[], float] = time.monotonic
    said: Callable[[str], object] = LOG.info
    address: str = ""
    refused: Callable[[str], None] = LOG.debug  # told why this machine's certificate is taken no more, or ""
    stranded: Callable[[str], None] = LOG.debug  # told why none comes to be though somebody answers, or ""
    patience_s: float = PATIENCE_S  # with an end that takes nothing of what is sent
    dial: Callable[[Identity, str], grpc.aio.Channel] = channel
    wall_ns: Callable[[], int] = time.time_ns  # this host's clock, as data
    _call: Call | None = None
    _sending: asyncio.Lock = field(default_factory=asyncio.Lock)
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _leaving: bool = False
    _attempts: int = 0

    async def observe(self, snapshot: Snapshot, inventory: bytes, digest: bytes) -> None:
        """A new snapshot: what of it the provisioner lacks is sent, if there is a stream."""
        first = not self.session.ready
        await self._send(self.session.observe(snapshot, inventory, digest, self.clock()))
        if first:
            self._woken.set()

    def wake(self) -> None:
        """Something changed (an identity came, the configuration): dial now."""
        self.session.dial_at = 0.0
        self._woken.set()

    async def run(self) -> None:
        """Dials, talks, is lost, dials again; until `stop`."""
        while not self._leaving:
            await self._until_dialling()
            identity = self.identity()
            if identity is None:
                await self._pause(None)
                continue
            try:
                await self._talk(identity)
            except BedplateError as error:
                self._give_up(str(error))
            except Exception as error:
                LOG.exception("cannot talk to %s", self.address)
                self._give_up(f"cannot talk to {self.address}: {type(error).__name__}: {error}")

    async def stop(self, because: str) -> None:
        """Say goodbye, and give the word a moment to arrive."""
        self._leaving = True
        call = self._call
        messages = self.session.goodbye(because, self.clock())
        if call is None or call.done() or not messages:
            return
        try:
            async with asyncio.timeout(GOODBYE_S):
                await self._write(call, messages)
                await call.done_writing()
                await self._over.wait()  # whoever reads the stream reads it to its end
        except (TimeoutError, grpc.RpcError, asyncio.InvalidStateError, PeerError):
            LOG.debug("the goodbye may not have arrived")

    def _give_up(self, because: str) -> None:
        self.session.lost(because, self.clock())
        self.said(because)

    async def _until_dialling(self) -> None:
        while not self.session.ready or self.clock() < self.session.dial_at:
            await self._pause(self.session.dial_at - self.clock() if self.session.ready else None)

    async def _pause(self, seconds: float | None) -> None:
        self._woken.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _talk(self, identity: Identity) -> None:
        """One stream, from dialling to its loss."""
        session, because, retry_after_s = self.session, "", None
        self.address = self._next(identity.uplink_addresses)
        try:
            async with self.dial(identity, self.address) as link:
                self._over.clear()
                self._call = call = UplinkStub(link).Session()
                try:
                    await self._converse(call)
                    if session.state is not State.CLOSED:  # nobody waits for whoever dismissed us to end it, too
                        because = await ended(call)
                finally:
                    call.cancel()  # or it goes on, and its connection with it, when its channel is closed
        except grpc.aio.AioRpcError as error:
            because, retry_after_s = await self._trouble(identity, error), retry_after(error)
            if error.code() is grpc.StatusCode.PERMISSION_DENIED:
                self.refused(because)
        except asyncio.InvalidStateError:
            because = f"cannot reach {self.address}: the stream ended while it was written to"
        except PeerError as error:
            because = f"cannot go on with {self.address}: {error}"
        except TimeoutError:
            because = f"cannot reach {self.address}: no welcome within {WELCOME_S:.0f} s"
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) and task.cancelling():
                raise  # it is we who are to end; otherwise it is the stream that was given up
            because = f"cannot go on with {self.address}: it took nothing for {self.patience_s:g} s"
        finally:
            self._call = None
            self._over.set()
        if session.state is not State.CLOSED:
            session.lost(because, self.clock(), retry_after_s)
        self.said(session.because)

    async def _trouble(self, identity: Identity, error: grpc.aio.AioRpcError) -> str:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            return f"cannot talk to {self.address}: {error.details() or error.code().name}"
        known = UNREACHABLE.search(error.details() or "")
        reason = known[0] if known else await trouble(Met(self.address, identity.ca_pem))
        because = f"cannot reach {self.address}: {reason or cause(error)}"
        if not known:
            self.stranded(because)
        return because

    async def _converse(self, call: Call) -> None:
        sent_at = Timestamp()
        sent_at.FromNanoseconds(self.wall_ns())
        async with asyncio.timeout(WELCOME_S) as limit:
            for message in self.session.connected(self.clock(), sent_at):
                await call.write(message)  # waits for the connection too
            while (heard := await call.read()) is not grpc.aio.EOF:
                if not isinstance(heard, SessionResponse):  # grpc gives None for what it cannot decode
                    raise PeerError("what it says is no message of this protocol")
                if self._leaving:
                    continue
                await self._write(call, self.session.receive(heard, self.clock()))
                if self.session.state is State.OPEN and limit.when() is not None:
                    limit.reschedule(None)
                    self.refused("")
                    self.stranded("")
                    self.said(f"connected to {self.address}")
                if self.session.state is State.CLOSED:
                    return

    async def _send(self, messages: Sequence[SessionRequest]) -> None:
        """On the open stream; that it just broke is noticed by whoever reads it."""
        if messages and (call := self._call):
            try:
                await self._write(call, messages)
            except (grpc.RpcError, asyncio.InvalidStateError, PeerError):
                LOG.debug("the stream broke while sending")

    async def _write(self, call: Call, messages: Sequence[SessionRequest]) -> None:
        """PeerError where the other end takes nothing for too long: what waits then is lost with the stream."""
        try:
            async with asyncio.timeout(self.patience_s), self._sending:
                for message in messages:
                    await call.write(message)
        except TimeoutError:
            call.cancel()
            raise PeerError(f"it took nothing for {self.patience_s:g} s") from None

    def _next(self, addresses: Sequence[str]) -> str:
        """The provisioner's addresses, one after the other."""
        if not addresses:
            raise BedplateError("cannot dial: the identity names no address; remove identity.json to enrol again")
        self._attempts += 1
        return addresses[(self._attempts - 1) % len(addresses)]


async def ended(call: Call) -> str:
    """How a stream that was read to its end ended."""
    code, details = await call.code(), await call.details()
    return f"the provisioner ended the stream: {details or code.name}"


def cause(error: grpc.aio.AioRpcError) -> str:
    """The last of gRPC's many words: 'failed to connect …; last error: Socket closed' -> 'Socket closed'"""
    last = (error.details() or error.code().name).split("last error: ")[-1][:300]
    return f"{last}; {REFUSED}" if last.endswith("Socket closed") else last
