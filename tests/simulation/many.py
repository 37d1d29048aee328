"""Seeds one after the other, on as many processors as there are.

Rule 1: a seed's outcome is its own, whoever runs it: the processes share nothing but the number of the next seed.
Rule 2: the seeds that ran are the first and those that follow it, without a gap, however they were shared out.
Rule 3: Ctrl-C is for the one process that a person started; the others end with it, however it ends.
"""

import multiprocessing
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection, wait
from typing import Any

from tests.simulation.run import Outcome, run


@dataclass(frozen=True, slots=True)
class Span:
    """Which seeds: from the first on, so many, for as long as this."""

    first: int
    most: int | None
    seconds: float


def outcomes(span: Span, jobs: int) -> Iterator[Outcome]:
    """In no order. RuntimeError where a process of ours ended before its time."""
    until = time.monotonic() + span.seconds
    seeds = count(span.first) if span.most is None else range(span.first, span.first + span.most)
    if jobs > 1:
        yield from _shared_out(span, until, jobs)
        return
    for seed in seeds:
        if time.monotonic() >= until:
            return
        yield run(seed)


def _shared_out(span: Span, until: float, jobs: int) -> Iterator[Outcome]:
    taken = multiprocessing.Value("q", 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # within a fork, Python would lose it
    workers = dict(_worker(taken, span, until) for _ in range(jobs))
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        listening = set(workers)
        while listening:
            for end in wait(list(listening)):
                try:
                    yield end.recv()
                except EOFError:
                    listening.discard(end)
        for process in workers.values():
            process.join()
            if process.exitcode:
                raise RuntimeError(f"cannot run all seeds: a process ended with {process.exitcode}")
    finally:
        for process in workers.values():
            process.terminate()
            process.join()


def _worker(taken: Any, span: Span, until: float) -> tuple[Connection, Any]:
    ours, its = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=_work, args=(taken, span, until, its), daemon=True)
    process.start()
    its.close()
    return ours, process


def _work(taken: Any, span: Span, until: float, tell: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    while time.monotonic() < until and parent is not None and parent.is_alive():
        with taken.get_lock():
            number, taken.value = taken.value, taken.value + 1
        if span.most is not None and number >= span.most:
            return
        tell.send(run(span.first + number))
