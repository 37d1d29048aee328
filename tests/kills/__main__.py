"""`python -m tests.kills SEED`: one seed again, with what was killed when. Without a seed: new ones for a while."""

import argparse
import secrets
import sys
import time

from tests.kills.run import Outcome, run

KILLS = 25


def _told(outcome: Outcome, took_s: float) -> str:
    if not outcome.broken:
        return f"seed {outcome.seed}: all held after {outcome.kills} kills in {took_s:.0f} s"
    again = f"again: .venv/bin/python -m tests.kills {outcome.seed} --kills {outcome.kills}"
    return "\n  ".join([f"seed {outcome.seed}: broken", *outcome.broken, again])


def soak(seconds: float, first: int, kills: int) -> int:
    """Seeds one after the other; the exit code is 1 where one of them failed."""
    began, count, failed = time.monotonic(), 0, 0
    while (begun := time.monotonic()) - began < seconds:
        outcome = run(first + count, kills)
        count, failed = count + 1, failed + bool(outcome.broken)
        sys.stdout.write(_told(outcome, time.monotonic() - begun) + "\n")
        sys.stdout.flush()
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser("tests.kills", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", help="this one only; without: new ones, one after the other")
    parser.add_argument("--kills", type=int, default=KILLS, help=f"for each seed (default: {KILLS})")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to try new seeds (default: 60)")
    arguments = parser.parse_args()
    if arguments.seed is None:
        return soak(arguments.seconds, secrets.randbits(32), arguments.kills)
    began = time.monotonic()
    outcome = run(arguments.seed, arguments.kills)
    for line in outcome.log:
        sys.stdout.write(line + "\n")
    sys.stdout.write(_told(outcome, time.monotonic() - began) + "\n")
    return 1 if outcome.broken else 0


if __name__ == "__main__":
    sys.exit(main())
