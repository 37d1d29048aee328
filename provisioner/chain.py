"""The audit as a chain: each entry carries the hash of the one before, so that a change anywhere is seen at the end.

Rule 1: pure, and small enough to be written again in any language. An entry's hash is SHA-256 over the hash of the
        entry before it (32 bytes; zeros before the first) and its fields in the order of `Entry`, each as a netstring:
        length in bytes as decimal, ':', the bytes, ','. Numbers are decimal, texts are UTF-8.
Rule 2: entries are numbered from 1 without a gap. A chain is whole where it leads from the first entry to the head that
        is kept beside it, and through every anchor that somebody kept elsewhere.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from provisioner.errors import BedplateError

SHA256_BYTES = 32


class ChainError(BedplateError):
    """The chain is not what was written."""


class AnchorError(BedplateError):
    """What was typed is no anchor."""


@dataclass(frozen=True, slots=True)
class Link:
    """A place in the chain: how many entries there are up to it, and the hash of the last of them."""

    sequence: int
    sha256: bytes

    def __str__(self) -> str:
        """'42:9f86d081…', as an anchor is written down."""
        return f"{self.sequence}:{self.sha256.hex()}"


START = Link(0, bytes(SHA256_BYTES))


@dataclass(frozen=True, slots=True)
class Entry:
    """Who wrote what, when; `before` and `after` are protobuf JSON of what changed."""

    sequence: int
    at_ns: int  # since 1970, by the provisioner's clock
    who: str
    role: str
    method: str
    request_id: str
    machine_id: str  # empty where it concerns no machine
    before: str
    after: str
    previous_sha256: bytes
    sha256: bytes


def sealed(entry: Entry) -> bytes:
    """The hash that the entry must have."""
    numbers = (str(entry.sequence), str(entry.at_ns))
    texts = (entry.who, entry.role, entry.method, entry.request_id, entry.machine_id, entry.before, entry.after)
    fields = [text.encode() for text in (*numbers, *texts)]
    return hashlib.sha256(entry.previous_sha256 + b"".join(b"%d:%b," % (len(one), one) for one in fields)).digest()


def follow(last: Link, entries: Iterable[Entry], anchors: Iterable[Link] = ()) -> Link:
    """The last link of these entries. ChainError where one does not follow from the one before."""
    kept = {anchor.sequence: anchor for anchor in anchors}
    for entry in entries:
        if entry.sequence != last.sequence + 1:
            raise _untrue(f"entry {last.sequence + 1} is missing, and entry {entry.sequence} comes in its place")
        if entry.previous_sha256 != last.sha256:
            raise _untrue(f"entry {entry.sequence} does not follow from the one before it")
        if entry.sha256 != sealed(entry):
            raise _untrue(f"entry {entry.sequence} was changed after it was written")
        last = Link(entry.sequence, entry.sha256)
        if kept.get(last.sequence, last) != last:
            raise _untrue(f"entry {last.sequence} is not the one of the anchor: the chain was written anew")
    return last


def close(last: Link, head: Link, anchors: Iterable[Link] = ()) -> None:
    """ChainError where the chain does not end where it should."""
    if last.sequence < head.sequence:
        raise _untrue(f"it ends at entry {last.sequence}, and {head.sequence} were written")
    if last != head:
        raise _untrue(f"its last entry is {last}, and its head says {head}")
    for anchor in anchors:
        if anchor.sequence > last.sequence:
            raise _untrue(f"it ends at entry {last.sequence}, and entry {anchor.sequence} was there once")


def _untrue(cause: str) -> ChainError:
    return ChainError(f"cannot trust the audit: {cause}; keep the store as it is, and see docs/audit.md")


def anchor(text: str) -> Link:
    """'42:9f86d081…' -> the link. AnchorError where it is none."""
    match = re.fullmatch(r"([0-9]{1,18}):([0-9a-f]{64})", text, re.ASCII)
    if match is None:
        raise AnchorError(f"cannot read anchor {text!r}: it is NUMBER:SHA256, as `audit verify` prints it")
    return Link(int(match[1]), bytes.fromhex(match[2]))
