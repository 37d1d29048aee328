"""Page tokens: where the next page begins, as a string that means nothing to anybody else.

Rule 1: a token holds the last key of the page before, so that what comes and goes meanwhile moves no page.
Rule 2: it is bound to what was listed: with another filter or order it is refused, and so is a garbled one.
"""

import base64
import binascii
import hashlib
from typing import TypeVar

import msgspec

from provisioner.errors import BedplateError

K = TypeVar("K")
USUAL, MOST = 100, 1000
GARBLED = "cannot list: the page token is garbled; begin again without one"


class PageError(BedplateError):
    """The page cannot be had; `field` is the request's field."""

    def __init__(self, field: str, line: str) -> None:
        super().__init__(line)
        self.field = field


def size(asked: int) -> int:
    """0 -> 100, 5000 -> 1000. PageError where it is negative."""
    if asked < 0:
        raise PageError("page_size", f"cannot list: page_size is {asked}, and must be between 0 and {MOST}")
    return min(asked or USUAL, MOST)


def token(listing: tuple[str, ...], key: object) -> str:
    """`listing`: what is listed, and how."""
    body = _mark(listing) + msgspec.msgpack.encode(key)
    return base64.urlsafe_b64encode(binascii.crc32(body).to_bytes(4, "big") + body).decode().rstrip("=")


def key_of(listing: tuple[str, ...], text: str, kind: type[K]) -> K | None:
    """The key that the page begins behind; None for the first page. PageError where the token is of no such list."""
    if not text:
        return None
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        body = raw[4:]
        key = msgspec.msgpack.decode(body[8:], type=kind)
    except ValueError as error:  # binascii's and msgspec's too
        raise PageError("page_token", GARBLED) from error
    if binascii.crc32(body).to_bytes(4, "big") != raw[:4]:
        raise PageError("page_token", GARBLED)
    if body[:8] != _mark(listing):
        line = "cannot list: the page token belongs to a list with another filter or order; begin again without one"
        raise PageError("page_token", line)
    return key


def _mark(listing: tuple[str, ...]) -> bytes:
    return hashlib.sha256("\0".join(listing).encode()).digest()[:8]
