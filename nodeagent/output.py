"""The program's own output: where it cannot be written, one line says so.

Rule: a stream that was closed by whoever started us is the null device: no file of ours may come to be in its place.
"""

import errno
import os
import sys

FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def stand() -> None:
    """All three streams are there from now on."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - it stays open
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def drop() -> None:
    """What is still buffered must not be tried again at the exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def fault(error: OSError) -> str:
    """'cannot write the output: No space left on device'; another error is raised again."""
    if error.errno not in FAULTS or error.filename is not None:
        raise error
    drop()
    return f"cannot write the output: {error.strerror}"
