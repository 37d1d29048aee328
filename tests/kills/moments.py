"""When to kill: in the middle of the start, at some time under load, or as a file is being written."""

import ctypes
import os
import select
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
MODIFY, CREATE, MOVED_TO, DELETE = 0x2, 0x100, 0x80, 0x200
HEADER = struct.calcsize("iIII")


@contextmanager
def watched(*folders: Path) -> Iterator[int]:
    """A descriptor on which the kernel tells of each file that is written in these folders, as it happens."""
    handle = LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    assert handle >= 0, os.strerror(ctypes.get_errno())
    try:
        for folder in folders:
            assert LIBC.inotify_add_watch(handle, os.fsencode(folder), MODIFY | CREATE | MOVED_TO | DELETE) >= 0
        yield handle
    finally:
        os.close(handle)


def until_written(handle: int, times: int, limit_s: float) -> bool:
    """Returns at that touch of a file, while whoever writes is still in its next step; False where it never came."""
    deadline = time.monotonic() + limit_s
    while times > 0:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([handle], [], [], left)[0]:
            return False
        times -= sum(1 for _ in _events(os.read(handle, 64 << 10)))
    return True


def _events(heard: bytes) -> Iterator[int]:
    while heard:
        _, mask, _, length = struct.unpack_from("iIII", heard)
        heard = heard[HEADER + length :]
        yield mask


def children(pid: int) -> list[int]:
    """Processes that it has started and that have not ended."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]
