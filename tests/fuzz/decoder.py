"""A row of the table: something that reads bytes from outside, how it is reached, and what it may raise."""

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from hypothesis.strategies import SearchStrategy

from tests.fuzz.inputs import spoilt

Read = Callable[[bytes], object]
ReadSoon = Callable[[bytes], Awaitable[object]]
Refusals = tuple[type[BaseException], ...]
ANSWER_S = 50.0  # far more than any takes on a busy host


@dataclass(frozen=True)
class Decoder:
    """`opened` gives what is handed the inputs, for as long as the block runs. `corpus`: what it gets on a good day."""

    opened: Callable[[], AbstractContextManager[Read]]
    corpus: Sequence[bytes]
    raises: Refusals = ()
    more: SearchStrategy[bytes] | None = None  # inputs besides those of the corpus, and of it spoilt
    examples: int = 150  # for each run in continuous integration

    @cached_property
    def inputs(self) -> SearchStrategy[bytes]:
        near = spoilt(self.corpus)
        return near if self.more is None else near | self.more


def plain(read: Read) -> Callable[[], AbstractContextManager[Read]]:
    return lambda: contextlib.nullcontext(read)


def texts(read: Callable[[str], object]) -> Callable[[], AbstractContextManager[Read]]:
    """As a terminal or a proto hands it over: text, with whatever cannot be said replaced."""
    return plain(lambda body: read(body.decode(errors="replace")))


def in_a_folder(read: Callable[[bytes, Path], object]) -> Callable[[], AbstractContextManager[Read]]:
    @contextlib.contextmanager
    def opened() -> Iterator[Read]:
        with tempfile.TemporaryDirectory(prefix="bpf") as folder:
            yield lambda body: read(body, Path(folder))

    return opened


def a_file(read: Callable[[Path], object], name: str) -> Callable[[], AbstractContextManager[Read]]:
    def decode(body: bytes, folder: Path) -> object:
        path = folder / name
        path.write_bytes(body)
        path.chmod(0o600)
        return read(path)

    return in_a_folder(decode)


def in_a_loop(
    opened: Callable[[Path], AbstractAsyncContextManager[ReadSoon]],
) -> Callable[[], AbstractContextManager[Read]]:
    """What lives in an event loop: it has one of its own, in a thread, that goes on between the inputs."""

    @contextlib.contextmanager
    def entered() -> Iterator[Read]:
        with tempfile.TemporaryDirectory(prefix="bpf") as folder, _Loop(opened(Path(folder))) as loop:
            yield loop.read

    return entered


class _Loop:
    def __init__(self, context: AbstractAsyncContextManager[ReadSoon]) -> None:
        self._context = context
        self._ready, self._over = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._live(),))
        self._loop: asyncio.AbstractEventLoop
        self._read: ReadSoon

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(ANSWER_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with self._context as self._read:
            self._ready.set()
            await self._over.wait()

    def read(self, body: bytes) -> Any:
        async def once() -> object:
            async with asyncio.timeout(ANSWER_S):
                return await self._read(body)

        return asyncio.run_coroutine_threadsafe(once(), self._loop).result()
