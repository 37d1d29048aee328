"""The certificate authority: who is who, said by a signature.

Rule 1: the provisioner says who a machine is; of a CSR only the key is taken, after its proof of possession.
Rule 2: what a certificate may be used for is in it: machines and people are clients and never servers, the provisioner
        is a server and never a client.
Rule 3: trusted roots are always a bundle, so that one can be replaced by another while both are trusted.
Rule 4: no clock: each call is handed the time. A certificate begins an hour before it, so that a clock that is a little
        behind does not refuse it.

Only P-256 and P-384: the TLS of gRPC (BoringSSL) takes them without being asked, does not offer Ed25519 unless told
to, and RSA keys are slow to make on a host that has just booted.
"""

import hashlib
import ipaddress
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku
from cryptography.x509.oid import NameOID

from provisioner.errors import BedplateError

HOUR_S: Final = 3600.0
DAY_S: Final = 24 * HOUR_S
CA_LIFETIME_S: Final = 3650 * DAY_S
SERVER_LIFETIME_S: Final = 730 * DAY_S  # it is made anew at each start; a provisioner that runs longer is not updated
PERSON_LIFETIME_S: Final = 365 * DAY_S
BACKDATED_S: Final = HOUR_S
SERVER_BACKDATED_S: Final = DAY_S  # hosts check it by their own clock, and the clock of a new host is often hours wrong
CSR_BYTES: Final = 4096
NONE: Final = (  # how the library says: it is none
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)

PublicKey = ec.EllipticCurvePublicKey
PrivateKey = ec.EllipticCurvePrivateKey


class CsrError(BedplateError):
    """A certificate signing request that gets no certificate."""


class Role(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class MachineIdentity:
    machine_id: str
    incarnation: int

    def __str__(self) -> str:
        return f"bedplate:machine:{self.machine_id}:{self.incarnation}"


@dataclass(frozen=True, slots=True)
class PersonIdentity:
    name: str
    role: Role

    def __str__(self) -> str:
        return f"bedplate:person:{self.name}:{self.role}"


NAME: Final = re.compile(r"[a-z0-9][a-z0-9._@-]{0,62}", re.ASCII)
_MACHINE: Final = re.compile(r"bedplate:machine:(m-[a-z2-7]{8}):([1-9][0-9]{0,8})", re.ASCII)
_PERSON: Final = re.compile(rf"bedplate:person:({NAME.pattern}):(viewer|operator|admin)", re.ASCII)


def identity(uri: str) -> MachineIdentity | PersonIdentity | None:
    """'bedplate:machine:m-4kq7zt2x:3' -> MachineIdentity('m-4kq7zt2x', 3); None where it is neither"""
    if machine := _MACHINE.fullmatch(uri):
        return MachineIdentity(machine[1], int(machine[2]))
    if person := _PERSON.fullmatch(uri):
        return PersonIdentity(person[1], Role(person[2]))
    return None


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate, with what is to be remembered of it."""

    certificate_pem: bytes
    serial_number: str  # hexadecimal
    not_after: float
    key_sha256: bytes  # of the DER SubjectPublicKeyInfo


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA that signs, and all roots that are trusted, itself among them."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)
    others: tuple[x509.Certificate, ...] = ()
    elder: "Authority | None" = None  # which signs for the server still, as long as not everybody trusts this one

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        return (self.certificate, *self.others)

    @property
    def roots_pem(self) -> bytes:
        """The bundle that agents, people and the server's own port trust."""
        return b"".join(pem(root) for root in self.roots)

    @property
    def sha256(self) -> bytes:
        """The fingerprint by which a join token names this CA."""
        return fingerprint(self.certificate)

    @property
    def server(self) -> "Authority":
        """The one whose certificate the server shows."""
        return self.elder or self

    @property
    def next_sha256(self) -> bytes:
        """The fingerprint of the one that will sign for the server; empty where that stays as it is."""
        return self.sha256 if self.elder else b""

    def issue_machine(self, csr_der: bytes, who: MachineIdentity, *, lifetime_s: float, now: float) -> Issued:
        """CsrError where the CSR is none, proves nothing or has a key of a kind that is not taken."""
        start = now - min(BACKDATED_S, lifetime_s / 2)  # the agent takes one for old at half of what is between the two
        return self._client(csr_key(csr_der), who.machine_id, str(who), start=start, end=now + lifetime_s)

    def issue_person(
        self, who: PersonIdentity, *, now: float, lifetime_s: float = PERSON_LIFETIME_S
    ) -> tuple[bytes, bytes]:
        """The certificate and its key, both PEM."""
        if identity(str(who)) != who:
            raise BedplateError(
                f"cannot issue a credential for {who.name!r}: a name is 1 to 63 of a-z, 0-9, '.', '_', '@' and '-', "
                "and begins with a letter or a digit"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        end = now + lifetime_s
        issued = self._client(key.public_key(), who.name, str(who), start=now - BACKDATED_S, end=end)
        return issued.certificate_pem, key_pem(key)

    def issue_server(self, names: Sequence[str], *, now: float) -> tuple[bytes, bytes]:
        """The chain (leaf, then CA: a newcomer looks for the CA that its token names) and its key, both PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(key.public_key(), "bedplate provisioner", start=now - SERVER_BACKDATED_S)
        alternatives = x509.SubjectAlternativeName([general_name(name) for name in dict.fromkeys(names)])
        mine = self.server
        leaf = mine._signed(builder, key.public_key(), alternatives, Eku.SERVER_AUTH, now + SERVER_LIFETIME_S)  # noqa: SLF001
        return pem(leaf) + pem(mine.certificate), key_pem(key)

    def _client(self, key: PublicKey, name: str, uri: str, *, start: float, end: float) -> Issued:
        alternatives = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        leaf = self._signed(_builder(key, name, start=start), key, alternatives, Eku.CLIENT_AUTH, end)
        return Issued(pem(leaf), f"{leaf.serial_number:032x}", leaf.not_valid_after_utc.timestamp(), key_sha256(key))

    def _signed(
        self,
        builder: x509.CertificateBuilder,
        key: PublicKey,
        alternatives: x509.SubjectAlternativeName,
        usage: x509.ObjectIdentifier,
        end: float,
    ) -> x509.Certificate:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return (
            builder.issuer_name(self.certificate.subject)
            .not_valid_after(min(_time(end), self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(alternatives, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(issuer, critical=False)
            .sign(self.key, hashes.SHA256())
        )


def authority(key: PrivateKey, *, now: float) -> Authority:
    """A new CA around this key, whose certificate signs leaves and nothing below them."""
    public = key.public_key()
    name = f"bedplate CA {key_sha256(public).hex()[:8]}"  # two CAs never share a name: a chain is found by names
    certificate = (
        _builder(public, name, start=now - SERVER_BACKDATED_S)
        .issuer_name(_name(name))
        .not_valid_after(_time(now + CA_LIFETIME_S))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def new_key() -> PrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def fingerprint(certificate: x509.Certificate) -> bytes:
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()


def key_id(root: x509.Certificate) -> bytes:
    """By which the certificates that it has signed name it."""
    return root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def csr_key(csr_der: bytes) -> PublicKey:
    """The key of a CSR whose sender has shown to hold it. Subject and extensions are not looked at."""
    if len(csr_der) > CSR_BYTES:
        raise CsrError(f"cannot read the CSR: it has {len(csr_der)} bytes, and may have {CSR_BYTES}")
    try:
        csr = x509.load_der_x509_csr(csr_der)
        key = csr.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, (ec.SECP256R1, ec.SECP384R1)):
            raise CsrError("cannot take the CSR: its key is not P-256 or P-384")
        if not csr.is_signature_valid:
            raise CsrError("cannot take the CSR: it is not signed with its own key")
    except (*NONE, InvalidSignature) as error:
        raise CsrError("cannot read the CSR: it is not PKCS #10 in DER") from error
    return key


def key_sha256(key: PublicKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).digest()


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: PrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def general_name(name: str) -> x509.GeneralName:
    """'::1' -> an iPAddress; 'provisioner.example' -> a dNSName. BedplateError where it can be neither."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        pass
    if not re.fullmatch(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})", name, re.ASCII):
        raise BedplateError(f"cannot issue the server's certificate: {name!r} is no host name and no address")
    return x509.DNSName(name)


def _builder(key: PublicKey, name: str, *, start: float) -> x509.CertificateBuilder:
    serial = secrets.randbits(127) | 1 << 127  # 128 bits, and never fewer
    builder = x509.CertificateBuilder().subject_name(_name(name)).public_key(key)
    return builder.serial_number(serial).not_valid_before(_time(start))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
