"""Whether a store was cut short: whether pages are missing that SQLite is going to count on.

SQLite takes the number of pages from the log beside the store, reads those that the file does not have as zeros, and
moves the log over what is left: rows that were acknowledged are gone then, without a word.

Rule 1: it is decided before SQLite opens the store, and nothing is written for it.
Rule 2: a store that is shorter than it says is no cut store yet. It has grown and that is still in the log, or the
        power went while the log was moved into it. So each page that the file lacks is looked for in the log.
"""

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from provisioner.store.frames import Frame, is_size, read

BEGINS = b"SQLite format 3\0"
HEAD_BYTES = 100
PAGE_BYTES = struct.Struct(">H")  # at 16; 1 is 65536
NUMBER = struct.Struct(">I")  # at 24 and 92 which change made it, the same where the pages at 28 can be believed
LOCK_AT = 0x40000000  # the page with this byte is for locks alone: it is counted, and never written


@dataclass(frozen=True, slots=True)
class Head:
    """What a store's first bytes say of it; zeros where they say nothing that SQLite believes."""

    page_bytes: int = 0
    pages: int = 0


def is_cut(handle: int, path: Path) -> bool:
    """Of the store that is open there. OSError where it or its log cannot be read.

    SQLite ends at one of the batches that are in the log by their salts, or before the first. If no page is missing
    at any of these, none will be at that one, and it need not be known which it is. Only else the sums are made.
    """
    return not all(_wholes(handle, path, summed=False)) and not list(_wholes(handle, path, summed=True))[-1]


def _wholes(handle: int, path: Path, *, summed: bool) -> Iterator[bool]:
    """In this order: a provisioner may be writing. A log ends only when all of it is in the file, which only grows."""
    head = head_of(os.pread(handle, HEAD_BYTES, 0))
    log = read(_beside(path), summed=summed)
    end = os.fstat(handle).st_size
    page_bytes = log.page_bytes if log else head.page_bytes
    return wholes(head.pages, end, page_bytes, log.frames if log else ()) if page_bytes else iter((True,))


def _beside(path: Path) -> Path:
    """SQLite puts it beside the file itself, not beside a link to it."""
    there = path.resolve()
    return there.with_name(there.name + "-wal")


def head_of(body: bytes) -> Head:
    if len(body) < HEAD_BYTES or not body.startswith(BEGINS):
        return Head()
    page_bytes = PAGE_BYTES.unpack_from(body, 16)[0]
    page_bytes = 65536 if page_bytes == 1 else page_bytes
    if not is_size(page_bytes):
        return Head()
    (change,), (pages,), (made_by,) = (NUMBER.unpack_from(body, at) for at in (24, 28, 92))
    return Head(page_bytes, pages if change == made_by else 0)


def wholes(pages: int, end: int, page_bytes: int, frames: Iterable[Frame]) -> Iterator[bool]:
    """Whether every page is there: of a store that has no log, then after each batch of the log.

    `pages` by its own head, of so many bytes, in a file that ends at `end`: the piece of a page is none.
    """
    lock, logged, last = LOCK_AT // page_bytes + 1, set[int](), end // page_bytes
    yield pages <= last
    for page, ends in frames:
        logged.add(page)
        if not ends:
            continue
        while last + 1 in logged or last + 1 == lock:
            last += 1
        yield ends <= last
