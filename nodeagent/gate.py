"""The socket for those on this machine: it asks the kernel who calls, and hands on bytes.

gRPC cannot ask a unix socket for its peer's credentials. So gRPC listens in a folder that only the agent may enter, and
this gate listens where everybody may knock: root, the agent's own user and the members of one group are let through.

Rule 1: who calls is what the kernel says (SO_PEERCRED, SO_PEERGROUPS), at the time of the call.
Rule 2: the gate reads nothing: bytes pass both ways, one end's pace slows the other, and each way ends by itself.
Rule 3: the file appears at its place only when it is ready, by a rename: a stale one is replaced, a live one is not.
"""

import asyncio
import errno
import grp
import os
import socket
import stat
import struct
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodeagent.errors import BedplateError, ConfigError
from nodeagent.logs import OnChange

MAX_CALLERS = 64
PIECE_BYTES = 64 << 10
SO_PEERGROUPS = 59
GROUPS_BYTES = 1024  # the most that Python asks for: who is in more than 256 groups is known by the first one only


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end of a unix socket."""

    pid: int
    uid: int
    groups: frozenset[int]


def admitted(caller: Caller, own_uid: int, gid: int | None) -> bool:
    return caller.uid in (0, own_uid) or (gid is not None and gid in caller.groups)


def caller_of(door: Any) -> Caller:
    """`door` is a connected unix socket."""
    pid, uid, gid = struct.unpack("iII", door.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII")))
    try:
        more = door.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, GROUPS_BYTES)
    except OSError:
        more = b""
    return Caller(pid, uid, frozenset({gid, *struct.unpack(f"{len(more) // 4}I", more)}))


def group_id(name: str) -> int | None:
    """The number of a group, given by name or number; None for no group."""
    if not name:
        return None
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f'cannot use socket_group "{name}": this machine has no such group') from None


class Gate:
    """`path` is where people call, `inner` where gRPC is to listen."""

    def __init__(self, path: Path, group: str = "") -> None:
        self.path = path
        self.gid = group_id(group)
        self._folder = path.with_name(path.name + ".d")
        self.inner = self._folder / "s"
        self._on_change = OnChange()
        self._calls: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._inode = 0

    def prepare(self) -> None:
        """Make the folder for gRPC's own socket. BedplateError where there can be no socket at this path."""
        try:
            _refuse_if_alive(self.path)
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                self._folder.mkdir(mode=0o700)
            _refuse_if_open(self._folder)
        except OSError as error:
            raise BedplateError(f"cannot listen on {self.path}: {error.strerror}") from error

    async def open(self) -> None:
        """Let callers come: gRPC listens by now."""
        door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            self._place(door)
        except OSError as error:
            door.close()
            raise BedplateError(f"cannot listen on {self.path}: {error.strerror}") from error
        self._server = await asyncio.start_unix_server(self._called, sock=door, limit=PIECE_BYTES)

    def shut(self) -> None:
        """Nobody comes any more; who is inside may stay."""
        if self._server:
            self._server.close()
        with suppress(OSError):
            if self.path.stat().st_ino == self._inode:  # and not another agent's meanwhile
                self.path.unlink()

    async def close(self) -> None:
        """Nobody is left, and nothing on the disk: once gRPC has gone."""
        self.shut()
        for call in (calls := list(self._calls)):
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.sleep(0)  # transports end in the loop's next turn
        with suppress(OSError):
            self.inner.unlink(missing_ok=True)
            self._folder.rmdir()

    def _place(self, door: socket.socket) -> None:
        hidden = self._folder / "gate"
        hidden.unlink(missing_ok=True)
        door.bind(str(hidden))
        door.listen()
        hidden.chmod(0o600 if self.gid is None else 0o660)
        if self.gid is not None:
            os.chown(hidden, -1, self.gid)
        self._inode = hidden.stat().st_ino
        hidden.rename(self.path)

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            caller = caller_of(writer.get_extra_info("socket"))
            if self._lets_in(caller):
                await self._join(reader, writer)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()  # it went away, or gRPC did, or the gate closes
        finally:
            writer.close()

    def _lets_in(self, caller: Caller) -> bool:
        if not admitted(caller, os.geteuid(), self.gid):
            self._on_change.say(f"uid/{caller.uid}", f"refused user {caller.uid} (process {caller.pid}) on {self.path}")
            return False
        if len(self._calls) >= MAX_CALLERS:
            self._on_change.say("full", f"refused callers on {self.path}: there are {MAX_CALLERS} already")
            return False
        self._on_change.forget("full")
        return True

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        this = asyncio.current_task()
        assert this is not None  # noqa: S101 - a coroutine runs in a task
        self._calls.add(this)
        try:
            inner_reader, inner_writer = await asyncio.open_unix_connection(str(self.inner), limit=PIECE_BYTES)
            try:
                await _both(_pass_on(reader, inner_writer), _pass_on(inner_reader, writer))
            except (OSError, asyncio.CancelledError):
                inner_writer.transport.abort()
                raise
            finally:
                inner_writer.close()
        finally:
            self._calls.discard(this)


async def _both(one: Coroutine[Any, Any, None], other: Coroutine[Any, Any, None]) -> None:
    """Until both ways ended, or one of them broke."""
    tasks = [asyncio.create_task(one), asyncio.create_task(other)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(PIECE_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def _refuse_if_alive(path: Path) -> None:
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise BedplateError(f"cannot listen on {path}: something is there that is no socket; remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.settimeout(1)
        code = door.connect_ex(str(path))
    if code not in (errno.ECONNREFUSED, errno.ENOENT):
        cause = "another agent answers there" if code in (0, errno.EAGAIN) else os.strerror(code)
        raise BedplateError(f"cannot listen on {path}: {cause}; end it, or set socket to another path")


def _refuse_if_open(folder: Path) -> None:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise BedplateError(f"cannot listen beside {folder}: it is not ours alone; remove it")
