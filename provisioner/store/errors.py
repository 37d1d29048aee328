"""What can go wrong with a store, in one line each: `cannot open store …` and `cannot write store …`.

Rule: an error of the database becomes a sentence with what to do, and never a traceback.
"""

import sqlite3
from collections.abc import Sequence

from provisioner.errors import BedplateError

ADVICE = {
    "SQLITE_NOTADB": "this is no store of a provisioner: name the right file, or move this one away to begin anew",
    "SQLITE_CORRUPT": "it is cut short or damaged: restore it from a backup, or move it away to begin anew",
    "SQLITE_FULL": "make room on its disk; nothing of this batch was written",
    "SQLITE_READONLY": "make it and its folder writable for this user; nothing of this batch was written",
    "SQLITE_BUSY": "another program holds it: end that one",
    "SQLITE_IOERR": "look at its disk and the kernel's log; nothing of this batch was written",
    "SQLITE_CANTOPEN": "see that its folder exists and that this user may write there",
}
FAULTS_OF_A_CHANGE = (OverflowError, sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError)


class StoreError(BedplateError):
    """The store cannot be opened, read or written. A write that raised it has written nothing."""


class ChangeError(StoreError):
    """A change is at fault, and not the store: others can be written."""


class UnknownInventoryError(ChangeError):
    """A change says that a machine has an inventory whose bytes never came, or are not kept any more."""

    def __init__(self, place: str, digests: Sequence[bytes]) -> None:
        super().__init__(
            f"cannot write store {place}: inventory {digests[0].hex()[:16]} is not there; ask for its bytes"
        )
        self.digests = tuple(digests)


def told(verb: str, place: str, error: Exception) -> StoreError:
    """'cannot write store /x/bedplate.db: database or disk is full; make room …'"""
    cause = getattr(error, "orig", None) or error
    name = getattr(cause, "sqlite_errorname", "") if isinstance(cause, sqlite3.Error) else ""
    kind = "_".join(name.split("_")[:2])  # SQLITE_IOERR_FSYNC -> SQLITE_IOERR
    line = str(cause).partition("\n")[0] or type(cause).__name__
    advice = f"; {ADVICE[kind]}" if kind in ADVICE else ""
    kind_of = ChangeError if isinstance(cause, FAULTS_OF_A_CHANGE) else StoreError
    return kind_of(f"cannot {verb} store {place}: {line}{advice}")
