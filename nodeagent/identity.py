"""Who this machine is, as a file: one file, so that key and certificate are always of one pair.

Rule 1: `identity.json` holds the certificate, its key, the roots and where the uplink is. It is replaced whole, by a
        rename: a crash at any moment leaves the old identity or the new one.
Rule 2: `next.key` is a key that may have a certificate already, only not here yet. It is kept until it has: the
        provisioner may know the machine by it.
Rule 3: `join.key` holds the same of keys that were made to come in by a join token, each for its own. By another token
        another key is made: the machine may have been turned out because what lay here was copied.
"""

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from nodeagent.errors import BedplateError

IDENTITY: Final = "identity.json"
NEXT_KEY: Final = "next.key"
JOIN_KEY: Final = "join.key"
FILE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Identity:
    """What it takes to be this machine. Times are seconds since 1970."""

    machine_id: str
    incarnation: int
    not_before: float  # by the provisioner's clock, as the next
    not_after: float
    kept_at: float  # by this host's clock: from when on the certificate ages here
    token_id: str  # of the join token that it came in by
    uplink_addresses: tuple[str, ...]
    certificate: str = field(repr=False)
    key: str = field(repr=False)
    ca: str = field(repr=False)

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.encode()

    @property
    def key_pem(self) -> bytes:
        return self.key.encode()

    @property
    def ca_pem(self) -> bytes:
        return self.ca.encode()


def load(state: Path) -> Identity | None:
    """None where this machine has none yet. BedplateError where there is one that cannot be read."""
    path = state / IDENTITY
    content = read(path)
    if content is None:
        return None
    try:
        return msgspec.json.decode(content, type=Identity)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BedplateError(
            f"cannot read {path}: it is not an identity ({error}); restore it, or remove it to enrol again"
        ) from error


def save(state: Path, identity: Identity) -> None:
    """Whole or not at all; what was there stays until this is durable."""
    write_secret(state / IDENTITY, msgspec.json.encode(identity))


def read(path: Path) -> bytes | None:
    """None where it is not there."""
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BedplateError(f"cannot read {path}: {error.strerror}") from error


def write_secret(path: Path, content: bytes) -> None:
    """Durable, whole or not at all, and 0600 from the first byte on."""
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:  # noqa: PTH123 - Path.open cannot set the mode
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
        settle(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()
        raise BedplateError(f"cannot write {path}: {error.strerror}; what was there is still there") from error


def settle(folder: Path) -> None:
    """Also the folder's own name, and those above: it may have been made a moment ago, by whomever."""
    sync(folder)
    for above in folder.parents:
        with contextlib.suppress(PermissionError):  # it is not ours, so nobody has made it for us
            sync(above)


def sync(folder: Path) -> None:
    """Names in a folder are durable only once the folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
