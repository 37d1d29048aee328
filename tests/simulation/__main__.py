"""`python -m tests.simulation SEED --trace`: one seed again, with its log. Without a seed: new ones for a while."""

import argparse
import secrets
import sys
import time

from tests.simulation.run import Outcome, run


def _told(outcome: Outcome) -> str:
    if not outcome.broken:
        return f"seed {outcome.seed}: all held, {outcome.happened} events in {outcome.virtual_s:.0f} virtual s"
    again = f"again: .venv/bin/python -m tests.simulation {outcome.seed} --trace"
    return f"seed {outcome.seed}: {outcome.broken} (at {outcome.virtual_s:.3f} virtual s)\n  {again}"


def soak(seconds: float, first: int) -> int:
    """Seeds one after the other; the exit code is 1 where one of them failed."""
    began, count, failed, happened = time.monotonic(), 0, 0, 0
    while time.monotonic() - began < seconds:
        outcome = run(first + count)
        count, happened = count + 1, happened + outcome.happened
        if outcome.broken:
            failed += 1
            sys.stdout.write(_told(outcome) + "\n")
    took = time.monotonic() - began
    rate = f"{count / took * 60:.0f} a minute, {happened / took:.0f} events a second"
    sys.stdout.write(f"{count} seeds from {first} on in {took:.1f} s, {rate}; {failed} failed\n")
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser("tests.simulation", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", help="this one only; without: new ones, one after the other")
    parser.add_argument("--trace", action="store_true", help="print what happened, event by event")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to try new seeds (default: 60)")
    parser.add_argument("--from", dest="first", type=int, help="the first of the new seeds (default: random)")
    arguments = parser.parse_args()
    if arguments.seed is None:
        return soak(arguments.seconds, secrets.randbits(40) if arguments.first is None else arguments.first)
    outcome = run(arguments.seed, lines=arguments.trace)
    for line in outcome.lines:
        sys.stdout.write(line + "\n")
    sys.stdout.write(_told(outcome) + "\n")
    return 1 if outcome.broken else 0


if __name__ == "__main__":
    sys.exit(main())
