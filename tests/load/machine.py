"""One machine of the generator: a TLS connection, and what it has said on it and not heard back of."""

import asyncio
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bedplate.v1.uplink_pb2 import SessionResponse
from tests.load import dials
from tests.load.wire import PING_FRAME, Wire

SESSION, RENEW = "/bedplate.v1.Uplink/Session", "/bedplate.v1.Uplink/Renew"


@dataclass(slots=True, weakref_slot=True)
class Machine(asyncio.Protocol):
    number: int
    certificate: Path
    dials: dials.Dials
    run_id: bytes = field(default_factory=lambda: os.urandom(16))
    sequence: int = 0
    acknowledged: int = 0
    bodies: int = 0  # inventories that were sent
    lost: int = 0
    wire: Wire = field(default_factory=Wire)
    inventory: tuple[bytes, bytes] = (b"", b"")
    heard: "asyncio.Event" = field(default_factory=asyncio.Event)
    answered: Callable[[], None] = lambda: None
    _transport: asyncio.WriteTransport | None = None
    _welcomed: "asyncio.Future[bool] | None" = None

    async def dial(self, port: int) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # whom it meets it knows
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(self.certificate)
        self.wire = Wire()
        await asyncio.get_running_loop().create_connection(
            lambda: self, "127.0.0.1", port, ssl=context, ssl_handshake_timeout=60
        )

    async def meet(self, port: int) -> None:
        """Dialled, and past the welcome; its vitals are on their way."""
        self.inventory = self.dials.body(self.number)
        self._welcomed = asyncio.get_running_loop().create_future()
        await self.dial(port)
        self.wire.call(SESSION)
        self.say(dials.hello(self.run_id, self.inventory[0]))
        await self._welcomed
        self.delta(self.dials.whole)

    def delta(self, body: bytes) -> None:
        self.sequence += 1
        self.say(dials.numbered(body, self.sequence))

    def small(self) -> None:
        """The next of the deltas that this machine has to tell."""
        self.delta(self.dials.small[(self.number + self.sequence) % len(self.dials.small)])

    def snapshot(self, number: int) -> None:
        """All its vitals, and an inventory that nobody has: it will be asked for that."""
        self.inventory = self.dials.body(number)
        self.delta(self.dials.whole + dials.named(self.inventory[0]))

    def unary(self, body: bytes) -> None:
        self.wire.call(RENEW)
        self.wire.send(body, last=True)
        self.flush()

    def say(self, message: bytes) -> None:
        self.wire.send(message)
        self.flush()

    def ping(self) -> None:
        if self._transport:
            self._transport.write(PING_FRAME)

    def flush(self) -> None:
        if self._transport and self.wire.out:
            self._transport.write(b"".join(self.wire.out))
            self.wire.out.clear()

    def hang_up(self) -> None:
        if self._transport:
            self._transport.abort()

    # -- asyncio's -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for message in self.wire.receive(data):
            self._hear(SessionResponse.FromString(message))
        if self.wire.ended:
            self.answered()
        self.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.lost += 1
        if self._welcomed and not self._welcomed.done():
            self._welcomed.set_exception(ConnectionError(f"machine {self.number} was not welcomed: {error}"))

    def _hear(self, message: SessionResponse) -> None:
        match message.WhichOneof("message"):
            case "welcome" if self._welcomed and not self._welcomed.done():
                self._welcomed.set_result(True)
            case "ack":
                self.acknowledged = message.ack.sequence
                self.heard.set()
            case "want_inventory":
                self.bodies += 1
                self.say(dials.inventory_body(*self.inventory))
            case "dismissal":
                raise ConnectionError(f"machine {self.number} was dismissed: {message.dismissal.because}")


def now() -> float:
    return time.perf_counter()
