"""Stand-ins: another value in place of one that tells an individual, with the same shape.

Rule 1: the same value and salt give the same stand-in, in whatever form the value is written: with colons or without,
        upper or lower case. It still parses as what it is.
Rule 2: relations survive: neighbouring MACs stay neighbours, a GUID or a link-local address made of a MAC is made of
        that MAC's stand-in, addresses of one network stay in one network, a host name stays the head of its long form.
Rule 3: what says nothing (placeholders, all zeros, loopback) stays as it is: how firmware is blank is worth knowing.
Rule 4: nobody who does not have the salt comes back from the stand-in to the value.
"""

import hashlib
import hmac
import ipaddress
import re
import string
from collections.abc import Callable, Mapping

PLACEHOLDER = re.compile(
    r"|none|na|n/a|null|unknown|default|default string|not (?:specified|available|applicable|set|present)"
    r"|to be filled.*|.*o\.e\.m\..*|(?:system|base ?board|board|chassis|product).*(?:serial|number|version|tag).*"
    r"|empty|unspecified|invalid|123456789?0?|x+|[0:.\-]+|[f:.\-]+|localhost(?:\..*)?",
    re.IGNORECASE,
)


def stand_in(kind: str, value: str, salt: str) -> str:
    """`kind` is one of mac, guid, uuid, ip, hostname, serial, wwn."""
    if PLACEHOLDER.fullmatch(value.strip()):
        return value
    makes = _KINDS.get(kind)
    if makes is None:
        raise ValueError(f"no stand-ins of kind {kind}")
    return makes(value, salt)


def _digest(kind: str, value: str, salt: str) -> bytes:
    return hmac.digest(salt.encode(), f"{kind}\0{value}".encode("utf-8", "surrogateescape"), hashlib.sha256)


def _hex(value: str) -> str:
    """'GPU-8F3C…' and 'a0:88:…' alike: the hexadecimal digits, lower case, of what begins after a prefix of letters."""
    return re.sub(r"[^0-9a-f]", "", value.lower().removeprefix("gpu-").removeprefix("mig-").removeprefix("0x"))


def _in_shape(shape: str, digits: str) -> str:
    """The digits, written as `shape` is: its prefix, its separators, its case."""
    start = re.match(r"(?:gpu-|mig-|0x)?", shape, re.IGNORECASE)
    head = start[0] if start else ""
    upper = shape[len(head) :].isupper()
    rest = iter(digits.upper() if upper else digits)
    return head + "".join(next(rest) if sign in string.hexdigits else sign for sign in shape[len(head) :])


def _hardware(digits: str, salt: str) -> str:
    """MACs (12 digits), GUIDs (16: the same with two bytes put in) and IPoIB addresses (40: a GUID at the end)."""
    if len(digits) > 16:  # noqa: PLR2004
        return digits[:-16] + _hardware(digits[-16:], salt)
    if not digits.strip("0") or not digits.strip("f"):
        return digits
    return _maker(digits[:6], salt) + digits[6:-6] + _part(digits[:6], digits[-6:], salt)


def _maker(digits: str, salt: str) -> str:
    """The maker's half: as good as unique to the salt; the bits that say "group" and "set by hand" stay."""
    other = int.from_bytes(_digest("maker", _universal(digits), salt)[:3]) & 0xFCFFFF
    return f"{other | int(digits, 16) & 0x030000:06x}"


def _universal(digits: str) -> str:
    """Without those two bits: an EUI-64 has one of them turned, and is of the same maker."""
    return f"{int(digits, 16) & 0xFCFFFF:06x}"


def _part(maker: str, digits: str, salt: str) -> str:
    """The maker's number: a permutation of its upper 20 bits, so that no two fall together; the lower four stay."""
    number = int(digits, 16)
    left, right = number >> 14, number >> 4 & 0x3FF
    for turn in range(4):
        key = _digest("part", f"{_universal(maker)}/{turn}/{right}", salt)
        left, right = right, left ^ int.from_bytes(key[:2]) & 0x3FF
    return f"{left << 14 | right << 4 | number & 0xF:06x}"


def _other(kind: str, value: str, salt: str, alphabet: str) -> str:
    """As many signs of the alphabet, and not the same ones."""
    stream = b"".join(_digest(kind, f"{value}/{turn}", salt) for turn in range(len(value) // 32 + 1))
    other = "".join(alphabet[byte % len(alphabet)] for byte in stream[: len(value)])
    return other if other != value else _other(kind, value, salt + "'", alphabet)


def _spelled(kind: str, value: str, salt: str) -> str:
    """A letter for each letter, a digit for each digit; all else as it stands."""
    source = _other(kind, value, salt, "".join(map(chr, range(256))))
    spelled = "".join(_alike(old, ord(new)) for old, new in zip(value, source, strict=True))
    return spelled if spelled != value or not any(map(str.isalnum, value)) else _spelled(kind, value, salt + "'")


def _alike(sign: str, number: int) -> str:
    for alphabet in (string.digits, string.ascii_uppercase, string.ascii_lowercase):
        if sign in alphabet:
            return alphabet[number % len(alphabet)]
    return sign


def _wwn(value: str, salt: str) -> str:
    """'eui.0025385b71b0a1f2', 'nvme.144d-5336…', '0x5000c5…' are numbers; any other is text with a serial in it."""
    found = re.match(r"nvme\.[0-9a-f]{4}-|[a-z0-9]{2,4}\.|wwn-0x|0x", value)
    head = found[0] if found else ""
    rest = value.removeprefix(head)
    if re.fullmatch("[0-9a-fA-F-]+", rest):
        return f"{head}{_in_shape(rest, _other('wwn', _hex(rest), salt, string.hexdigits[:16]))}"
    return f"{head}{_spelled('serial', rest, salt)}"


def _address(value: str, salt: str) -> str:
    """An IP address, perhaps with its prefix length."""
    text, slash, length = value.partition("/")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return value
    if address.is_loopback or address.is_unspecified or address.is_multicast or int(address) >> 24 == 0xFF:  # noqa: PLR2004
        return value
    if isinstance(address, ipaddress.IPv4Address):
        return f"{_ipv4(address, salt)}{slash}{length}"
    other = _ipv6(address, salt)
    return f"{other.exploded if text.count(':') == 7 and '::' not in text else other}{slash}{length}"  # noqa: PLR2004


def _ipv4(address: ipaddress.IPv4Address, salt: str) -> ipaddress.IPv4Address:
    """Into 10.0.0.0/8, bit by bit by what stands before it: those that shared a network share one again."""
    bits = f"{int(address):032b}"
    turned = [int(bits[at]) ^ _digest("ip", bits[:at], salt)[0] & 1 for at in range(8, 32)]
    other = ipaddress.IPv4Address(10 << 24 | int("".join(map(str, turned)), 2))
    return other if other != address else _ipv4(address, salt + "'")


def _ipv6(address: ipaddress.IPv6Address, salt: str) -> ipaddress.IPv6Address:
    """The network into fd00::/8, link-local as it is; a host part of a MAC into that of its stand-in."""
    network, host = divmod(int(address), 1 << 64)
    if not address.is_link_local:
        network = 0xFD << 56 | int.from_bytes(_digest("ip", f"{network:x}", salt)[:7])
    if host >> 24 & 0xFFFF == 0xFFFE:  # noqa: PLR2004 - EUI-64
        host = int(_hardware(f"{host:016x}", salt), 16)
    elif host >> 16:
        host = int.from_bytes(_digest("ip", f"{host:x}", salt)[:8])
    return ipaddress.IPv6Address(network << 64 | host)


_KINDS: Mapping[str, Callable[[str, str], str]] = {
    "mac": lambda value, salt: _in_shape(value, _hardware(_hex(value), salt)),
    "guid": lambda value, salt: _in_shape(value, _hardware(_hex(value), salt)),
    "uuid": lambda value, salt: _in_shape(value, _other("uuid", _hex(value), salt, string.hexdigits[:16])),
    "ip": _address,
    "hostname": lambda value, salt: ".".join(
        f"h{_digest('hostname', label.lower(), salt).hex()[:9]}" for label in value.split(".")
    ),
    "serial": lambda value, salt: _spelled("serial", value, salt),
    "wwn": _wwn,
}
