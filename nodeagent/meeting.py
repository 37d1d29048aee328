"""Whom we meet: the provisioner that the join token names, and nobody else.

Rule 1: the token names a CA by its fingerprint, or two while one takes the other's place. The first connection believes
        nothing: it only fetches the chain that the server shows and looks for such a CA. All that is said afterwards
        goes to a server whose certificate this very CA has signed for the name that was dialled.
Rule 2: the secret of the token is sent only after that.
Rule 3: whatever fails is one line that says what to do.
"""

import asyncio
import base64
import contextlib
import hashlib
import re
import socket
import ssl
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError

from bedplate.v1.enrolment_pb2 import JoinToken
from nodeagent.errors import BedplateError

PREFIX: Final = "bedplate1."
TOKEN_BYTES: Final = 4096
TIMEOUT_S: Final = 10.0
MAKE_ANOTHER: Final = "make another with `bedplate token create`"
COME_ANEW: Final = "give it a join token that is made now, and it stays who it is"
CAUSES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (ssl.SSLError, "what listens there speaks no TLS; is it the provisioner's enrol_listen?"),
    (ConnectionResetError, "what listens there hangs up on TLS; is it the provisioner's enrol_listen?"),
    (ConnectionRefusedError, "nobody listens there; is the provisioner running?"),
)
REASONS: Final = (  # what OpenSSL says of a certificate -> what to do
    ("not yet valid", "this host's clock is behind the beginning of its certificate: set the clock"),
    ("expired", "its certificate is over by this host's clock: set the clock, or restart the provisioner"),
    ("mismatch", "its certificate is not for that name: add it to `names` in the provisioner's configuration"),
    ("self-signed", "it is of a CA that this machine does not know: " + COME_ANEW),
    ("self signed", "it is of a CA that this machine does not know: " + COME_ANEW),
    ("local issuer", "it is of a CA that this machine does not know: " + COME_ANEW),
    ("not valid for", "its certificate is not for that name: add it to `names` in the provisioner's configuration"),
)


class MeetingError(BedplateError):
    """We did not get to talk to the provisioner."""

    def __init__(self, address: str, cause: str) -> None:
        super().__init__(f"cannot enrol with {address}: {cause}")
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Met:
    """Where the provisioner is, and the root that it has to be of."""

    address: str
    root_pem: bytes


def decode(text: str) -> JoinToken:
    """BedplateError that says what is wrong with the string, and never shows it."""
    text = text.strip()
    if not text.startswith(PREFIX):
        raise BedplateError(f"cannot read the join token: it does not begin with {PREFIX!r}; {MAKE_ANOTHER}")
    encoded = text.removeprefix(PREFIX)
    try:
        whole = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        if base64.urlsafe_b64encode(whole).decode().rstrip("=") != encoded:  # the last letter has bits to spare
            raise ValueError("letters")  # noqa: TRY301 - one end for all that is not whole
        token = JoinToken.FromString(whole[:-4])
    except (ValueError, DecodeError):
        whole, token = b"", JoinToken()
    if len(encoded) > TOKEN_BYTES or zlib.crc32(whole[:-4]).to_bytes(4, "big") != whole[-4:] or not token.addresses:
        raise BedplateError("cannot read the join token: it was cut short or changed; copy all of it again")
    return token


async def meet(token: JoinToken, timeout_s: float = TIMEOUT_S) -> Met:
    """The first of the token's addresses where somebody shows its CA. MeetingError where nobody does."""
    failure = MeetingError("nobody", f"the join token holds no address; {MAKE_ANOTHER}")
    for address in token.addresses:
        try:
            return Met(address, await _root(address, token, timeout_s))
        except MeetingError as error:
            failure = error
    raise failure


async def trouble(met: Met, timeout_s: float = TIMEOUT_S) -> str:
    """Why TLS with it fails, where it does; found out by trying, for gRPC does not say. Empty: it does not fail."""
    try:
        context = ssl.create_default_context(cadata=met.root_pem.decode())
    except (ssl.SSLError, ValueError):
        return "the CA that this machine keeps cannot be read; remove its identity.json to enrol again"
    context.set_alpn_protocols(["h2"])
    try:
        async with _connected(met.address, context, timeout_s):
            return ""
    except ssl.SSLCertVerificationError as error:
        reason = error.verify_message
        known = (advice for word, advice in REASONS if word in reason)
        return next(known, f"its certificate does not hold: {reason}")
    except MeetingError as error:
        return error.cause


async def _root(address: str, token: JoinToken, timeout_s: float) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is believed here: the chain is compared with the pin
    context.set_alpn_protocols(["h2"])
    async with _connected(address, context, timeout_s) as writer:
        chain = shown(writer.get_extra_info("ssl_object"))
    for der in chain:
        if hashlib.sha256(der).digest() in {token.ca_sha256, token.next_ca_sha256}:
            return ssl.DER_cert_to_PEM_cert(der).encode()
    theirs = hashlib.sha256(chain[-1]).hexdigest() if chain else "nothing"
    raise MeetingError(
        address,
        f"it is another provisioner than the join token's: it shows the CA {theirs[:16]}…, "
        f"the token names {token.ca_sha256.hex()[:16]}…; {MAKE_ANOTHER} there",
    )


def shown(connection: Any) -> list[bytes]:
    """The chain that the server showed, DER. Public since Python 3.13; in 3.11 and 3.12 it is one floor below."""
    if hasattr(connection, "get_unverified_chain"):
        return list(connection.get_unverified_chain())
    return [ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in connection._sslobj.get_unverified_chain()]  # noqa: SLF001


@contextlib.asynccontextmanager
async def _connected(address: str, context: ssl.SSLContext, timeout_s: float) -> AsyncIterator[asyncio.StreamWriter]:
    """A TLS connection that is closed without ado. MeetingError in one line, but for what the certificate is not."""
    host, port = endpoint(address)
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    except ssl.SSLCertVerificationError:
        raise
    except (OSError, ssl.SSLError, TimeoutError) as error:
        raise MeetingError(address, _cause(error, timeout_s)) from error
    try:
        yield writer
    finally:
        writer.transport.abort()


def _cause(error: Exception, timeout_s: float) -> str:
    if isinstance(error, socket.gaierror):
        return f"its name cannot be looked up: {error.strerror}"
    for kind, cause in CAUSES:
        if isinstance(error, kind):
            return cause
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s; is the way to it open (route, firewall)?"
    return getattr(error, "strerror", None) or str(error)


def endpoint(address: str) -> tuple[str, int]:
    """'[::1]:7444' -> ('::1', 7444)"""
    host, _, port = address.rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 0xFFFF:  # noqa: PLR2004 - the last port
        raise MeetingError(repr(address), f"it is not HOST:PORT; {MAKE_ANOTHER}")
    return host.strip("[]"), int(port)
