"""The provisioner's configuration: one TOML file, read strictly.

Rule: an unknown key, a wrong type or a value out of range is one line that names the key; nothing is guessed.
"""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated

import msgspec

from provisioner.errors import ConfigError

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Days = Annotated[float, msgspec.Meta(gt=0, le=3650)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Rate = Annotated[float, msgspec.Meta(gt=0)]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every key has a default; docs/configuration.md says what each is for."""

    state: str = "/var/lib/bedplate/provisioner"
    listen: str = "127.0.0.1:7443"
    enrol_listen: str = "127.0.0.1:7444"
    advertise: str = ""  # what agents and tokens dial for `listen`; empty: `listen` itself
    enrol_advertise: str = ""
    names: tuple[str, ...] = ()  # further DNS names and addresses of the server's certificate
    metrics_listen: str = ""  # empty: no metrics
    silent_after_s: Seconds = 60.0
    vitals_interval_s: Seconds = 300.0
    certificate_days: Days = 7.0
    keepalive_s: Annotated[float, msgspec.Meta(ge=1)] = 10.0
    pending_limit: Count = 1000
    connections: Count = 16_000  # to `listen`
    enrol_connections: Count = 3_000  # to `enrol_listen`
    machine_messages_per_s: Rate = 20.0  # of one machine; what is beyond is read more slowly
    machine_bytes_per_s: Rate = 32_768.0
    calls_per_s: Rate = 100.0  # of one person or tool
    watches: Count = 50  # of one person or tool, at a time
    enrol_calls_per_s: Rate = 200.0  # of all who hold no certificate
    enrol_calls_per_s_address: Rate = 100.0  # of those of one address
    inventories_kept: Count = 20  # for each machine
    inventory_days: Days = 90.0
    event_days: Days = 90.0
    log: str = "auto"  # journal | stderr | auto
    log_level: str = "info"

    @property
    def dial(self) -> str:
        return self.advertise or self.listen

    @property
    def enrol_dial(self) -> str:
        return self.enrol_advertise or self.enrol_listen

    @property
    def folder(self) -> Path:
        return Path(self.state)


def load(path: Path) -> Config:
    """ConfigError where the file cannot be used: one line that names the file and the key."""
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
        return checked(msgspec.convert(values, Config))
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read config {path}: not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"cannot read config {path}: {_named(str(error))}") from error
    except ValueError as error:
        raise ConfigError(f"cannot read config {path}: {error}") from error


def checked(config: Config) -> Config:
    """ValueError where a value has the right type and makes no sense."""
    for key in ("listen", "enrol_listen", "advertise", "enrol_advertise", "metrics_listen"):
        value = getattr(config, key)
        host, _, port = value.rpartition(":")
        if value and not (host and port.isdecimal() and int(port) < 1 << 16):
            raise ValueError(f"{key} is {value!r}, and must be HOST:PORT")
    if config.log not in ("journal", "stderr", "auto"):
        raise ValueError(f"log is {config.log!r}, and must be journal, stderr or auto")
    if config.log_level not in ("debug", "info", "warning", "error"):
        raise ValueError(f"log_level is {config.log_level!r}, and must be debug, info, warning or error")
    return config


def _named(message: str) -> str:
    """'Object contains unknown field `silent_after`' -> 'unknown key "silent_after"; did you mean "silent_after_s"?'"""
    if unknown := re.match(r"Object contains unknown field `([^`]*)`", message):
        near = difflib.get_close_matches(unknown[1], Config.__struct_fields__, n=1)
        return f'unknown key "{unknown[1]}"' + (f'; did you mean "{near[0]}"?' if near else "")
    return re.sub(r" - at `\$\.([^`]*)`", r" for \1", message)
