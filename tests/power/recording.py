"""Runs a program with the recorder preloaded, and reads what it recorded."""

import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.compiled import library

HEADER = struct.Struct("<cIIQQQ")
MARK = b"!"


@dataclass(frozen=True, slots=True)
class Call:
    """One call that changed something, or a mark of the program itself: that something is acknowledged."""

    op: str  # c: create, w: write, t: truncate, f: fsync, d: fsync of a folder, r: rename, u: unlink, m: mkdir, !: mark
    name: str
    other: str
    inode: int
    offset: int
    length: int
    data: bytes


def recorded(root: Path, log: Path, command: Sequence[str], *, given: bytes = b"") -> bytes:
    """What it printed. Several programs one after the other may be recorded into one log."""
    preloaded = {"LD_PRELOAD": str(library(Path(__file__).with_name("record.c")))}
    environment = {**os.environ, **preloaded, "POWER_ROOT": str(root), "POWER_LOG": str(log)}
    done = subprocess.run(
        [sys.executable, *command], input=given, capture_output=True, env=environment, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def mark(text: str, log: Path) -> None:
    """Everything that is promised by this text was synced before."""
    with log.open("ab", buffering=0) as file:
        file.write(HEADER.pack(MARK, len(text.encode()), 0, 0, 0, 0) + text.encode())


def calls(log: Path) -> list[Call]:
    found, content, at = [], log.read_bytes(), 0
    while at < len(content):
        op, name, other, inode, offset, length = HEADER.unpack_from(content, at)
        at += HEADER.size
        texts = content[at : at + name].decode(), content[at + name : at + name + other].decode()
        at += name + other
        size = length if op == b"w" else 0
        found.append(Call(op.decode(), *texts, inode, offset, length, content[at : at + size]))
        at += size
    return found
