"""What stands in for journald: a socket as its, and its side of the native protocol."""

import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def journal(path: Path) -> Iterator[socket.socket]:
    """Listens at this path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.bind(str(path))
        door.settimeout(5)
        yield door
    path.unlink()


def received(door: socket.socket) -> list[tuple[str, str]]:
    """The next entry, of those that are no file."""
    return list(decoded(door.recv(1 << 20)))


def waiting(door: socket.socket) -> Iterator[dict[str, str]]:
    """All entries that are there by now."""
    door.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            yield dict(received(door))


def decoded(data: bytes) -> Iterator[tuple[str, str]]:
    """Names and values, as they came."""
    while data:
        line, _, rest = data.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
            data = rest
        else:
            name, (size,) = line, struct.unpack("<Q", rest[:8])
            value, data = rest[8 : 8 + size], rest[9 + size :]
        yield name.decode(), value.decode()
