"""How a bench and the processes that it starts talk: one line of JSON each way, over stdin and stdout.

Rule: each process is asked one thing at a time, and ends when its stdin does: none outlives the bench.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
Answer = dict[str, Any]


class Asked:
    """A process that answers."""

    def __init__(self, process: "subprocess.Popen[str]", name: str) -> None:
        self._process = process
        self._name = name
        self.pid = process.pid

    def ask(self, verb: str, **values: object) -> Answer:
        """AssertionError where it ended instead of answering, or answered that it could not."""
        self.tell(verb, **values)
        return self.answer()

    def tell(self, verb: str, **values: object) -> None:
        """The question alone; `answer` waits for what it comes to."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"verb": verb, **values}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Answer:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, f"{self._name} ended"
        answer: Answer = json.loads(line)
        assert "error" not in answer, f"{self._name}: {answer['error']}"
        return answer


@contextlib.contextmanager
def asked(module: str, *arguments: str, core: int | None = None) -> Iterator[Asked]:
    """`python -m module`, on a core of its own where there are several."""
    with on(core):
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
    assert process.stdin
    assert process.stdout
    try:
        yield Asked(process, module)
    finally:
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextlib.contextmanager
def on(core: int | None) -> Iterator[None]:
    """What is started in the block has this core (of those that we may use) to itself and its like."""
    ours = sorted(os.sched_getaffinity(0))
    if core is not None:
        os.sched_setaffinity(0, {ours[core % len(ours)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, set(ours))


async def answering(verbs: dict[str, Callable[..., Awaitable[Answer]]]) -> None:
    """Until stdin ends."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        question = json.loads(line)
        try:
            answer = await verbs[question.pop("verb")](**question)
        except Exception as error:  # noqa: BLE001 - the bench says it
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)  # noqa: T201 - that is how it answers
