"""The agent's configuration: one TOML file, read strictly.

Rule 1: an unknown key, a wrong type or a value out of range is one line that names the key; nothing is guessed.
Rule 2: the join token is a secret: it is read when it is needed, never kept, and not from a file that others may read.
"""

import difflib
import json
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from nodeagent.errors import ConfigError

Port = Annotated[str, msgspec.Meta(pattern=r"^(|(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+):[0-9]{1,5})$")]  # HOST:PORT or nothing
MAX_SOCKET_BYTES = 100  # the kernel takes 107, and the gate keeps a folder beside it
MAX_TOKEN_BYTES = 16 << 10
FIXED = (  # what a running agent cannot take over
    "state",
    "socket",
    "socket_group",
    "listen",
    "listen_certificate",
    "listen_key",
    "listen_client_ca",
    "metrics_listen",
    "nvml_library",
    "root",
    "log",
)
WORDS = {"float": "a number", "int": "a whole number", "str": "text", "bool": "true or false", "array": "a list"}


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every key has a default; text that is empty means: none."""

    state: str = "/var/lib/bedplate/nodeagent"  # key, certificate, CA: 0700
    join_token_file: str = ""
    join_token: str = ""
    tick_s: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 10.0
    socket: str = "/run/bedplate/nodeagent.sock"
    socket_group: str = ""  # its members may call too, besides root and the agent's own user
    listen: Port = ""  # TCP with mTLS, for those who hold a client certificate of listen_client_ca
    listen_certificate: str = ""
    listen_key: str = ""
    listen_client_ca: str = ""
    metrics_listen: Port = ""  # "127.0.0.1:9477"
    nvml_library: str = ""  # where the loader does not find libnvidia-ml.so.1 by itself
    root: str = ""  # a captured machine instead of this one
    log: Literal["auto", "journal", "stderr"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def folder(self) -> Path:
        return Path(self.state)


def load(path: Path) -> Config:
    """ConfigError where the file cannot be used: one line that names the file and the key."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            config = parsed(file.read().decode())
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror}") from error
    except ValueError as error:  # msgspec's and tomllib's and UnicodeDecodeError are of this kind
        raise ConfigError(f"cannot read config {path}: {_sentence(error)}") from error
    if config.join_token and mode & stat.S_IRWXO:
        advice = f"chmod o= {path}, or name a file of mode 0600 with join_token_file"
        raise ConfigError(f"cannot read config {path}: it holds join_token and everybody may read it; {advice}")
    return config


def parsed(text: str) -> Config:
    """ValueError where it cannot be used."""
    try:
        config = msgspec.convert(tomllib.loads(text), Config)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not config.state:
        raise ValueError("state must not be empty")
    if config.join_token and config.join_token_file:
        raise ValueError("join_token and join_token_file exclude each other")
    if len(os.fsencode(config.socket)) > MAX_SOCKET_BYTES:
        raise ValueError(f"socket is longer than the {MAX_SOCKET_BYTES} bytes that there is room for")
    for key in ("listen", "metrics_listen"):
        port = getattr(config, key).rpartition(":")[2]
        if port and int(port) >= 1 << 16:
            raise ValueError(f"{key} has port {port}, and the highest is 65535")
    lacking = [key for key in ("listen_certificate", "listen_key", "listen_client_ca") if not getattr(config, key)]
    if config.listen and lacking:
        raise ValueError(f"listen needs {' and '.join(lacking)} too")
    return config


def token(config: Config) -> str:
    """The join token, or nothing where none is configured. ConfigError where its file cannot be used."""
    if not config.join_token_file:
        return config.join_token
    path = config.join_token_file
    try:
        with Path(path).open("rb") as file:
            mode, data = os.fstat(file.fileno()).st_mode, file.read(MAX_TOKEN_BYTES + 1)
        text = data.decode("ascii").strip()
    except OSError as error:
        raise ConfigError(f"cannot read join token {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read join token {path}: it is not a line of text") from error
    if stat.S_ISREG(mode) and mode & stat.S_IRWXO:
        raise ConfigError(f"cannot use join token {path}: everybody may read it; chmod 0600 {path}")
    if not text or len(data) > MAX_TOKEN_BYTES:
        raise ConfigError(f"cannot use join token {path}: it is {'empty' if not text else 'far too long'}")
    return text


def fixed(before: Config, after: Config) -> list[str]:
    """The keys that changed and that only a restart takes over."""
    return [key for key in FIXED if getattr(before, key) != getattr(after, key)]


def _sentence(error: ValueError) -> str:
    """What msgspec, tomllib and the decoder say, for people.

    'Object contains unknown field `tick_second`'  -> 'unknown key "tick_second"; did you mean "tick_s"?'
    'Expected `float`, got `str` - at `$.tick_s`'  -> 'tick_s must be a number, and is text'
    'Expected `float` >= 0.1 - at `$.tick_s`'      -> 'tick_s must be a number >= 0.1'
    "Invalid enum value 'x' - at `$.log`"          -> 'log must be one of auto, journal, stderr, and is "x"'
    """
    text = str(error)
    if isinstance(error, tomllib.TOMLDecodeError):
        return f"it is not TOML: {text[:1].lower()}{text[1:]}"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8: byte {error.start}"
    if unknown := re.match(r"Object contains unknown field `([^`]*)`", text):
        near = difflib.get_close_matches(unknown[1], Config.__struct_fields__, n=1)
        return f"unknown key {json.dumps(unknown[1])}" + (f'; did you mean "{near[0]}"?' if near else "")
    what, _, place = text.partition(" - at `$.")
    return _of_key(place.rstrip("`"), what) if place else text


def _of_key(key: str, what: str) -> str:
    if "matching regex" in what:
        return f'{key} must be "HOST:PORT"'
    if choice := re.match(r"Invalid enum value '(.*)'", what):
        return f'{key} must be one of {", ".join(CHOICES[key])}, and is "{choice[1]}"'
    plain = re.sub(r"`(\w+)`", lambda word: WORDS.get(word[1], word[1]), what)
    return f"{key} {plain}".replace(" Expected ", " must be ").replace(", got ", ", and is ")


CHOICES = {"log": ("auto", "journal", "stderr"), "log_level": ("debug", "info", "warning", "error")}
