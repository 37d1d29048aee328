"""One agent for each state folder: its key, its certificate and its machine are one.

Rule 1: the lock is the kernel's, on an open file, so that it ends with the process however that ends. What the file
        says (the holder's process) is for people only.
Rule 2: a disk that is full or turned read-only keeps a newcomer out, who could not keep what he is given. A machine
        that is somebody already goes on reporting: now of all times it has something to report.
"""

import errno
import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nodeagent.errors import BedplateError

LOG = logging.getLogger("nodeagent")
NAME = "lock"


@contextmanager
def alone(folder: Path, *, somebody: bool = False) -> Iterator[None]:
    """The folder is made and ours. BedplateError where it cannot be, is open to others, or another agent holds it.
    `somebody`: there is an identity in it.
    """
    handle = _opened(folder, somebody=somebody)
    try:
        _take(handle, folder, somebody=somebody)
        yield
    finally:
        os.close(handle)


def _opened(folder: Path, *, somebody: bool) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid != os.geteuid():
            cause = f"it belongs to user {status.st_uid}; chown it to {os.geteuid()}"
            raise BedplateError(f"cannot use state folder {folder}: {cause}")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise BedplateError(f"cannot use state folder {folder}: others may enter it; chmod 0700 {folder}")
        return _lock_file(folder, somebody=somebody)
    except OSError as error:
        raise BedplateError(f"cannot use state folder {folder}: {error.strerror}") from error


def _lock_file(folder: Path, *, somebody: bool) -> int:
    flags = os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(folder / NAME, os.O_RDWR | flags, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS or not somebody:
            raise
        _go_on(folder, error)
        return os.open(folder / NAME, os.O_RDONLY | flags & ~os.O_CREAT)


def _go_on(folder: Path, error: OSError) -> None:
    LOG.warning(
        "cannot write state folder %s: %s; it works until the certificate has to be renewed", folder, error.strerror
    )


def _take(handle: int, folder: Path, *, somebody: bool) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR:
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
        who = f"another agent (process {holder})" if holder.isdecimal() else "another agent"
        advice = "end it, or give this one a state folder of its own"
        raise BedplateError(f"cannot use state folder {folder}: {who} holds it; {advice}") from None
    except OSError as error:
        if not somebody:
            raise BedplateError(f"cannot write state folder {folder}: {error.strerror}") from error
        _go_on(folder, error)
