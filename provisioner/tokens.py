"""Join tokens: one string by which a machine and the provisioner know whom they meet.

Rule 1: the secret is seen once, in the string. What is kept is its SHA-256: it has 256 random bits, so that a slow
        hash would protect nothing.
Rule 2: whoever does not have the secret learns nothing: an unknown token and a wrong secret get the same answer.
Rule 3: a machine's key counts once against the uses, however often it asks.
Rule 4: a token that is for one machine says so in its name, which nobody but the provisioner chooses.
"""

import base64
import hashlib
import hmac
import secrets
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from google.protobuf.message import DecodeError

from bedplate.v1.enrolment_pb2 import JoinToken
from provisioner.errors import BedplateError
from provisioner.facts import FOR
from provisioner.world import TokenFacts

PREFIX: Final = "bedplate1."
SECRET_BYTES: Final = 32
LETTERS: Final = "abcdefghijklmnopqrstuvwxyz234567"
LENGTH_LIMIT: Final = 4096
MAKE_ANOTHER: Final = "make another with `bedplate token create`"


@dataclass(frozen=True, slots=True)
class Minted:
    token_id: str
    secret: bytes = field(repr=False)

    @property
    def secret_sha256(self) -> bytes:
        return hashlib.sha256(self.secret).digest()


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a token lets nobody in."""

    reason: str  # for programs: "TOKEN_EXPIRED"
    line: str  # for people


def mint(machine_id: str = "") -> Minted:
    """For any newcomer, or for this machine alone, to come again with a new key."""
    bound = FOR + machine_id if machine_id else ""
    return Minted(f"t-{random_name()}{bound}", secrets.token_bytes(SECRET_BYTES))


def random_name() -> str:
    """'4kq7zt2x': 40 random bits, easy to read aloud"""
    return "".join(secrets.choice(LETTERS) for _ in range(8))


def encode(minted: Minted, addresses: Sequence[str], ca_sha256: bytes, next_ca_sha256: bytes = b"") -> str:
    """What a person gives to an agent: 'bedplate1.CgoxMjcuMC4w…'."""
    token = JoinToken(
        addresses=addresses,
        ca_sha256=ca_sha256,
        token_id=minted.token_id,
        secret=minted.secret,
        next_ca_sha256=next_ca_sha256,
    )
    body = token.SerializeToString(deterministic=True)
    return PREFIX + base64.urlsafe_b64encode(body + zlib.crc32(body).to_bytes(4, "big")).rstrip(b"=").decode()


def decode(text: str) -> JoinToken:
    """BedplateError that says what is wrong with the string, and never shows it."""
    text = text.strip()
    if not text.startswith(PREFIX):
        raise BedplateError(f"cannot read the join token: it does not begin with {PREFIX!r}; {MAKE_ANOTHER}")
    encoded = text.removeprefix(PREFIX)
    try:
        whole = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        body, check = whole[:-4], whole[-4:]
        if base64.urlsafe_b64encode(whole).decode().rstrip("=") != encoded:  # the last letter has bits to spare
            raise ValueError("letters")  # noqa: TRY301 - one end for all that is not whole
        if len(encoded) > LENGTH_LIMIT or not body or zlib.crc32(body).to_bytes(4, "big") != check:
            raise ValueError("crc")  # noqa: TRY301 - one end for all that is not whole
        return JoinToken.FromString(body)
    except (ValueError, DecodeError) as error:
        raise BedplateError("cannot read the join token: it was cut short or changed; copy all of it again") from error


def flaw(token: TokenFacts | None, secret: bytes, key_sha256: bytes, now: float) -> Flaw | None:
    """Why this secret does not let this key in now; None where it does."""
    kept = token.secret_sha256 if token else bytes(32)
    right = hmac.compare_digest(hashlib.sha256(secret).digest(), kept)
    if token is None or not right:
        return Flaw("TOKEN_UNKNOWN", f"this provisioner does not know the join token; {MAKE_ANOTHER}")
    if token.revoked_at is not None:
        return Flaw(
            "TOKEN_REVOKED", f"the join token {token.id} was revoked at {_when(token.revoked_at)}; {MAKE_ANOTHER}"
        )
    if now >= token.expires_at:
        return Flaw("TOKEN_EXPIRED", f"the join token {token.id} expired at {_when(token.expires_at)}; {MAKE_ANOTHER}")
    if token.uses_allowed and key_sha256 not in token.used_by and len(token.used_by) >= token.uses_allowed:
        uses = f"{token.uses_allowed} of {token.uses_allowed} machines came in by it"
        return Flaw("TOKEN_USED_UP", f"the join token {token.id} is used up ({uses}); {MAKE_ANOTHER}")
    return None


def _when(seconds: float) -> str:
    """1_800_000_000 -> '2027-01-15 08:00 UTC'"""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
