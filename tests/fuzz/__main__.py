"""`python -m tests.fuzz NAME SEED`: one input again. Without: new ones to every decoder in turn, for a while."""

import argparse
import secrets
import sys
import time

from tests.fuzz.decoders import DECODERS
from tests.fuzz.run import many

AT_ONCE = 200


def main() -> int:
    parser = argparse.ArgumentParser("tests.fuzz", description=__doc__)
    parser.add_argument("decoder", nargs="?", choices=DECODERS, metavar="NAME", help="this one only")
    parser.add_argument("seed", nargs="?", type=int, help="this one only")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to try new ones (default: 60)")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        found = many(arguments.decoder, arguments.seed, 1)
        sys.stdout.write("\n".join([*map(str, found)] or ["it is read, or refused as it should be"]) + "\n")
        return 1 if found else 0
    names = [arguments.decoder] if arguments.decoder else list(DECODERS)
    return _soak(names, arguments.seconds, secrets.randbits(40))


def _soak(names: list[str], seconds: float, first: int) -> int:
    began, count, failed = time.monotonic(), 0, 0
    while time.monotonic() - began < seconds:
        for name in names:
            for failure in many(name, first + count, AT_ONCE):
                failed += 1
                sys.stdout.write(f"{failure}\n")
        count += AT_ONCE
    sys.stdout.write(f"{count} inputs to each of {len(names)} decoders from seed {first} on; {failed} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
