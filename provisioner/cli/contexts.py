"""Contexts: which provisioner to talk to, and as whom.

Rule 1: a context holds an address and the paths of three files; the key stays where `provisioner init` put it.
Rule 2: the file is 0600 from its first byte, and is replaced whole, so that a crash leaves the old one.
Rule 3: what is wrong with the file is said with its path and its cure; nothing in it is passed over.
"""

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from provisioner.cli.refusals import USAGE, RefusedError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):([0-9]{1,5})")
KEYS = ("address", "ca", "cert", "key")
HOW = "bedplate context add NAME --address HOST:PORT --credentials DIR, the folder that `provisioner init` wrote"


class _Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    address: str
    ca: str
    cert: str
    key: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    current: str = ""
    contexts: dict[str, _Place] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Context:
    """`ca`, `cert` and `key` are paths of PEM files."""

    name: str
    address: str
    ca: str
    cert: str
    key: str


@dataclass(frozen=True, slots=True)
class Contexts:
    """What the file holds. `current` is empty where none was chosen."""

    path: Path
    current: str = ""
    known: Mapping[str, Context] = field(default_factory=dict)

    def choose(self, asked: str) -> Context:
        """The one asked for, else the current one."""
        name = asked or self.current
        if name in self.known:
            return self.known[name]
        if not self.known:
            raise RefusedError(f"cannot reach a provisioner: there is no context yet; make one: {HOW}", USAGE)
        if not name:
            raise RefusedError(f"cannot reach a provisioner: no context is chosen; {self._choices()}", USAGE)
        raise RefusedError(f"cannot use context {name}: there is none of that name; {self._choices()}", USAGE)

    def adding(self, context: Context, *, use: bool) -> "Contexts":
        """The first context is used at once: there is nothing else that could be meant."""
        known = {**self.known, context.name: context}
        return replace(self, known=known, current=context.name if use or not self.known else self.current)

    def without(self, name: str) -> "Contexts":
        known = {other: context for other, context in self.known.items() if other != name}
        return replace(self, known=known, current="" if self.current == name else self.current)

    def _choices(self) -> str:
        return f"there are: {', '.join(sorted(self.known))} (bedplate context use NAME, or --context NAME)"


def place(environment: Mapping[str, str]) -> Path:
    """The file; XDG's rule is that a path which is not absolute does not count."""
    folder = environment.get("XDG_CONFIG_HOME", "")
    root = Path(folder) if folder.startswith("/") else Path(environment.get("HOME", "") or "~").expanduser() / ".config"
    return root / "bedplate" / "config.toml"


def load(path: Path) -> Contexts:
    """No file is no context."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Contexts(path)
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise RefusedError(f"cannot read contexts: {path}: {cause}", USAGE) from error
    try:
        return _decoded(tomllib.loads(text), path)
    except (ValueError, RecursionError) as error:  # of TOML and of msgspec
        cure = "mend it, or remove it and add the contexts again"
        raise RefusedError(f"cannot read contexts: {path}: {error}; {cure}", USAGE) from error


def save(contexts: Contexts) -> None:
    path = contexts.path
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(encoded(contexts))
            out.flush()
            os.fsync(out.fileno())
        beside.replace(path)
    except OSError as error:
        raise RefusedError(f"cannot write contexts: {path}: {error.strerror}", USAGE) from error


def encoded(contexts: Contexts) -> str:
    """As TOML."""
    lines = ["# Written by `bedplate context`."]
    if contexts.current:
        lines.append(f"current = {_quoted(contexts.current)}")
    for name in sorted(contexts.known):
        context = contexts.known[name]
        lines += ["", f"[contexts.{_quoted(name)}]"]
        lines += [f"{key} = {_quoted(getattr(context, key))}" for key in KEYS]
    return "\n".join([*lines, ""])


def checked(name: str, address: str, files: Mapping[str, Path]) -> Context:
    """A context whose parts make sense; `files` holds ca, cert and key. Whether they are any good shows when used."""
    if not NAME.fullmatch(name):
        raise RefusedError(
            f"cannot add context {name!r}: a name has letters, digits, dots, dashes and underscores", USAGE
        )
    match = ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[2]) <= 65535:  # noqa: PLR2004 - the last port there is
        raise RefusedError(f"cannot add context {name}: {address!r} is no HOST:PORT, as in 127.0.0.1:7443", USAGE)
    for key in KEYS[1:]:
        if not files[key].is_file():
            raise RefusedError(
                f"cannot add context {name}: {files[key]}: no such file; "
                "`provisioner init` writes ca.pem, cert.pem and key.pem into one folder",
                USAGE,
            )
    if stat.S_IMODE(files["key"].stat().st_mode) & 0o077:
        raise RefusedError(
            f"cannot add context {name}: {files['key']}: others can read it; `chmod 600` it, and ask who has read it",
            USAGE,
        )
    absolute = {key: str(Path(os.path.abspath(files[key]))) for key in KEYS[1:]}  # noqa: PTH100 - links stay links
    return Context(name=name, address=address, **absolute)


def _decoded(document: Mapping[str, object], path: Path) -> Contexts:
    """ValueError says what is wrong, and where."""
    file = msgspec.convert(document, type=_File)
    known = {
        name: Context(name, place.address, place.ca, place.cert, place.key) for name, place in file.contexts.items()
    }
    return Contexts(path, file.current, known)


def _quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
