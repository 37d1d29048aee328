"""`python -m tests.fuzz NAME INPUT`: that input again. Without: new ones to every decoder in turn, for a while."""

import argparse
import itertools
import secrets
import sys
import time
from collections.abc import Sequence

from tests.fuzz.decoders import DECODERS
from tests.fuzz.run import BrokenError, again, searched, unpacked

AT_ONCE = 100


def main() -> int:
    parser = argparse.ArgumentParser("tests.fuzz", description=__doc__)
    parser.add_argument("decoder", nargs="?", choices=DECODERS, metavar="NAME", help="this one only")
    parser.add_argument("input", nargs="?", type=unpacked, help="as it was printed when it failed")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to try new ones (default: 60)")
    parser.add_argument("--names", action="store_true", help="print the names of all decoders")
    arguments = parser.parse_args()
    if arguments.names:
        sys.stdout.write("".join(f"{name}\n" for name in DECODERS))
        return 0
    if arguments.input is not None:
        return _again(arguments.decoder, arguments.input)
    return _soak([arguments.decoder] if arguments.decoder else list(DECODERS), arguments.seconds)


def _again(name: str, body: bytes) -> int:
    try:
        again(name, body)
    except BrokenError as error:
        sys.stdout.write(f"{error}\n")
        return 1
    sys.stdout.write("it is read, or refused as it should be\n")
    return 0


def _soak(names: Sequence[str], seconds: float) -> int:
    """In turn, from any one on. One that failed is not tried again: what is wrong with it is known."""
    began, number, tried, failed = time.monotonic(), secrets.randbits(40), 0, set[str]()
    at = number % len(names)
    for name in itertools.cycle([*names[at:], *names[:at]]):
        if time.monotonic() - began > seconds or len(failed) == len(names):
            break
        if name not in failed:
            tried += 1
            failed |= set() if _stands(name, number + tried) else {name}
    took = time.monotonic() - began
    count = tried * AT_ONCE
    sys.stdout.write(f"{count} inputs to {len(names)} decoders in {took:.0f} s, {count / took:.0f} a second; ")
    sys.stdout.write(f"{len(failed)} failed\n")
    return 1 if failed else 0


def _stands(name: str, number: int) -> bool:
    try:
        searched(name, AT_ONCE, number)
    except BrokenError as error:
        sys.stdout.write(f"{error}\n")
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
