"""The socket for those on this machine: who is let in, and that bytes pass as they came."""

import asyncio
import contextlib
import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nodeagent.errors import BedplateError, ConfigError
from nodeagent.gate import MAX_CALLERS, Caller, Gate, admitted, group_id

STRANGER, GROUP = 65534, 54321
CLIENT = """
import json, os, socket, sys
path, uid, groups = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
if uid != os.geteuid():
    os.setgroups(groups)
    os.setgid(uid)
    os.setuid(uid)
with socket.socket(socket.AF_UNIX) as door:
    door.settimeout(10)
    try:
        door.connect(path)
        door.sendall(b"hello")
        print(door.recv(100).decode() or "closed")
    except OSError as error:
        print(error.strerror)
"""


@pytest.fixture
def folder():
    """Where everybody may knock, and the path is short."""
    with tempfile.TemporaryDirectory(prefix="bp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextlib.asynccontextmanager
async def echo(folder, group=""):
    """A gate before a server that answers what it hears."""
    answering = set()

    async def answer(reader, writer):
        answering.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
            writer.close()
            await writer.wait_closed()

    gate = Gate(folder / "s.sock", group)
    gate.prepare()
    async with await asyncio.start_unix_server(answer, gate.inner):
        await gate.open()
        try:
            yield gate
        finally:
            await gate.close()
            await asyncio.gather(*answering)


async def call(path, uid=None, groups=()):
    uid = os.geteuid() if uid is None else uid
    words = [sys.executable, "-c", CLIENT, str(path), str(uid), str(list(groups))]
    done = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, timeout=30)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_root_our_own_user_and_members_of_the_group_are_let_in_and_nobody_else():
    assert admitted(Caller(1, 0, frozenset()), 1000, None)
    assert admitted(Caller(1, 1000, frozenset()), 1000, None)
    assert admitted(Caller(1, 1001, frozenset({5, 7})), 1000, 7)
    assert not admitted(Caller(1, 1001, frozenset({5})), 1000, 7)
    assert not admitted(Caller(1, 1001, frozenset({5})), 1000, None)


def test_a_group_is_given_by_name_or_number_and_one_that_is_not_there_is_an_error():
    assert (group_id(""), group_id("12"), group_id("root")) == (None, 12, 0)
    with pytest.raises(ConfigError, match='cannot use socket_group "no-such-group": this machine has no such group'):
        group_id("no-such-group")


def test_a_process_of_our_own_user_is_let_in(folder):
    async def story():
        async with echo(folder) as gate:
            assert await call(gate.path) == "hello"

    asyncio.run(story())


def test_another_user_is_refused_unless_it_is_in_the_group(folder):
    async def story():
        async with echo(folder, str(GROUP) if os.geteuid() == 0 else "") as gate:
            assert await call(gate.path, STRANGER) in ("Permission denied", NOT_ROOT)  # the file's mode says no
            gate.path.chmod(0o666)
            assert await call(gate.path, STRANGER) in (
                "closed",
                "Connection reset by peer",
                "Broken pipe",
                NOT_ROOT,
            )  # the gate does
            assert await call(gate.path, STRANGER, [4, GROUP]) in ("hello", NOT_ROOT)

    asyncio.run(story())


NOT_ROOT = "PermissionError: [Errno 1] Operation not permitted" if os.geteuid() else "-"  # all that can be seen then


def test_the_socket_is_open_to_the_group_alone_and_the_inner_one_to_nobody(folder):
    async def story():
        async with echo(folder) as gate:
            assert stat.S_IMODE(gate.path.stat().st_mode) == 0o600
            assert stat.S_IMODE(gate.inner.parent.stat().st_mode) == 0o700
        assert not list(folder.iterdir())

    asyncio.run(story())


def test_many_bytes_pass_both_ways_and_the_end_of_one_way_is_not_the_end_of_the_other(folder):
    async def story():
        async with echo(folder) as gate:
            reader, writer = await asyncio.open_unix_connection(gate.path)
            data = os.urandom(3_000_000)

            async def send():
                writer.write(data)
                await writer.drain()
                writer.write_eof()

            _, heard = await asyncio.gather(send(), reader.read(-1))
            assert heard == data
            writer.close()

    asyncio.run(story())


def test_a_caller_who_does_not_read_is_not_read_from_either(folder):
    async def story():
        async with echo(folder) as gate:
            with socket.socket(socket.AF_UNIX) as door:
                door.setblocking(False)  # noqa: FBT003
                door.connect(str(gate.path))
                sent, idle = 0, 0
                while idle < 20:
                    try:
                        sent, idle = sent + door.send(bytes(1 << 16)), 0
                    except BlockingIOError:
                        idle += 1
                    await asyncio.sleep(0.005)
                assert sent < 8 << 20

    asyncio.run(story())


def test_there_are_only_so_many_callers_at_a_time(folder):
    async def story():
        async with echo(folder) as gate, contextlib.AsyncExitStack() as stack:
            for _ in range(MAX_CALLERS):
                reader, writer = await asyncio.open_unix_connection(gate.path)
                stack.callback(writer.close)
                writer.write(b"x")
                assert await reader.read(1) == b"x"
            reader, writer = await asyncio.open_unix_connection(gate.path)
            stack.callback(writer.close)
            assert await reader.read(1) == b""

    asyncio.run(story())


def test_a_socket_that_a_dead_agent_left_is_replaced(folder):
    async def story():
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(folder / "s.sock"))
        async with echo(folder) as gate:
            assert await call(gate.path) == "hello"

    asyncio.run(story())


def test_a_socket_where_another_agent_answers_is_left_alone(folder):
    async def story():
        async with echo(folder) as gate:
            with pytest.raises(
                BedplateError, match=r"cannot listen on .*s.sock: another agent answers there; end it, or"
            ):
                Gate(gate.path).prepare()
            assert await call(gate.path) == "hello"

    asyncio.run(story())


def test_a_path_that_cannot_be_a_socket_is_named(folder):
    (folder / "file").write_text("kept")
    with pytest.raises(BedplateError, match=r"something is there that is no socket; remove it"):
        Gate(folder / "file").prepare()
    assert (folder / "file").read_text() == "kept"
    with pytest.raises(BedplateError, match=r"cannot listen on .*/file/s: Not a directory"):
        Gate(folder / "file" / "s").prepare()
    (folder / "s.sock.d").mkdir(mode=0o777)
    (folder / "s.sock.d").chmod(0o777)
    with pytest.raises(BedplateError, match=r"cannot listen beside .*s.sock.d: it is not ours alone; remove it"):
        Gate(folder / "s.sock").prepare()
