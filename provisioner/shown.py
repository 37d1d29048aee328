"""What a certificate that a caller has shown says besides who it is: TLS has verified it, and it is only read here."""

from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509

from provisioner.pki import BACKDATED_S, NONE


@dataclass(frozen=True, slots=True)
class Shown:
    serial_number: str  # hexadecimal
    issuer: bytes  # the id of the key that has signed it
    issued_at: float  # of a person's


NOTHING = Shown("", b"", 0.0)


@lru_cache(maxsize=4096)  # a person's tool calls again and again by one certificate
def shown(certificate_pem: bytes) -> Shown:
    """NOTHING where it cannot be read, or does not say which key has signed it: none of ours."""
    try:
        leaf = x509.load_pem_x509_certificate(certificate_pem)
        issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except (*NONE, x509.ExtensionNotFound):
        return NOTHING
    issued_at = leaf.not_valid_before_utc.timestamp() + BACKDATED_S
    return Shown(f"{leaf.serial_number:032x}", issuer or b"", issued_at)
