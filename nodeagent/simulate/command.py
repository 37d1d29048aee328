"""`nodeagent simulate`: from what a person typed to machines that live."""

import asyncio
import contextlib
import os
import resource
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import msgspec

from bedplate.v1.snapshot_pb2 import Snapshot
from nodeagent import config, shipped
from nodeagent.errors import BedplateError
from nodeagent.host import replayed
from nodeagent.lock import alone
from nodeagent.meeting import decode
from nodeagent.observe import scan
from nodeagent.schedule import HOUR_S, newcomers, timeline
from nodeagent.simulate.board import Board
from nodeagent.simulate.crew import LAST_S, Crew, Here, Part, There, led
from nodeagent.simulate.crowd import Crowd
from nodeagent.simulate.options import Options, options, shared


def main(argv: Sequence[str]) -> int:
    given = options(argv)
    if given.asked:
        if given.wants_token:
            with alone(given.state), _events(given.events):  # what cannot be written is said before there is one
                pass
        say("yes" if given.wants_token else "no")
        return 0
    if given.plan_hours is not None:
        return _plan(given, given.plan_hours * HOUR_S)
    _raise_limit()
    if given.led:
        asyncio.run(led(given, captured(given.models), _write))
        return 0
    token = _token(given)
    with alone(given.state), _events(given.events) as events:
        return asyncio.run(_lead(given, argv, token, events))


def captured(models: Sequence[str]) -> dict[str, Snapshot]:
    """What the captured machines show, by name."""
    with tempfile.TemporaryDirectory() as scratch:
        return {model: scan(replayed(shipped.folder(model, Path(scratch)))) for model in models}


async def _lead(given: Options, argv: Sequence[str], token: str, events: IO[bytes] | None) -> int:
    board = Board(given.processes, say, events, given.hour_s / HOUR_S, quiet=given.quiet)
    processes = f" in {given.processes} processes" if given.processes > 1 else ""
    say(f"{given.machines} machines{processes}, made from {', '.join(given.models)}; their keys are in {given.state}")
    if late := given.late(os.cpu_count() or 1):
        say(late)
    parts: list[Part]
    if given.processes == 1:
        parts = [Here(Crowd(given, captured(given.models), token, lambda told: board.heard(0, told)))]
    else:
        parts = [_there(given, argv, number, token, board) for number in range(1, given.processes + 1)]
    return await Crew(parts, board, say, once=given.once, last_s=LAST_S * given.crowding).run()


def _there(given: Options, argv: Sequence[str], number: int, token: str, board: Board) -> There:
    share = f"{number}/{given.processes}"
    return There(argv, share, token, lambda told: board.heard(number - 1, told), len(shared(given, number).numbers))


def _token(given: Options) -> str:
    """What is wrong with it is said now."""
    token = config.token(config.Config(join_token=given.join_token, join_token_file=given.join_token_file))
    if token:
        decode(token)
    elif wanting := newcomers(given.rates):
        advice = "give a join token: bedplate token create --uses 0"
        raise BedplateError(f"cannot simulate {wanting[0]}: newcomers have no way in; {advice}")
    return token


def _plan(given: Options, until_s: float) -> int:
    for fault in timeline(given.seed, given.numbers, given.rates, until_s):
        line = {"at_s": fault.at_s, "machine": given.name(fault.machine), "fault": fault.kind, "for_s": fault.for_s}
        _write(msgspec.json.encode(line) + b"\n")
    return 0


@contextlib.contextmanager
def _events(path: Path | None) -> Iterator[IO[bytes] | None]:
    if path is None:
        yield None
        return
    try:
        file = path.open("ab")
    except OSError as error:
        raise BedplateError(f"cannot write events {path}: {error.strerror}") from error
    with file:
        yield file


def _raise_limit() -> None:
    """Thousands of streams are thousands of open files: as many as we may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - what it does is told to the terminal
