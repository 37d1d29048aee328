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
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nodeagent.errors import BedplateError
from nodeagent.identity import ANEW_KEY, NEXT_KEY, Identity, load, read, save, sync, write_secret

NONE: Final = (  # how the library says that something is no certificate and no key
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
NAME: Final = re.compile(r"bedplate:machine:([^:]+):([0-9]+)")


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
    """CSRs of all keys that this machine may be known by, the one to go on with last; made if there is none.

    By a join token that is another than it came in by, it goes on with a key that is made for that.
    """
    identity = load(state)
    anew = identity is not None and token_id not in {"", identity.token_id}
    path = state / (ANEW_KEY if anew else NEXT_KEY)
    waiting = _waiting(state, identity)
    if path not in waiting:
        write_secret(path, pem := _pem(ec.generate_private_key(ec.SECP256R1())))
    else:
        pem = waiting[path]
    known = [(path, identity.key_pem)] if identity else []
    known += waiting.items()
    keys = [(_key(each, where), True) for where, each in known] + [(_key(pem, path), False)]
    return [{"csr": base64.b64encode(_csr(key)).decode(), "old": old} for key, old in keys]


def _waiting(state: Path, identity: Identity | None) -> dict[Path, bytes]:
    """Keys that may have a certificate already, only not here yet. One that is in use was left by a crash."""
    found = {path: read(path) for path in (state / NEXT_KEY, state / ANEW_KEY)}
    used = identity.key_pem if identity else None
    return {path: pem for path, pem in found.items() if pem is not None and pem != used}


def keep(state: Path, kept: Kept) -> None:
    """The identity is in place before its key goes: at no moment is there a certificate without its key.

    Where it is a key that waited, others that wait go before that: nothing is ever asked for with them again.
    """
    identity = load(state)
    waiting = _waiting(state, identity)
    keys = [*waiting.items()] + ([(state, identity.key_pem)] if identity else [])
    mine = next((each for each in keys if _fits(kept, each[1], each[0])), None)
    if mine is None:
        raise BedplateError(f"cannot take the certificate: its key is not in {state} (any more)")
    path, pem = mine
    younger = identity_of(kept, pem)
    if path in waiting:
        for other in waiting.keys() - {path}:
            _remove(other)
    save(state, younger)
    if path in waiting:
        with contextlib.suppress(BedplateError):  # it is harmless: a key that is in use is not taken for the next one
            _remove(path)


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
