"""A secret that somebody put into a file: read each time it is needed, so that it can be changed without a restart."""

import os
import stat
from pathlib import Path

from provisioner.errors import BedplateError

LONGEST = 1 << 16


def read(path: str) -> bytes:
    """Without the blanks around it. BedplateError where others may read it, or nothing is there."""
    try:
        with Path(path).open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise BedplateError(f"cannot use {path}: others can read it; `chmod 600` it, and ask who has read it")
            content = file.read(LONGEST).strip()
    except OSError as error:
        raise BedplateError(f"cannot read {path}: {error.strerror}") from error
    if not content:
        raise BedplateError(f"cannot use {path}: it is empty")
    return content
