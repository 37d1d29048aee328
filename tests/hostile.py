"""Somebody who listens, and says to whoever comes what no honest server does: over real sockets, in TLS or in none."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable

Says = Callable[[asyncio.StreamWriter], Awaitable[None]]


def once(said: bytes) -> Says:
    """And then nothing, with the connection open."""

    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        await asyncio.Event().wait()

    return say


def endless(said: bytes, *, first: bytes = b"", every_s: float = 0.0) -> Says:
    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(said)
            await writer.drain()
            await asyncio.sleep(every_s)  # everybody here is one process

    return say


@contextlib.asynccontextmanager
async def meeting(say: Says, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[float]]]:
    """Its port, and when somebody came."""
    came: list[float] = []
    tasks: set[asyncio.Task[None]] = set()

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(time.monotonic())
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await reader.read(1 << 16)
            await say(writer)
        writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(met(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1], came
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)
