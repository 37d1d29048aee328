"""The CA and people's credentials as files: made once, never overwritten, readable by their owner alone.

Rule 1: `ca.pem` is written last. Without it nothing was made, and `init` may be run again: it goes on from `ca.key`.
Rule 2: a file with a secret has its mode from the moment it is there, and is whole or not there at all.
Rule 3: how far a change of the root has come is what files there are; each step moves one, and what was left by a step
        that was cut short is a CA that serves.

    STATE/ca.pem  STATE/ca.key  STATE/admin/{ca.pem,cert.pem,key.pem}
    STATE/ca.next.key    while one root takes another's place: the key that signs already, though not for the server
"""

import contextlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from provisioner.errors import BedplateError
from provisioner.pki import NONE, Authority, PersonIdentity, Role, authority, key_pem, new_key, pem

CA_BYTES = 1 << 20
NEXT = "ca.next.key"
Told = Callable[[Authority], None]  # told what the CA will be, before it is
Noted = Callable[[str], None]  # told a certificate's serial number before its key is written anywhere


def _unnoted(_: str) -> None:
    """Where nobody keeps an audit."""


def init(state: Path, *, now: float, admin: str = "admin", noted: Noted = _unnoted) -> Authority:
    """Make the CA and the first admin's credentials. BedplateError where there is a CA already."""
    _folder(state)
    if (state / "ca.pem").exists():
        raise BedplateError(
            f"cannot make a CA in {state}: there is one already, and machines trust it; "
            "for another admin, use `provisioner credential NAME --role admin --out FOLDER`"
        )
    path = state / "ca.key"
    if path.exists():
        key = _key(path)
    else:
        key = new_key()
        write_secret(path, key_pem(key))
    made = authority(key, now=now)
    _write_person(made, PersonIdentity(admin, Role.ADMIN), state / "admin", noted, now=now)
    write_secret(state / "ca.pem", pem(made.certificate))
    return made


def load(state: Path) -> Authority:
    """The CA of a state folder. All certificates in `ca.pem` are trusted; the one of `ca.key` signs, or the one of
    `ca.next.key` once that is trusted too: then the other signs for the server only.
    """
    path = state / "ca.pem"
    key, roots = _key(state / "ca.key"), _roots(path)
    mine = _of(key, roots)
    if mine is None:
        raise BedplateError(f"cannot use {path}: it holds no certificate for {state / 'ca.key'}; restore the pair")
    elder = Authority(mine, key, _without(mine, roots))
    if not (state / NEXT).exists():
        return elder
    next_key = _key(state / NEXT)
    younger = _of(next_key, roots)
    return Authority(younger, next_key, _without(younger, roots), elder) if younger else elder


def begin(state: Path, noted: Told, *, now: float) -> None:
    """Trust another root beside the one there is, and let it sign. One whose key is there already is taken."""
    path, have = state / NEXT, load(state)
    if path.exists():
        key = _key(path)
    else:
        key = new_key()
        write_secret(path, key_pem(key))
    made = authority(key, now=now)
    noted(Authority(made.certificate, key, have.roots, have))
    write_secret(state / "ca.pem", have.roots_pem + pem(made.certificate))


def switch(state: Path, noted: Told) -> None:
    """The younger root signs for the server too; the key of the other is no more."""
    have = load(state)
    noted(Authority(have.certificate, have.key, have.others))
    try:
        (state / NEXT).rename(state / "ca.key")
        _sync(state)
    except OSError as error:
        raise BedplateError(f"cannot write {state / 'ca.key'}: {error.strerror}") from error


def drop(state: Path, noted: Told) -> None:
    """Trust nothing but the root that signs."""
    have = load(state)
    noted(Authority(have.certificate, have.key))
    write_secret(state / "ca.pem", pem(have.certificate))


def stamp(state: Path) -> tuple[tuple[int, int], ...]:
    """Another whenever one of the CA's files is."""
    found = []
    for name in ("ca.pem", "ca.key", NEXT):
        try:
            about = (state / name).stat()
        except OSError:
            found.append((0, 0))
        else:
            found.append((about.st_mtime_ns, about.st_ino))
    return tuple(found)


def changed_at(state: Path) -> float:
    """When it was last said which roots are trusted: seconds since 1970."""
    return (state / "ca.pem").stat().st_mtime


def _roots(path: Path) -> list[x509.Certificate]:
    try:
        roots = x509.load_pem_x509_certificates(_read(path))
        for root in roots:
            root.public_key()  # one that cannot be read would be found later, by whoever looks
    except NONE as error:
        raise BedplateError(f"cannot read {path}: it holds no certificate in PEM") from error
    return roots


def _of(key: ec.EllipticCurvePrivateKey, roots: Sequence[x509.Certificate]) -> x509.Certificate | None:
    return next((root for root in roots if root.public_key() == key.public_key()), None)


def _without(one: x509.Certificate, roots: Sequence[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    return tuple(root for root in roots if root is not one)


def write_credential(  # noqa: PLR0913 - whose, where, and who is told
    ca: Authority, name: str, role: str, out: Path, *, now: float, noted: Noted = _unnoted
) -> None:
    """A person's credentials as a folder: `ca.pem`, `cert.pem`, `key.pem`. BedplateError where it has some already."""
    if role not in list(Role):
        raise BedplateError(f"cannot issue a credential for {name!r}: the role is one of {', '.join(Role)}")
    if (out / "key.pem").exists():
        raise BedplateError(f"cannot write a credential to {out}: there is one already; choose another folder")
    _write_person(ca, PersonIdentity(name, Role(role)), out, noted, now=now)


def _write_person(ca: Authority, who: PersonIdentity, out: Path, noted: Noted, *, now: float) -> None:
    certificate, key = ca.issue_person(who, now=now)
    _folder(out)
    noted(f"{x509.load_pem_x509_certificate(certificate).serial_number:x}")
    write_secret(out / "ca.pem", ca.roots_pem)
    write_secret(out / "cert.pem", certificate)
    write_secret(out / "key.pem", key)


def write_secret(path: Path, content: bytes) -> None:
    """Whole or not at all, durable, 0600 from the first byte on."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:  # noqa: PTH123 - Path.open cannot set the mode
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
        _settle(path.parent)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise BedplateError(f"cannot write {path}: {error.strerror}") from error


def _settle(folder: Path) -> None:
    """Names are durable once their folder is: this one's, and its own above; it may have been made a moment ago."""
    _sync(folder)
    for above in folder.parents:
        with contextlib.suppress(PermissionError):  # it is not ours, so nobody has made it for us
            _sync(above)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BedplateError(f"cannot make the folder {path}: {error.strerror}") from error


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    content = _read(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise BedplateError(f"cannot use {path}: others can read it; `chmod 600` it, and ask who has read it")
    try:
        key = serialization.load_pem_private_key(content, None)
    except NONE as error:
        raise BedplateError(f"cannot read {path}: it holds no private key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BedplateError(f"cannot use {path}: it is not a key of this CA's kind (P-256)")
    return key


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(CA_BYTES)
    except FileNotFoundError as error:
        if any(path.with_name(name).exists() for name in ("ca.pem", "ca.key", "bedplate.db")):
            cure = "it is gone; restore ca.key and ca.pem, as a pair, from the backup"
        else:
            cure = "there is no CA; make one with `provisioner init`"
        raise BedplateError(f"cannot read {path}: {cure}") from error
    except OSError as error:
        raise BedplateError(f"cannot read {path}: {error.strerror}") from error
