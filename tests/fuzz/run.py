"""Looks for an input that a decoder does not stand; reads one again."""

import base64
import contextlib
import logging
import time
import traceback
import zlib
from collections.abc import Iterator

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import FlakyFailure

from tests.fuzz.decoder import Decoder, Read
from tests.fuzz.decoders import DECODERS

SLOW_S = 5.0  # far more than any needs on a busy host: what is slower does not end, or grows with the square
SHOWN = 200
PHASES = (Phase.generate, Phase.shrink)


class BrokenError(Exception):
    """`str` is for a person: the decoder, what came out, the input, and how it is read again."""

    def __init__(self, name: str, body: bytes, why: str) -> None:
        shown = repr(body[:SHOWN]) + (f" and {len(body) - SHOWN} more" if len(body) > SHOWN else "")
        again = f"again: .venv/bin/python -m tests.fuzz {name!r} {packed(body)}"
        super().__init__(f"{name}: {why}\n  {shown}\n  {again}")


def packed(body: bytes) -> str:
    """As an argument: inputs are often the same byte, many times."""
    return base64.urlsafe_b64encode(zlib.compress(body)).decode()


def unpacked(text: str) -> bytes:
    return zlib.decompress(base64.urlsafe_b64decode(text))


def searched(name: str, examples: int, number: int | None = None) -> None:
    """BrokenError with the smallest input that was found. A number: other inputs than without."""
    decoder = DECODERS[name]
    with decoder.opened() as read, _tracebacks() as logged:

        @settings(
            max_examples=examples,
            phases=PHASES,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=[*HealthCheck],
        )
        @given(decoder.inputs)
        def look(body: bytes) -> None:
            looked(name, decoder, read, body, logged)

        try:
            (look if number is None else seed(number)(look))()
        except FlakyFailure as error:  # it fails now and then: what it failed with is what counts
            raise error.exceptions[0] from error


def again(name: str, body: bytes) -> None:
    """BrokenError if it is not stood still."""
    with DECODERS[name].opened() as read, _tracebacks() as logged:
        looked(name, DECODERS[name], read, body, logged)


def looked(name: str, decoder: Decoder, read: Read, body: bytes, logged: list[str]) -> None:
    began = time.process_time()
    try:
        read(body)
    except decoder.raises as error:
        if "\n" in str(error):
            raise BrokenError(name, body, f"more than a line: {error}") from None
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        why = f"{type(error).__name__}: {str(error)[:SHOWN]} ({where.filename}:{where.lineno})"
        raise BrokenError(name, body, why) from error
    if logged:
        raise BrokenError(name, body, f"a traceback in the log: {logged.pop()}")
    if (took := time.process_time() - began) > SLOW_S:
        raise BrokenError(name, body, f"it took {took:.1f} s")


@contextlib.contextmanager
def _tracebacks() -> Iterator[list[str]]:
    handler = _Tracebacks(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        yield handler.found
    finally:
        logging.getLogger().removeHandler(handler)


class _Tracebacks(logging.Handler):
    """What anybody logs with one: an error that nobody expected."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.found.append(record.getMessage()[:SHOWN])
