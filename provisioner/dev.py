"""`make dev`: the whole product on this host, on loopback, without root: a provisioner, the agent of this very host,
and eight simulated machines; each a process of its own that speaks the real protocol.

Rule 1: nothing here is a short cut: what is started is what an operator would start, with the same commands.
Rule 2: state lives in one folder, and a second start continues with it.
Rule 3: whatever was started is ended, and only that.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from pathlib import Path

MACHINES = 8
PORTS = (7443, 7444)
READY_S, PATIENCE_S = 30.0, 20.0
END_S = 6.0
BIN = Path(sys.executable).parent
Attempt = Callable[[], Awaitable[object]]


class _CannotError(Exception):
    """One line for a person."""


class Dev:
    """The processes of one folder."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.children: dict[str, asyncio.subprocess.Process] = {}
        self._logs = state / "logs"
        self._config = state / "provisioner.toml"
        self._present = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Start everything, say what to try, wait for Ctrl-C."""
        print(f"state is in {self.state}; delete the folder to begin anew", flush=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        await self._provisioner()
        token = await self._token()
        await self._agents(token)
        await self._all_present(stop)
        if stop.is_set():
            return
        self._advice()
        ends = {asyncio.create_task(child.wait(), name=name): name for name, child in self.children.items()}
        waiter = asyncio.create_task(stop.wait(), name="stop")
        done, _ = await asyncio.wait({*ends, waiter}, return_when=asyncio.FIRST_COMPLETED)
        dead = [name for task, name in ends.items() if task in done]
        if dead and not stop.is_set():
            raise _CannotError(
                f"{dead[0]} ended by itself; the last lines of {self._log(dead[0])}:\n{self._tail(dead[0])}"
            )

    async def end(self) -> None:
        """SIGTERM to each that still runs, agents first; SIGKILL where that is not enough."""
        for name in reversed(self.children):
            child = self.children[name]
            if child.returncode is None:
                child.terminate()
        for name in reversed(self.children):
            child = self.children[name]
            try:
                await asyncio.wait_for(child.wait(), END_S)
            except TimeoutError:
                child.kill()
                await child.wait()

    async def _provisioner(self) -> None:
        if not self._config.exists():
            self._config.write_text(_provisioner_toml(self.state))
        if not (self.state / "provisioner" / "ca.pem").exists():
            await self._once("provisioner", "--config", str(self._config), "init")
        await self._start("provisioner", "provisioner", "--config", str(self._config), "run")
        await self._until(
            "the provisioner", lambda: self._once("bedplate", "--context", "dev", "status"), first=self._context
        )

    async def _context(self) -> None:
        """The CLI finds it without being told, unless it has been told of another already."""
        address = next(
            line.split('"')[1] for line in self._config.read_text().splitlines() if line.startswith("listen =")
        )
        credentials = self.state / "provisioner" / "admin"
        await self._once(
            "bedplate", "context", "add", "dev", "--replace", "--address", address, "--credentials", str(credentials)
        )

    async def _token(self) -> Path:
        made = await self._once("bedplate", "--context", "dev", "token", "create", "--uses", "0", "--ttl", "24h")
        path = self.state / "join-token"
        path.touch(mode=0o600)
        path.write_text(made)
        return path

    async def _agents(self, token: Path) -> None:
        config = self.state / "nodeagent.toml"
        config.write_text(_nodeagent_toml(self.state, token))
        await self._start("nodeagent", "nodeagent", "run", "--config", str(config))
        await self._start(
            "simulate",
            *("bedplate", "simulate", "--machines", str(MACHINES), "--seed", "1"),
            *("--join-token-file", str(token), "--state", str(self.state / "simulated")),
        )

    async def _all_present(self, stop: asyncio.Event) -> None:
        """Or so many as come: one that a person has revoked stays away, and the others are there to be looked at."""
        loop = asyncio.get_running_loop()
        patient_until = loop.time() + PATIENCE_S

        async def nine() -> None:
            listed = await self._once("bedplate", "--context", "dev", "machines", "--phase", "present", "-o", "json")
            self._present = len(json.loads(listed))
            if self._present <= MACHINES and loop.time() < patient_until:
                raise _CannotError("not all machines are there yet")

        await self._until("the machines", nine, stop=stop)

    async def _until(
        self, what: str, attempt: Attempt, *, first: Attempt | None = None, stop: asyncio.Event | None = None
    ) -> None:
        """Try until it works, a child dies, or it took too long."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_S
        while not (stop and stop.is_set()):
            for name, child in self.children.items():
                if child.returncode is not None:
                    raise _CannotError(f"cannot start {name}: {self._tail(name)}")
            try:
                if first:
                    await first()
                    first = None
                await attempt()
            except _CannotError as error:
                if loop.time() > deadline:
                    raise _CannotError(f"cannot start {what} within {READY_S:.0f} s: {error}") from error
                await asyncio.sleep(0.2)
            else:
                return

    async def _once(self, program: str, *arguments: str) -> str:
        child = await asyncio.create_subprocess_exec(
            BIN / program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await child.communicate()
        if child.returncode:
            raise _CannotError(err.decode(errors="replace").strip())
        return out.decode()

    async def _start(self, name: str, program: str, *arguments: str) -> None:
        with self._log(name).open("ab") as log:
            self.children[name] = await asyncio.create_subprocess_exec(
                BIN / program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        print(f"started {name}, process {self.children[name].pid}; its log is {self._log(name)}", flush=True)

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _tail(self, name: str) -> str:
        lines = self._log(name).read_text(errors="replace").splitlines()
        return "\n".join(lines[-5:])

    def _advice(self) -> None:
        bedplate, host = os.path.relpath(BIN / "bedplate"), socket.gethostname()
        wide = len(f"machine show {host}")
        there = f"nine machines are present: this host and {MACHINES} simulated ones."
        if self._present <= MACHINES:
            there = f"{self._present} machines are present, and `{bedplate} machines` says why no more."
        commands = "\n".join(
            f"  {bedplate} {command:{wide}}   {what}"
            for command, what in (
                ("machines", "all of them"),
                (f"machine show {host}", "this host, as its agent sees it"),
                (f"topology {host}", "where its NICs sit"),
                (f"explain {host}", "why it is in its phase"),
                ("watch", "machines as they change"),
                ("--help", "everything else"),
            )
        )
        print(
            f"""
{there} In another terminal:

{commands}

Where another provisioner is your current context, say `{bedplate} --context dev …`.
Ctrl-C ends everything that was started here.""",
            flush=True,
        )


def _provisioner_toml(state: Path) -> str:
    main, door = (_free(port) for port in PORTS)
    return (
        f'state = "{state / "provisioner"}"\n'
        f'listen = "127.0.0.1:{main}"\n'
        f'enrol_listen = "127.0.0.1:{door}"\n'
        "silent_after_s = 15\n"
        "connections = 200\nenrol_connections = 100\n"
        "keepalive_s = 5\n"
    )


def _nodeagent_toml(state: Path, token: Path) -> str:
    return f'state = "{state / "nodeagent"}"\njoin_token_file = "{token}"\nsocket = "{_socket(state)}"\ntick_s = 5\n'


def _socket(state: Path) -> Path:
    """In the state folder, or, where that path is too long for the kernel, in a folder of its own."""
    path = state / "nodeagent.sock"
    if len(os.fsencode(path)) < 100:  # noqa: PLR2004 - sun_path has 108 bytes
        return path
    folder = Path(tempfile.gettempdir()) / f"bedplate-{os.getuid()}-{sha256(os.fsencode(state)).hexdigest()[:8]}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / "nodeagent.sock"


def _free(port: int) -> int:
    """The port, or any other where it is taken."""
    for candidate in (port, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", candidate))
            return int(probe.getsockname()[1])
    raise _CannotError("cannot find a free port on 127.0.0.1")


async def _main(state: Path) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    dev = Dev(state)
    try:
        await dev.run(stop)
    except _CannotError as error:
        print(f"make dev: {error}", file=sys.stderr)
        return 1
    else:
        return 0
    finally:
        print("ending what was started …", flush=True)
        await dev.end()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m provisioner.dev", description="Everything, on this host.")
    parser.add_argument("--state", type=Path, default=Path("build/dev"), help="folder for all state (build/dev)")
    return asyncio.run(_main(parser.parse_args(arguments).state.absolute()))


if __name__ == "__main__":
    sys.exit(main())
