"""The processes that carry the machines, and the one that leads them.

Rule 1: a process that dies takes its machines with it, and nobody else's: it is said, and the others go on.
Rule 2: who is led ends when its leader does, however that ends: its orders come by a pipe.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from bedplate.v1.snapshot_pb2 import Snapshot
from nodeagent.errors import BedplateError
from nodeagent.simulate.board import Board
from nodeagent.simulate.crowd import LOOK_S, Crowd, Tell
from nodeagent.simulate.options import Options
from nodeagent.simulate.told import Failed, Told

LAST_S = 4.7  # after it is to end: whatever still hangs; longer where there are many
LINE_BYTES = 1 << 16
BEGIN, END = b"begin", b"end "


class LostError(BedplateError):
    """A process is gone that nobody had end."""


class Part(Protocol):
    async def run(self) -> None: ...
    def begin(self) -> None: ...
    def end(self, why: str, /) -> None: ...
    def kill(self) -> None: ...


class Here:
    """All machines in this process."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd

    async def run(self) -> None:
        await self._crowd.run()

    def begin(self) -> None:
        self._crowd.begin.set()

    def end(self, why: str, /) -> None:
        self._crowd.end(why)

    def kill(self) -> None:
        """It ends in time by itself."""


class There:
    """A share of the machines in a process of its own."""

    def __init__(self, argv: Sequence[str], share: str, token: str, tell: Tell, count: int) -> None:
        self._command = [sys.executable, "-P", "-m", "nodeagent", "simulate", *argv, "--share", share]
        self._orders = [token.encode()]
        self._tell = tell
        self._count = count
        self._process: asyncio.subprocess.Process | None = None
        self._ending = False
        self._killed = False

    async def run(self) -> None:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe, limit=LINE_BYTES)
        self._process = process
        self._order()
        try:
            if process.stdout:
                async for line in process.stdout:
                    self._hear(line)
            code = await process.wait()
        finally:
            self.kill()
        if not self._ending:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
            raise LostError(f"process {process.pid} {how}: its {self._count} machines are gone; the others go on")

    def begin(self) -> None:
        self._order(BEGIN)

    def end(self, why: str, /) -> None:
        self._ending = True
        self._order(END + why.encode())

    def kill(self) -> None:
        """Once: to look whether it is gone takes its end away from whoever waits for it."""
        if self._process and self._process.returncode is None and not self._killed:
            self._killed = True
            self._process.kill()

    def _order(self, *words: bytes) -> None:
        """Now, or once it runs."""
        self._orders += words
        if self._process and self._process.stdin:
            orders, self._orders = self._orders, []
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(b"".join(order + b"\n" for order in orders))

    def _hear(self, line: bytes) -> None:
        told: Told = msgspec.json.decode(line, type=Told)
        if isinstance(told, Failed):
            raise BedplateError(told.error)
        self._tell(told)


class Crew:
    def __init__(
        self, parts: Sequence[Part], board: Board, say: Callable[[str], None], *, once: bool, last_s: float = LAST_S
    ) -> None:
        self._parts = parts
        self._last_s = last_s
        self._board = board
        self._say = say
        self._once = once
        self._lost = 0
        self._ended_at = 0.0
        self._began = False

    async def run(self) -> int:
        """Until it is told to end, all is stored that was to be stored, or nobody is left."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.end, number.name)
        tasks = [asyncio.create_task(self._part(at, part)) for at, part in enumerate(self._parts)]
        flaw: BaseException | None = None
        while not all(task.done() for task in tasks):
            await asyncio.wait(tasks, timeout=LOOK_S, return_when=asyncio.FIRST_EXCEPTION)
            flaw = flaw or next((task.exception() for task in tasks if task.done()), None)
            if flaw:
                self.end("something broke")
            self._look(loop.time())
        if flaw:
            raise flaw
        self._say(f"said goodbye on {self._board.goodbyes} streams")
        return 1 if self._lost else 0

    def end(self, why: str) -> None:
        if not self._ended_at:
            self._ended_at = asyncio.get_running_loop().time()
            for part in self._parts:
                part.end(why)

    async def _part(self, at: int, part: Part) -> None:
        try:
            await part.run()
        except LostError as error:
            self._lost += 1
            self._say(str(error))
            self._board.gone(at)

    def _look(self, now: float) -> None:
        if self._ended_at:
            if now - self._ended_at >= self._last_s:
                for part in self._parts:
                    part.kill()
            return
        self._board.look(now)
        if self._board.tried and not self._began:
            self._began = True
            for part in self._parts:
                part.begin()
        if self._once and self._board.settled:
            self.end("all is stored")


async def led(options: Options, models: Mapping[str, Snapshot], say: Callable[[bytes], None]) -> None:
    """The process that is led: its machines, until its orders end."""

    def tell(told: Told) -> None:
        say(msgspec.json.encode(told) + b"\n")

    orders = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    crowd = Crowd(options, models, (await orders.readline()).decode().strip(), tell)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, crowd.end, number.name)
    obeying = asyncio.create_task(_obey(crowd, orders), name="orders")
    try:
        await crowd.run()
    except BedplateError as error:
        tell(Failed(str(error)))
    finally:
        obeying.cancel()


async def _obey(crowd: Crowd, orders: asyncio.StreamReader) -> None:
    async for order in orders:
        if order.startswith(END):
            crowd.end(order.removeprefix(END).decode().strip())
        else:
            crowd.begin.set()
    crowd.end("whoever led it is gone")
