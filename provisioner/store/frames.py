"""The log that lies beside a store (SQLite's `-wal`), frame by frame, as SQLite itself will find it.

Rule 1: it is only read, without a lock and without SQLite: a provisioner that runs on the store is not disturbed.
Rule 2: a frame counts if the log's head made its salts, and, where sums are asked for, all up to it are right.

https://sqlite.org/fileformat2.html#the_write_ahead_log
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HEAD = struct.Struct(">8I")  # magic, format, bytes of a page, number of the log, two salts, two sums
FRAME = struct.Struct(">6I")  # page, pages of the store if a batch ends here, two salts, two sums; the page follows
MAGIC, FORMAT = 0x377F0682, 3007000  # the magic's last bit: the sums are those of big-endian words
SUMMED = 8  # bytes of a frame's head
WORD = 0xFFFFFFFF
Frame = tuple[int, int]  # the number of a page; how many the store has, if a batch ends with it, else 0
Sums = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Log:
    page_bytes: int
    frames: list[Frame]


@dataclass(frozen=True, slots=True)
class _Head:
    page_bytes: int
    order: str  # of the bytes in a word, as `struct` says it
    salts: tuple[int, int]
    sums: Sums


def read(path: Path, *, summed: bool) -> Log | None:
    """None where there is no log, or none that SQLite heeds. OSError where it cannot be read.

    With sums it takes two seconds for 64 MB; without them a twentieth of one, and frames may be in it that SQLite will
    leave out, with all that follow: those of a write that the power cut off, or of a bit that flipped.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        head = _head(os.pread(handle, HEAD.size, 0))
        if head is None:
            return None
        return Log(head.page_bytes, list(_summed(handle, head) if summed else _salted(handle, head)))
    finally:
        os.close(handle)


def _head(body: bytes) -> _Head | None:
    if len(body) < HEAD.size:
        return None
    magic, version, page_bytes, _, *rest = HEAD.unpack(body)
    order = ">" if magic & 1 else "<"
    salts, sums = (rest[0], rest[1]), (rest[2], rest[3])
    if magic & ~1 != MAGIC or version != FORMAT or not is_size(page_bytes) or _sums(body[:-8], order, (0, 0)) != sums:
        return None
    return _Head(page_bytes, order, salts, sums)


def is_size(page_bytes: int) -> bool:
    """Whether SQLite has pages of so many bytes."""
    return 512 <= page_bytes <= 65536 and page_bytes.bit_count() == 1  # noqa: PLR2004 - its own limits


def _salted(handle: int, head: _Head) -> Iterator[Frame]:
    """The head of each frame, and nothing of its page but that it is there."""
    end, step = os.fstat(handle).st_size, FRAME.size + head.page_bytes
    for at in range(HEAD.size, end - step + 1, step):
        page, ends, *rest = FRAME.unpack(os.pread(handle, FRAME.size, at).ljust(FRAME.size, b"\0"))
        if not page or (rest[0], rest[1]) != head.salts:
            return
        yield page, ends


def _summed(handle: int, head: _Head) -> Iterator[Frame]:
    """The sums of each frame go on from those of the one before, so that none stands after one that does not."""
    at, step, sums = HEAD.size, FRAME.size + head.page_bytes, head.sums
    while len(body := os.pread(handle, step, at)) == step:
        page, ends, *rest = FRAME.unpack_from(body)
        if not page or (rest[0], rest[1]) != head.salts:
            return
        sums = _sums(body[FRAME.size :], head.order, _sums(body[:SUMMED], head.order, sums))
        if (rest[2], rest[3]) != sums:
            return
        yield page, ends
        at += step


def _sums(body: bytes, order: str, sums: Sums) -> Sums:
    """SQLite's own checksum, over pairs of words."""
    one, other = sums
    words = struct.unpack(f"{order}{len(body) // 4}I", body)
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = one + first + other & WORD
        other = other + second + one & WORD
    return one, other
