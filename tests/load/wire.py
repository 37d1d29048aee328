"""HTTP/2 as far as one gRPC call on one connection needs it: bytes in, messages out; messages in, bytes out.

Rule 1: no I/O. What has to be sent is in `out`.
Rule 2: of headers only the call's own are written, once, and none that come are read: who fails is seen by a stream
        that ends before it is asked to.

A channel of gRPC's own takes ten times the memory and the processor time; ten thousand of them are no generator.
"""

import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK, END_STREAM, END_HEADERS = 1, 1, 4
INITIAL_WINDOW = 4  # of SETTINGS
MOST = 16384  # bytes of a frame
WIDE = 1 << 30  # what we let them send: they send little
PING_FRAME = b"\0\0\x08\x06\0\0\0\0\0" + bytes(8)


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">HBBBI", len(body) >> 8, len(body) & 255, kind, flags, stream) + body


def _text(value: str) -> bytes:
    return bytes([len(value)]) + value.encode()


def _headers(path: str) -> bytes:
    """POST, https, and the rest as literals that nobody has to remember."""
    return (
        b"\x83\x87\x04" + _text(path) + b"\x01" + _text("bedplate")
        + b"\x0f\x10" + _text("application/grpc") + b"\x00" + _text("te") + _text("trailers")
    )  # fmt: skip


def opening() -> bytes:
    settings = struct.pack(">HI", INITIAL_WINDOW, WIDE)
    return PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WIDE))


@dataclass(slots=True)
class Wire:
    """One connection with one call at a time; `call` begins it."""

    out: list[bytes] = field(default_factory=lambda: [opening()])
    ended: bool = False
    _stream: int = -1
    _window: int = 65535  # of the connection
    _stream_window: int = 65535
    _initial_window: int = 65535
    _waiting: deque[bytes] = field(default_factory=deque)
    _closing: bool = False
    _came: bytearray = field(default_factory=bytearray)
    _message: bytearray = field(default_factory=bytearray)

    def call(self, path: str) -> None:
        """`path`: "/bedplate.v1.Uplink/Session"."""
        self._stream += 2
        self._stream_window, self.ended, self._closing = self._initial_window, False, False
        self._message.clear()
        self.out.append(frame(HEADERS, END_HEADERS, self._stream, _headers(path)))

    def send(self, message: bytes, *, last: bool = False) -> None:
        """Queued where the other end takes no more for now."""
        whole = b"\0" + struct.pack(">I", len(message)) + message
        self._waiting.extend(whole[at : at + MOST] for at in range(0, len(whole), MOST))
        self._closing = last
        self._flush()

    @property
    def held_up(self) -> bool:
        return bool(self._waiting)

    def receive(self, data: bytes) -> Iterator[bytes]:
        """The messages that are whole by now."""
        self._came += data
        while len(self._came) >= 9:
            length = int.from_bytes(self._came[:3], "big")
            if len(self._came) < 9 + length:
                return
            kind, flags, stream = self._came[3], self._came[4], int.from_bytes(self._came[5:9], "big")
            body = bytes(self._came[9 : 9 + length])
            del self._came[: 9 + length]
            yield from self._frame(kind, flags, stream, body)

    def _frame(self, kind: int, flags: int, stream: int, body: bytes) -> Iterator[bytes]:
        if kind == DATA and stream == self._stream:
            yield from self._data(body)
        elif kind == SETTINGS and not flags & ACK:
            self._settings(body)
        elif kind == PING and not flags & ACK:
            self.out.append(frame(PING, ACK, 0, body))
        elif kind == WINDOW_UPDATE:
            self._wider(stream, int.from_bytes(body, "big"))
        if kind == GOAWAY or (stream == self._stream and (kind == RST_STREAM or (kind == HEADERS and flags & 1))):
            self.ended = True

    def _data(self, body: bytes) -> Iterator[bytes]:
        self._message += body
        while len(self._message) >= 5:
            length = int.from_bytes(self._message[1:5], "big")
            if len(self._message) < 5 + length:
                return
            yield bytes(self._message[5 : 5 + length])
            del self._message[: 5 + length]

    def _settings(self, body: bytes) -> None:
        for key, value in struct.iter_unpack(">HI", body):
            if key == INITIAL_WINDOW:
                self._stream_window += value - self._initial_window
                self._initial_window = value
        self.out.append(frame(SETTINGS, ACK, 0, b""))
        self._flush()

    def _wider(self, stream: int, more: int) -> None:
        if stream == 0:
            self._window += more
        elif stream == self._stream:
            self._stream_window += more
        self._flush()

    def _flush(self) -> None:
        while self._waiting and len(self._waiting[0]) <= min(self._window, self._stream_window):
            body = self._waiting.popleft()
            self._window -= len(body)
            self._stream_window -= len(body)
            flags = END_STREAM if self._closing and not self._waiting else 0
            self.out.append(frame(DATA, flags, self._stream, body))
