"""Makes this machine's keys and looks into its certificates: a short-lived process, `python -m nodeagent.keys`.

Rule 1: the agent that stays never imports this file: the library that it needs costs more memory than the rest of it.
Rule 2: a key is on the disk before anything signed with it leaves, and it never leaves.
Rule 3: one JSON object in, on stdin, one out, on stdout: `{"error": "cannot …"}` where it did not work.

    {"do": "request", "state": DIR, "token_id": ID}      -> {"csrs": [{"csr": BASE64, "old": true|false}, …]}
    {"do": "keep", "state": DIR, "credentials": {…}}     -> {}

Of the CSRs the last is of the key to go on with; those before it are of keys that the provisioner may know already.
`token_id` is of the join token that it asks by; absent where it asks by the certificate that it has.
"""

import base64
import contextlib
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nodeagent.errors import BedplateError
from nodeagent.identity import JOIN_KEY, NEXT_KEY, Identity, load, read, save, sync, write_secret

NONE: Final = (  # how the library says that something is no certificate and no key
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
MADE: Final = 3  # keys for join tokens that are kept, the youngest
NAME: Final = re.compile(r"bedplate:machine:([^:]+):([0-9]+)")


@dataclass(frozen=True, slots=True)
class Made:
    """A key, and the join token that it was made for."""

    token_id: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Kept:
    """bedplate.v1.Credentials as plain data, and what the agent knows besides."""

    machine_id: str
    incarnation: int
    certificate: str
    ca: str
    uplink_addresses: tuple[str, ...]
    token_id: str
    kept_at: float


class Request(msgspec.Struct, tag_field="do", tag="request", frozen=True, forbid_unknown_fields=True):
    state: str
    token_id: str = ""


class Keep(msgspec.Struct, tag_field="do", tag="keep", frozen=True, forbid_unknown_fields=True):
    state: str
    credentials: Kept


def main() -> int:
    try:
        asked: Request | Keep = msgspec.json.decode(sys.stdin.buffer.read(), type=Request | Keep)
        match asked:
            case Request(state, token_id):
                answer: object = {"csrs": request(Path(state), token_id)}
            case Keep(state, credentials):
                keep(Path(state), credentials)
                answer = {}
    except (BedplateError, msgspec.DecodeError) as error:
        answer = {"error": str(error)}
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    return 0


def make_key() -> tuple[bytes, bytes]:
    """A new key in PEM and its CSR in DER, nothing on the disk: for simulated machines."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _pem(key), _csr(key)


def identity_of(kept: Kept, key_pem: bytes) -> Identity:
    """BedplateError where certificate, key, roots and name do not belong together."""
    try:
        return _identity_of(kept, key_pem)
    except NONE as error:
        raise BedplateError("cannot take the certificate: what the provisioner sent is not PEM") from error


def _identity_of(kept: Kept, key_pem: bytes) -> Identity:
    certificate = x509.load_pem_x509_certificate(kept.certificate.encode())
    roots = x509.load_pem_x509_certificates(kept.ca.encode())
    if certificate.public_key() != _key(key_pem, "the key").public_key():
        raise BedplateError("cannot take the certificate: it is for another key")
    if not any(_signed_by(certificate, root) for root in roots):
        raise BedplateError("cannot take the certificate: none of the roots that came with it has signed it")
    if _name(certificate) != (kept.machine_id, str(kept.incarnation)):
        raise BedplateError(f"cannot take the certificate: it is not for machine {kept.machine_id}")
    return Identity(
        machine_id=kept.machine_id,
        incarnation=kept.incarnation,
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        kept_at=kept.kept_at,
        token_id=kept.token_id,
        uplink_addresses=kept.uplink_addresses,
        certificate=kept.certificate,
        key=key_pem.decode(),
        ca=kept.ca,
    )


def request(state: Path, token_id: str = "") -> list[dict[str, object]]:
    """CSRs of all keys that this machine may be known by, the one to go on with last; made if there is none."""
    identity, path = load(state), state / (JOIN_KEY if token_id else NEXT_KEY)
    used = identity.key_pem if identity else None
    known = [(state, used)] if used else []
    known += [(each, pem) for each, pem in _waiting(state) if pem != used]
    mine = _made_for(state, token_id, used) if token_id else _next(path, used)
    keys = [(_key(pem, where), True) for where, pem in known] + [(_key(mine, path), False)]
    return [{"csr": base64.b64encode(_csr(key)).decode(), "old": old} for key, old in keys]


def _next(path: Path, used: bytes | None) -> bytes:
    """One that is in use was left by a crash."""
    pem = read(path)
    if pem is None or pem == used:
        pem = _pem(ec.generate_private_key(ec.SECP256R1()))
        write_secret(path, pem)
    return pem


def _made_for(state: Path, token_id: str, used: bytes | None) -> bytes:
    made = [one for one in _made(state) if one.key.encode() != used]
    if found := next((one for one in made if one.token_id == token_id), None):
        return found.key.encode()
    pem = _pem(ec.generate_private_key(ec.SECP256R1()))
    made.append(Made(token_id, pem.decode()))
    write_secret(state / JOIN_KEY, msgspec.json.encode(made[-MADE:]))
    return pem


def _made(state: Path) -> list[Made]:
    """The oldest first."""
    path = state / JOIN_KEY
    try:
        return msgspec.json.decode(read(path) or b"[]", type=list[Made])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BedplateError(
            f"cannot read {path}: it holds no keys ({error}); remove it, and another is made"
        ) from error


def _waiting(state: Path) -> list[tuple[Path, bytes]]:
    """Keys that may have a certificate already, only not here yet."""
    path = state / NEXT_KEY
    pem = read(path)
    following = [] if pem is None else [(path, pem)]
    return following + [(state / JOIN_KEY, one.key.encode()) for one in _made(state)]


def keep(state: Path, kept: Kept) -> None:
    """The identity is in place before its key goes: at no moment is there a certificate without its key.

    Where it is a key that waited, those in the other file go before that: nothing is ever asked for with them again.
    """
    identity = load(state)
    keys = _waiting(state) + ([(state, identity.key_pem)] if identity else [])
    mine = next((each for each in keys if _fits(kept, each[1], each[0])), None)
    if mine is None:
        raise BedplateError(f"cannot take the certificate: its key is not in {state} (any more)")
    path, pem = mine
    younger = identity_of(kept, pem)
    if path != state:
        _remove(state / (NEXT_KEY if path == state / JOIN_KEY else JOIN_KEY))
    save(state, younger)
    with contextlib.suppress(BedplateError):  # it is harmless: a key that is in use is not taken for the next one
        _remove(state / JOIN_KEY if path == state else path)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
        sync(path.parent)
    except OSError as error:
        raise BedplateError(f"cannot remove {path}: {error.strerror}") from error


def _fits(kept: Kept, key_pem: bytes, path: Path) -> bool:
    try:
        theirs = x509.load_pem_x509_certificate(kept.certificate.encode()).public_key()
    except NONE:
        return True  # identity_of says what is wrong with it
    return theirs == _key(key_pem, path).public_key()


def _signed_by(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except NONE:
        return False
    return True


def _name(certificate: x509.Certificate) -> tuple[str, ...] | None:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    found = NAME.fullmatch(uris[0]) if len(uris) == 1 else None
    return found.groups() if found else None


def _key(pem: bytes, where: object) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, None)
    except NONE as error:
        raise BedplateError(f"cannot read {where}: it holds no private key; remove it, and another is made") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BedplateError(f"cannot use {where}: it is not a P-256 key; remove it, and another is made")
    return key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _csr(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Without a name: who this is, the provisioner says."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


if __name__ == "__main__":
    sys.exit(main())
