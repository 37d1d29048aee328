"""Why the provisioner cannot be reached, in words: asked once more, step by step, after a call has failed.

gRPC says only that all addresses failed. Here the same way is gone again with the standard library: the files, the
name, the port, the handshake; the first step that fails is the answer.
"""

import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from provisioner.cli.contexts import Context

TIMEOUT_S = 3.0
ANOTHER = "another is made on the provisioner's host, with `provisioner credential`"
ALERTS = (
    ("UNKNOWN_CA", "it does not know the CA of {cert}; get new credentials from it"),
    ("BAD_CERTIFICATE", "it refuses the certificate {cert}; get new credentials from it"),
    ("CERTIFICATE_EXPIRED", "the certificate {cert} has expired; get new credentials from it"),
    ("CERTIFICATE_REVOKED", "the certificate {cert} was revoked; get new credentials from it"),
    ("CERTIFICATE_REQUIRED", "it wants a client certificate and did not like {cert}"),
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM."""

    ca: bytes
    cert: bytes
    key: bytes


class UnusableError(Exception):
    """What is wrong with a context, as a cause: "/x/key.pem: Permission denied"."""


def credentials(context: Context) -> Credentials:
    try:
        return Credentials(*(Path(path).read_bytes() for path in (context.ca, context.cert, context.key)))
    except OSError as error:
        raise UnusableError(f"context {context.name}: {error.filename}: {error.strerror}") from error


def reason(context: Context) -> str:
    """What is in the way; empty where this way round nothing is."""
    try:
        secure = _secure(context)
    except UnusableError as error:
        return str(error)
    host, _, port = context.address.rpartition(":")
    host = host.strip("[]")
    try:
        with socket.create_connection((host, int(port)), TIMEOUT_S) as plain:
            return _handshake(plain, host, secure, context)
    except TimeoutError:
        return f"{context.address} does not answer; see whether the address is right and no firewall is in the way"
    except socket.gaierror as error:
        return f"{host}: {error.strerror}; see whether the name is right"
    except ConnectionRefusedError:
        return f"{context.address}: connection refused; see whether the provisioner runs there"
    except OSError as error:
        return f"{context.address}: {error.strerror or error}"


def _secure(context: Context) -> ssl.SSLContext:
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    secure.set_alpn_protocols(["h2"])
    try:
        secure.load_verify_locations(context.ca)
    except (ssl.SSLError, OSError) as error:
        raise UnusableError(f"context {context.name}: {context.ca}: {_said(error, 'holds no certificate')}") from error
    try:
        # Without a password asked for: an encrypted key must not stop a script at a prompt.
        secure.load_cert_chain(context.cert, context.key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        cause = _said(error, f"is no key that belongs to {context.cert}")
        raise UnusableError(f"context {context.name}: {context.key}: {cause}") from error
    return secure


def _said(error: Exception, otherwise: str) -> str:
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return error.strerror or otherwise
    return otherwise


def _handshake(plain: socket.socket, host: str, secure: ssl.SSLContext, context: Context) -> str:
    """With TLS 1.3 what the other side thinks of our certificate comes only after the handshake: so one read more."""
    try:
        with secure.wrap_socket(plain, server_hostname=host) as tls:
            tls.settimeout(TIMEOUT_S)
            if not tls.recv(1):  # an HTTP/2 server speaks first; one that hangs up did not like whom it met
                return _unliked(context)
    except ssl.SSLCertVerificationError as error:
        return _verification(error, context)
    except TimeoutError:
        return f"{context.address} does not answer over TLS; see whether it is the provisioner's port"
    except ssl.SSLError as error:
        return _alert(error, context)
    except (ConnectionError, OSError) as error:
        return f"{context.address} breaks off ({error.strerror or error}); see whether it is the provisioner's port"
    return ""


def _unliked(context: Context) -> str:
    """It says nothing more: the certificate may."""
    from cryptography import x509  # noqa: PLC0415 - 50 ms that only a failure pays

    from provisioner.pki import NONE  # noqa: PLC0415

    try:
        certificate, now = x509.load_pem_x509_certificate(Path(context.cert).read_bytes()), time.time()
    except (*NONE, OSError):
        return f"{context.address} refuses the certificate {context.cert}; get new credentials from it"
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if ends.timestamp() < now:
        return f"{context.address}: the certificate {context.cert} ended on {ends:%Y-%m-%d %H:%M} UTC; {ANOTHER}"
    if begins.timestamp() > now:
        return (
            f"the certificate {context.cert} begins on {begins:%Y-%m-%d %H:%M} UTC; see whether the clock here is right"
        )
    return f"{context.address} refuses the certificate {context.cert}; get new credentials from it"


def _verification(error: ssl.SSLCertVerificationError, context: Context) -> str:
    said = error.verify_message
    if "self-signed" in said or "self signed" in said or "issuer" in said:
        return (
            f"{context.address} is not the provisioner that {context.ca} vouches for; "
            "see whether the address is right, or get new credentials from it"
        )
    return f"the certificate of {context.address} does not hold: {said[:1].lower()}{said[1:]}"


def _alert(error: ssl.SSLError, context: Context) -> str:
    name = error.reason or ""
    for word, text in ALERTS:
        if word in name:
            return f"{context.address}: {text.format(cert=context.cert)}"
    if name in {"WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"}:
        return f"{context.address} speaks no TLS; see whether it is the provisioner's port"
    return f"{context.address}: TLS failed: {name.lower().replace('_', ' ') or error}"
