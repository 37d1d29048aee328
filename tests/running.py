"""The real programs, started as an operator would start them, each in a folder of the test's own."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

BIN = Path(sys.executable).parent
LIMIT_S = 30.0
PAUSE = Event()


def free_ports(count: int) -> list[int]:
    """Ports that are free now, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def until(true: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
    """AssertionError where it does not become true."""
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline
        PAUSE.wait(0.1)


def toml(**values: object) -> str:
    """'tick_s = 1' and so on."""
    return "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str | Path) else str(value).lower()


@dataclass
class Program:
    """A process that tells by sd_notify when it is ready."""

    process: subprocess.Popen[bytes]
    log: Path
    listener: socket.socket
    said: list[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for(self, line: str, limit_s: float = LIMIT_S) -> None:
        """Until it has told the service manager a line that begins so; AssertionError with its log otherwise."""
        deadline = time.monotonic() + limit_s
        while not any(told.startswith(line) for told in self.said):
            self.listener.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                self.said += self.listener.recv(8192).decode().splitlines()
            assert self.process.poll() is None, f"it ended: {self.text()}"
            assert time.monotonic() < deadline, f"no {line!r} within {limit_s} s: {self.said}\n{self.text()}"

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, limit_s: float = 5.0) -> int:
        """SIGTERM; AssertionError where it does not end within the limit."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(limit_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"it did not end within {limit_s} s: {self.text()}") from None
        return self.process.returncode


def environment_of(home: Path | None) -> dict[str, str]:
    """For programs of this checkout, or of another version that was unpacked into `home`."""
    return {**os.environ, "PYTHONPATH": str(home)} if home else dict(os.environ)


@contextlib.contextmanager
def started(
    name: str, *command: str, folder: Path, home: Path | None = None, inside: Sequence[str] = ()
) -> Iterator[Program]:
    """A program of this checkout, or of `home`; ended at the end of the block. `inside`: what runs it."""
    log = folder / f"{name}.log"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener,
        tempfile.TemporaryDirectory(prefix="bp") as short,
        log.open("ab") as output,
    ):
        path = f"{short}/notify"
        listener.bind(path)
        environment = {**environment_of(home), "NOTIFY_SOCKET": path, "PYTHONWARNINGS": "default"}
        process = subprocess.Popen(
            [*inside, str(BIN / command[0]), *command[1:]],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=home,
        )
        program = Program(process, log, listener, [])
        try:
            yield program
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(8)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@dataclass(frozen=True)
class Site:
    """A provisioner's folder, with its CLI."""

    folder: Path
    port: int
    enrol_port: int
    host: str = "127.0.0.1"
    inside: tuple[str, ...] = ()  # what runs its programs: in a network of their own

    @property
    def config(self) -> Path:
        return self.folder / "provisioner.toml"

    def bedplate(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "XDG_CONFIG_HOME": str(self.folder / "xdg"), "NO_COLOR": "1"}
        done = subprocess.run(
            [*self.inside, str(BIN / "bedplate"), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def machines(self) -> list[dict[str, Any]]:
        """As `bedplate machines -o json` tells them."""
        return list(json.loads(self.bedplate("machines", "-o", "json").stdout))

    def initialise(self, home: Path | None = None) -> None:
        command = [str(BIN / "provisioner"), "--config", str(self.config), "init"]
        subprocess.run(command, check=True, capture_output=True, timeout=60, env=environment_of(home), cwd=home)

    def token(self, *arguments: str) -> Path:
        path = self.folder / "join-token"
        path.touch(mode=0o600)
        path.write_text(self.bedplate("token", "create", *arguments).stdout)
        return path

    def run(self, home: Path | None = None) -> contextlib.AbstractContextManager[Program]:
        command = ("provisioner", "--config", str(self.config), "run")
        return started("provisioner", *command, folder=self.folder, home=home, inside=self.inside)


def site(
    folder: Path,
    home: Path | None = None,
    host: str = "127.0.0.1",
    inside: tuple[str, ...] = (),
    **settings: object,
) -> Site:
    """A provisioner that was initialised, with a context for its admin; not running yet."""
    port, enrol_port = free_ports(2)
    made = Site(folder, port, enrol_port, host, inside)
    values = {"state": folder / "provisioner", "listen": f"{host}:{port}", "enrol_listen": f"{host}:{enrol_port}"}
    made.config.write_text(toml(**{**values, **settings}))
    made.initialise(home)
    credentials = folder / "provisioner" / "admin"
    made.bedplate("context", "add", "test", "--address", f"{host}:{port}", "--credentials", str(credentials), "--use")
    return made


@contextlib.contextmanager
def agent(
    folder: Path, token: Path | None, home: Path | None = None, inside: Sequence[str] = (), **settings: object
) -> Iterator[Program]:
    """The agent on this host, or with `root` on a captured one."""
    folder.mkdir(exist_ok=True)
    config = folder / "nodeagent.toml"
    with tempfile.TemporaryDirectory(prefix="bp") as short:  # a socket's path may have 107 bytes
        values: dict[str, object] = {"state": folder / "state", "socket": f"{short}/s", "tick_s": 0.5, **settings}
        if token:
            values["join_token_file"] = token
        config.write_text(toml(**values))
        command = ("nodeagent", "run", "--config", str(config))
        with started("nodeagent", *command, folder=folder, home=home, inside=inside) as program:
            yield program
