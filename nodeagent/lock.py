"""One agent for each state folder: its key, its certificate and its machine are one.

Rule: the lock is the kernel's, on an open file, so that it ends with the process however that ends. What the file says
(the holder's process) is for people only.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nodeagent.errors import BedplateError

NAME = "lock"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The folder is made and ours. BedplateError where it cannot be, is open to others, or another agent holds it."""
    handle = _opened(folder)
    try:
        _take(handle, folder)
        yield
    finally:
        os.close(handle)


def _opened(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid != os.geteuid():
            cause = f"it belongs to user {status.st_uid}; chown it to {os.geteuid()}"
            raise BedplateError(f"cannot use state folder {folder}: {cause}")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise BedplateError(f"cannot use state folder {folder}: others may enter it; chmod 0700 {folder}")
        return os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise BedplateError(f"cannot use state folder {folder}: {error.strerror}") from error


def _take(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
        who = f"another agent (process {holder})" if holder.isdecimal() else "another agent"
        advice = "end it, or give this one a state folder of its own"
        raise BedplateError(f"cannot use state folder {folder}: {who} holds it; {advice}") from None
    except OSError as error:
        raise BedplateError(f"cannot write state folder {folder}: {error.strerror}") from error
