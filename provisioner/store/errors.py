"""What can go wrong with a store, in one line each: `cannot open store …` and `cannot write store …`.

Rule: an error of the database becomes a sentence with what to do, and never a traceback.
"""

import errno
import os
import sqlite3
from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError

from provisioner.errors import BedplateError
from provisioner.packing import DamagedError

ADVICE = {
    "SQLITE_NOTADB": "this is no store of a provisioner: name the right file, or move this one away to begin anew",
    "SQLITE_CORRUPT": (
        "it is cut short or damaged: restore it from a backup, or move it away with its -wal and -shm to begin anew"
    ),
    "ENOSPC": "make room on its disk",
    "EROFS": "the kernel's log says why; it is mounted anew, or repaired",
    "SQLITE_READONLY": "make it and its folder writable for this user",
    "SQLITE_BUSY": "another program holds it: end that one",
    "SQLITE_IOERR": "look at its disk and the kernel's log",
    "SQLITE_CANTOPEN": "see that its folder exists and that this user may write there",
}
OF_THE_DISK = {"SQLITE_FULL", "SQLITE_IOERR"}
LOSES_NOTHING = {"ENOSPC", "EROFS", "SQLITE_READONLY", "SQLITE_IOERR"}
DAMAGED = (UnicodeDecodeError, DamagedError)  # a message that quotes what is damaged; a body that was packed
FAULTS = (SQLAlchemyError, sqlite3.Error, *DAMAGED)
FAULTS_OF_A_CHANGE = (OverflowError, sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError)


class StoreError(BedplateError):
    """The store cannot be opened, read or written. A write that raised it has written nothing."""


class ChangeError(StoreError):
    """A change is at fault, and not the store: others can be written."""


class MeanwhileError(StoreError):
    """What was to be written was decided in a world that is no more: it is to be decided again."""


class UnknownInventoryError(ChangeError):
    """A change says that a machine has an inventory whose bytes never came, or are not kept any more."""

    def __init__(self, place: str, digests: Sequence[bytes]) -> None:
        super().__init__(
            f"cannot write store {place}: inventory {digests[0].hex()[:16]} is not there; ask for its bytes"
        )
        self.digests = tuple(digests)


def told(verb: str, place: str, error: Exception) -> StoreError:
    """'cannot write store /x/bedplate.db: No space left on device; make room …'"""
    cause = getattr(error, "orig", None) or error
    name = getattr(cause, "sqlite_errorname", "") if isinstance(cause, sqlite3.Error) else ""
    kind = "_".join(name.split("_")[:2])  # SQLITE_IOERR_FSYNC -> SQLITE_IOERR
    line = str(cause).partition("\n")[0] or type(cause).__name__
    if isinstance(cause, DAMAGED):
        line, kind = "database disk image is malformed", "SQLITE_CORRUPT"
    if kind in OF_THE_DISK and (fault := _fault_of_the_disk(kind, place)):
        line, kind = os.strerror(fault), errno.errorcode[fault]
    advice = f"; {ADVICE[kind]}" if kind in ADVICE else ""
    if verb == "write" and kind in LOSES_NOTHING:
        advice += "; nothing of this batch was written"
    kind_of = ChangeError if isinstance(cause, FAULTS_OF_A_CHANGE) else StoreError
    return kind_of(f"cannot {verb} store {place}: {line}{advice}")


def _fault_of_the_disk(kind: str, place: str) -> int:
    """What SQLite does not say of an error of the disk: 0 where we cannot see it either."""
    try:
        disk = os.statvfs(os.path.dirname(place))  # noqa: PTH120 - a name as it was given
    except OSError:
        return 0
    if disk.f_flag & os.ST_RDONLY:
        return errno.EROFS
    return errno.ENOSPC if kind == "SQLITE_FULL" or not disk.f_bavail else 0
