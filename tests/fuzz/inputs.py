"""Inputs that are nearly right, for hypothesis to draw and to shrink.

More is found so than by noise: most of a valid input that was changed in a few places is still read. What was drawn
shrinks to fewer changes of the first input, and to smaller ones.
"""

import json
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

Draw = Callable[..., Any]
MOST = 1 << 20  # bytes of an input
NASTY = (
    b"",
    b"\0",
    b"\n",
    b"\r\n\t ",
    b"\xff" * 9,
    b"\xff\xff\xff\xff\x0f",
    b"\x80" * 10 + b"\x01",
    b"-1",
    b"1e999",
    b"nan",
    b"99999999999999999999",
    b"9" * 5000,  # more digits than Python makes a number of
    b"\xed\xa0\x80",
    "ü\u2028\u202e\0".encode(),
    "²٣".encode(),  # digits that are no decimals, and decimals that are not ASCII
    b"\x1b[2J\x1b]0;x\x07",
    b"%s%n{}",
    b"../../../etc/shadow",
    b'"',
    b"'",
    b"\\",
    b"[" * 5000,
    b'{"a":' * 3000,
    b"(" * 300,
    b"A" * 70_000,
)


@st.composite
def spoilt(draw: Draw, corpus: Sequence[bytes]) -> bytes:
    """One of these, changed in up to eight places."""
    body = draw(st.sampled_from(corpus))
    for change in draw(st.lists(st.sampled_from(CHANGES), max_size=8)):
        body = change(draw, body, corpus)[:MOST]
    return body


def _flip(draw: Draw, body: bytes, _: Sequence[bytes]) -> bytes:
    at, bit = _place(draw, body), draw(st.integers(0, 7))
    return body[:at] + bytes(one ^ 1 << bit for one in body[at : at + 1]) + body[at + 1 :]


def _put(draw: Draw, body: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(draw, body)
    return body[:at] + draw(st.sampled_from(NASTY)) + body[at + draw(st.sampled_from((0, 1, 4, 30))) :]


def _noise(draw: Draw, body: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(draw, body)
    return body[:at] + draw(st.binary(max_size=8)) + body[at + draw(st.integers(0, 8)) :]


def _cut(draw: Draw, body: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(draw, body)
    return body[:at] + body[at + draw(st.sampled_from((1, 8, MOST))) :]


def _again(draw: Draw, body: bytes, _: Sequence[bytes]) -> bytes:
    start, end = sorted((_place(draw, body), _place(draw, body)))
    return body[:start] + body[start:end] * draw(st.sampled_from((2, 3, 50))) + body[end:]


def _splice(draw: Draw, body: bytes, corpus: Sequence[bytes]) -> bytes:
    other = draw(st.sampled_from(corpus))
    return body[: _place(draw, body)] + other[_place(draw, other) :]


def _place(draw: Draw, body: bytes) -> int:
    return int(draw(st.integers(0, len(body))))


CHANGES = (_cut, _flip, _put, _noise, _again, _splice)


# -- documents ---------------------------------------------------------------------------------------------------------

_TEXTS = st.sampled_from([one.decode(errors="replace") for one in NASTY if len(one) < 100]) | st.text(max_size=8)
_SCALARS = st.none() | st.booleans() | st.integers() | st.sampled_from((-1, 1 << 31, 1 << 64, 10**400)) | _TEXTS
VALUES = st.recursive(
    _SCALARS | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def misshapen(draw: Draw, documents: Sequence[Any]) -> bytes:
    """JSON of one of these, in which some values are of another type, or not there."""
    document = draw(st.sampled_from(documents))
    for _ in range(draw(st.integers(1, 3))):
        document = _changed(draw, document)
    return json.dumps(document).encode()


def _changed(draw: Draw, document: Any) -> Any:
    if not isinstance(document, dict | list) or not document or draw(st.integers(0, 4)) == 0:
        return draw(VALUES)
    changed = document.copy()
    key = draw(st.sampled_from(sorted(document) if isinstance(document, dict) else range(len(document))))
    if draw(st.integers(0, 4)) == 0:
        del changed[key]
    else:
        changed[key] = _changed(draw, document[key])
    return changed


@st.composite
def tables(draw: Draw, fields: Sequence[str], headers: Sequence[str] = ("",)) -> bytes:
    """TOML of these keys, in tables of these headers, with anything as values."""
    lines = []
    for _ in range(draw(st.integers(1, 3))):
        lines.append(draw(st.sampled_from(headers)))
        keys = draw(st.lists(st.sampled_from(fields), max_size=4))
        lines += [f"{key} = {draw(_LITERALS)}" for key in keys]
    return "\n".join(lines).encode(errors="surrogateescape")


_LITERALS = st.one_of(
    st.sampled_from(
        ("inf", "-nan", "1e400", "0x_", "9" * 5000, "1979-05-27T07:32:00Z", "07:32:00", "true", "[]", "{}", "'''\n'''")
    ),
    st.sampled_from(("[" * 2000, "{a=" * 1000, "[[1], {a = [2]}]")),
    st.integers().map(str),
    st.floats().map(lambda number: repr(number) if math.isfinite(number) else "nan"),
    _TEXTS.map(json.dumps),
)


# -- several in one ----------------------------------------------------------------------------------------------------


def framed(bodies: Sequence[bytes]) -> bytes:
    """Messages one after another as one input: each behind its length."""
    return b"".join(struct.pack("<I", len(body)) + body for body in bodies)


def unframed(body: bytes) -> list[bytes]:
    """What is cut short is a shorter message: every input is some messages."""
    found = []
    while body:
        (length,) = struct.unpack("<I", body[:4].ljust(4, b"\0"))
        found.append(body[4 : 4 + length])
        body = body[4 + length :]
    return found
