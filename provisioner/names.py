"""Looks up names where it holds up nobody: who hangs in a resolver hangs in a thread that nobody else waits for.

Rule: the threads in which the store is read and written are never lent for this, and no end of the program waits.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Sequence
from typing import Any

LIMIT_S = 5.0
Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]


async def look_up(host: str, port: int) -> Sequence[Address]:
    """As socket.getaddrinfo, for TCP. OSError where nobody knows it, TimeoutError where nobody answers in time."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Sequence[Address]] = loop.create_future()

    def tell(found: Sequence[Address] | OSError) -> None:
        if answer.done():
            return
        if isinstance(found, OSError):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    def ask() -> None:
        found: Sequence[Address] | OSError
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            found = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, found)

    threading.Thread(target=ask, name=f"name {host}", daemon=True).start()
    async with asyncio.timeout(LIMIT_S):
        return await answer
