"""The agent's frame: ticks that fail, a service manager that waits, and an end that comes whatever hangs."""

import asyncio
import contextlib
import logging
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import msgspec
import pytest

from nodeagent import probes
from nodeagent.changes import Changes
from nodeagent.config import Config
from nodeagent.daemon import Daemon
from nodeagent.identity import Identity
from provisioner import tokens
from tests.nvml.fake import H100, fake
from tests.running import agent, site

PAUSE = Event()


class Ticking:
    """An agent of which only the ticks count. The first `flawed` of them raise."""

    def __init__(self, flawed: int = 0) -> None:
        self.because, self.ticks, self.woken, self._flawed = "", 0, list[frozenset[str]](), flawed

    async def tick(self, woken: frozenset[str]) -> None:
        self.ticks += 1
        self.woken.append(woken)
        if self.ticks <= self._flawed:
            raise ValueError("a tick that nobody foresaw")


@contextlib.contextmanager
def manager(folder: Path) -> Iterator[socket.socket]:
    """What systemd listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind(str(folder / "notify"))
        yield listener


def told(listener: socket.socket) -> list[str]:
    lines = list[str]()
    with contextlib.suppress(BlockingIOError):
        while True:
            lines += listener.recv(4096).decode().splitlines()
    return lines


async def ticking(daemon: Daemon, ticks: Ticking, changes: Changes, seconds: float) -> None:
    task = asyncio.create_task(daemon.ticks(ticks.tick, changes))
    await asyncio.wait({task}, timeout=seconds)
    assert not task.done()
    task.cancel()


def daemon(folder: Path, tick_s: float, environment: dict[str, str] | None = None) -> Daemon:
    return Daemon(folder / "nodeagent.toml", Config(tick_s=tick_s), environment or {})


def watched(folder: Path) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "100000"}


def test_a_tick_that_raises_is_one_entry_and_the_next_one_comes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ticks = Ticking(flawed=5)
    with caplog.at_level(logging.INFO, "nodeagent"):
        asyncio.run(ticking(daemon(tmp_path, 0.01), ticks, Changes(), 0.3))
    assert ticks.ticks > 5
    assert [record.getMessage() for record in caplog.records] == [
        "cannot end a tick: ValueError: a tick that nobody foresaw",
        "a tick ended well again",
    ]


def test_the_watchdog_is_fed_between_ticks_that_are_far_apart(tmp_path: Path) -> None:
    with manager(tmp_path) as listener:
        asyncio.run(ticking(daemon(tmp_path, 3600, watched(tmp_path)), Ticking(), Changes(), 0.5))
        assert told(listener).count("WATCHDOG=1") >= 5


def test_the_watchdog_is_not_fed_by_ticks_that_fail_nor_by_one_that_hangs(tmp_path: Path) -> None:
    class Hanging(Ticking):
        async def tick(self, woken: frozenset[str]) -> None:
            await super().tick(woken)
            await asyncio.Event().wait()

    for ticks in (Ticking(flawed=1000), Hanging()):
        with manager(tmp_path) as listener:
            asyncio.run(ticking(daemon(tmp_path, 0.01, watched(tmp_path)), ticks, Changes(), 0.3))
            assert told(listener).count("WATCHDOG=1") <= 1
        (tmp_path / "notify").unlink()


def test_the_kernels_word_is_heard_however_short_a_tick_is(tmp_path: Path) -> None:
    async def story() -> None:
        changes = Changes(settle_s=0.1)
        changes.heard({"net"})
        await ticking(daemon(tmp_path, 0.02), ticks, changes, 0.4)

    ticks = Ticking()
    asyncio.run(story())
    assert frozenset({"net"}) in ticks.woken


def test_an_agent_that_cannot_hear_the_kernel_reads_everything_now_and_then(tmp_path: Path) -> None:
    async def story() -> None:
        changes = Changes()
        changes.deaf.append("cannot hear of changes of devices: Operation not permitted; only the timer is left")
        await ticking(daemon(tmp_path, 0.01), ticks, changes, 0.2)

    ticks = Ticking()
    asyncio.run(story())
    assert ticks.woken.count(probes.EVERYTHING) == 1


@pytest.mark.slow
def test_an_agent_whose_driver_hangs_before_the_first_snapshot_ends_in_time_and_says_so(tmp_path: Path) -> None:
    library = fake(tmp_path / "nvml", H100 + "fault * * hang\n")
    with agent(tmp_path / "agent", None, nvml_library=library.library) as program:
        asked = tmp_path / "agent" / "state" / "lock"
        deadline = time.monotonic() + 20
        while not (asked.exists() and asked.read_text()):
            assert time.monotonic() < deadline
            PAUSE.wait(0.05)
        assert program.stop(limit_s=5.3) == 0
        assert "Traceback" not in program.text()
        assert not any(line.startswith("READY") for line in program.said)


@pytest.mark.slow
def test_a_token_that_was_put_right_is_taken_at_once_after_a_hangup(tmp_path: Path) -> None:
    place = site(tmp_path)
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        token = place.token("--uses", "1")
        good = token.read_text()
        token.write_text(tokens.encode(tokens.mint(), ["127.0.0.1:1"], b"f" * 32))
        with agent(tmp_path / "agent", token, tick_s=1) as program:
            program.wait_for("STATUS=not connected: cannot enrol with 127.0.0.1:1: nobody listens there")
            token.write_text(good)
            program.process.send_signal(signal.SIGHUP)
            program.wait_for("STATUS=connected to", limit_s=10)  # three times sooner than without


@pytest.mark.slow
def test_an_identity_with_a_spoilt_ca_is_said_once_and_by_nobody_else(tmp_path: Path) -> None:
    state = tmp_path / "agent" / "state"
    state.mkdir(mode=0o700, parents=True)
    with socket.create_server(("127.0.0.1", 0)) as door:
        address = f"127.0.0.1:{door.getsockname()[1]}"
        spoilt = Identity("m-1", 1, 0.0, 4e9, time.time(), "t-1", (address,), "?", "?", "?")
        (state / "identity.json").write_bytes(msgspec.json.encode(spoilt))
        with agent(tmp_path / "agent", None, tick_s=0.2) as program:
            program.wait_for(f"STATUS=not connected: cannot reach {address}: the CA that this machine keeps")
            PAUSE.wait(1.5)  # in which it is tried again
            assert program.stop() == 0
            assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in program.text().splitlines()), program.text()
            assert (
                program.text().count("cannot be read; remove its identity.json") == 2
            )  # of the stream, and of the tick
