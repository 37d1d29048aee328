"""HTTP/2 by hand, for whoever says what no client does: frames, calls begun, requests that never come whole."""

import asyncio
import contextlib
import ssl
import struct
import tempfile
from dataclasses import dataclass, field

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
ACK, END_HEADERS = 1, 4
OPENING = PREFACE + b"\0\0\0\x04\0\0\0\0\0"  # and empty SETTINGS
FRAME = 16384
PREFIX = 5  # octets of gRPC before a message: whether it is packed, and its size
WINDOW = 65535
INITIAL_WINDOW_SIZE = 4
ENROL = "/bedplate.v1.Enrolment/Enrol"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def begun(stream: int, method: str = ENROL) -> bytes:
    """A call's headers. HPACK without tables: each header a literal."""
    fields = {
        ":method": "POST",
        ":scheme": "https",
        ":path": method,
        ":authority": "x",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    block = b"".join(b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in field) for field in fields.items())
    return frame(HEADERS, END_HEADERS, stream, block)


def client(roots_pem: bytes, pair: tuple[bytes, bytes] | None = None) -> ssl.SSLContext:
    """`pair`: the certificate and the key that it shows, PEM."""
    context = ssl.create_default_context(cadata=roots_pem.decode())
    context.set_alpn_protocols(["h2"])
    if pair:
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"".join(pair))
            file.flush()
            context.load_cert_chain(file.name)
    return context


@dataclass
class Halves:
    """So many calls on one connection, each with a message of `size` less its last byte, as fast as windows allow."""

    method: str
    count: int
    size: int
    window: int = WINDOW  # of the connection
    first: int = WINDOW  # of a stream that begins
    windows: dict[int, int] = field(default_factory=dict)
    left: dict[int, int] = field(default_factory=dict)  # of those that the other end has not ended
    sent: int = 0

    @property
    def ended(self) -> int:
        return self.count - len(self.left)

    async def hold(self, address: tuple[str, int], tls: ssl.SSLContext) -> None:
        """Until all are ended on us, or the connection is."""
        reader, writer = await asyncio.open_connection(*address, ssl=tls)
        self.left = dict.fromkeys(range(1, 2 * self.count, 2), self.size + PREFIX - 1)
        self.windows = dict.fromkeys(self.left, self.first)
        try:
            writer.write(OPENING + b"".join(begun(stream, self.method) for stream in self.left))
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while self.left:
                    self._send(writer)
                    await writer.drain()
                    head = await reader.readexactly(9)
                    payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                    self._told(writer, head[3], head[4], int.from_bytes(head[5:], "big"), payload)
        finally:
            writer.transport.abort()

    def _send(self, writer: asyncio.StreamWriter) -> None:
        for stream in self.left:
            while (size := min(FRAME, self.left[stream], self.window, self.windows[stream])) >= PREFIX:
                begins = self.left[stream] == self.size + PREFIX - 1
                body = b"\0" + struct.pack(">I", self.size) + bytes(size - PREFIX) if begins else bytes(size)
                writer.write(frame(DATA, 0, stream, body))
                self.left[stream] -= size
                self.window -= size
                self.windows[stream] -= size
                self.sent += size

    def _told(self, writer: asyncio.StreamWriter, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE and stream:
            self.windows[stream] += int.from_bytes(payload, "big")
        elif kind == WINDOW_UPDATE:
            self.window += int.from_bytes(payload, "big")
        elif kind == SETTINGS and not flags & ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == INITIAL_WINDOW_SIZE:
                    self.windows = {one: size + value - self.first for one, size in self.windows.items()}
                    self.first = value
            writer.write(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            writer.write(frame(PING, ACK, 0, payload))
        elif kind in {HEADERS, RST_STREAM}:  # it ends with its trailers
            self.left.pop(stream, None)
