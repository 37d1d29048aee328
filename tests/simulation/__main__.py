"""`python -m tests.simulation SEED --trace`: one seed again, with its log. Without a seed: new ones for a while."""

import argparse
import logging
import math
import os
import secrets
import sys
import time

from tests.simulation.many import Span, outcomes
from tests.simulation.run import Outcome, run

SECONDS = 60.0


def _told(outcome: Outcome) -> str:
    if not outcome.broken:
        return f"seed {outcome.seed}: all held, {outcome.happened} events in {outcome.virtual_s:.0f} virtual s"
    again = f"again: .venv/bin/python -m tests.simulation {outcome.seed} --trace"
    return f"seed {outcome.seed}: {outcome.broken} (at {outcome.virtual_s:.3f} virtual s)\n  {again}"


def soak(span: Span, jobs: int) -> int:
    """The exit code: 1 where a seed failed, 130 where a person ended it and none had."""
    began, count, failed, happened, ended = time.monotonic(), 0, 0, 0, ""
    try:
        for outcome in outcomes(span, jobs):
            count, happened = count + 1, happened + outcome.happened
            if outcome.broken:
                failed += 1
                sys.stdout.write(_told(outcome) + "\n")
                sys.stdout.flush()
    except KeyboardInterrupt:
        ended = "; ended by Ctrl-C"
    took = time.monotonic() - began
    spent_ms = sum(os.times()[:4]) * 1000 / max(count, 1)
    where = f"{jobs} processes" if jobs > 1 else "one process"
    rate = f"{count / took * 60:.0f} a minute, {happened} events, {spent_ms:.0f} ms of a processor each"
    sys.stdout.write(f"{count} seeds from {span.first} on in {took:.1f} s by {where}: {rate}; {failed} failed{ended}\n")
    return 1 if failed else 130 if ended else 0


def _one(seed: int, *, trace: bool) -> int:
    outcome = run(seed, lines=trace)
    for line in outcome.lines:
        sys.stdout.write(line + "\n")
    sys.stdout.write(_told(outcome) + "\n")
    return 1 if outcome.broken else 0


def main() -> int:
    parser = argparse.ArgumentParser("tests.simulation", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", help="this one only; without: new ones, one after the other")
    parser.add_argument("--trace", action="store_true", help="print what happened, event by event")
    parser.add_argument("--seconds", type=float, help=f"how long to try new seeds (default: {SECONDS:g}; or --count)")
    parser.add_argument("--count", type=int, help="how many seeds to try")
    parser.add_argument("--from", dest="first", type=int, help="the first of the new seeds (default: random)")
    processors = len(os.sched_getaffinity(0))
    parser.add_argument("--jobs", type=int, default=processors, help="processes (default: one a processor)")
    asked = parser.parse_args()
    logging.getLogger("provisioner").setLevel(logging.CRITICAL)  # what it warns of happens here all the time
    if asked.jobs < 1 or (asked.count is not None and asked.count < 1):
        parser.error("--jobs and --count begin at 1")
    if asked.seed is not None:
        return _one(asked.seed, trace=asked.trace)
    seconds = asked.seconds or (math.inf if asked.count else SECONDS)
    first = secrets.randbits(40) if asked.first is None else asked.first
    return soak(Span(first, asked.count, seconds), asked.jobs)


if __name__ == "__main__":
    sys.exit(main())
