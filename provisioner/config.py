"""The provisioner's configuration: one TOML file, read strictly.

Rule: an unknown key, a wrong type or a value out of range is one line that names the key; nothing is guessed.
"""

import difflib
import json
import re
import tomllib
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from provisioner.errors import ConfigError

Seconds = Annotated[float, msgspec.Meta(gt=0, le=31_536_000)]
Days = Annotated[float, msgspec.Meta(gt=0, le=3650)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Connections = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Rate = Annotated[float, msgspec.Meta(gt=0)]
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Mqtt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A broker that events go to. Files are read anew at each connection."""

    host: str = ""  # empty: no broker
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8883
    tls: bool = True
    ca_file: str = ""  # empty: the CAs that the system trusts
    certificate_file: str = ""
    key_file: str = ""
    username: str = ""
    password_file: str = ""
    client_id: str = ""  # empty: one of the fleet's own
    topic: str = "bedplate"  # in front of all topics
    keepalive_s: Annotated[int, msgspec.Meta(ge=5, le=3600)] = 30
    from_oldest: bool = False  # a broker that is new gets the events that are kept, too


class Webhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address that events are posted to. Files are read anew at each attempt."""

    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9-]{0,31}$")]
    url: str
    secret_file: str
    kinds: tuple[str, ...] = ()  # only kinds that begin so; empty: all
    ca_file: str = ""  # empty: the CAs that the system trusts
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 10.0
    insecure: bool = False  # allows http to another host
    from_oldest: bool = False


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
    keepalive_s: Annotated[float, msgspec.Meta(ge=1, le=86_400)] = 25.0
    pending_limit: Count = 1000
    connections: Connections = 16_000  # to `listen`
    enrol_connections: Connections = 3_000  # to `enrol_listen`
    machine_messages_per_s: Rate = 20.0  # of one machine; what is beyond is read more slowly
    machine_bytes_per_s: Rate = 32_768.0
    calls_per_s: Rate = 100.0  # of one person or tool; of one machine, beside its renewals
    watches: Count = 50  # of one person or tool, at a time
    enrol_calls_per_s: Rate = 200.0  # of all who hold no certificate
    enrol_calls_per_s_address: Rate = 100.0  # of those of one address
    inventories_kept: Count = 20  # for each machine
    inventory_days: Days = 90.0
    event_days: Days = 90.0
    log: str = "auto"  # journal | stderr | auto
    log_level: str = "info"
    event_source: str = ""  # of CloudEvents; empty: a name that the store was made with
    mqtt: Mqtt = Mqtt()
    webhook: tuple[Webhook, ...] = ()

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
    except RecursionError as error:
        raise ConfigError(f"cannot read config {path}: it is nested too deeply") from error
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
    _check_mqtt(config.mqtt)
    for webhook in config.webhook:
        _check_webhook(webhook)
    names = [webhook.name for webhook in config.webhook]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two webhooks have the name {twice[0]!r}")
    return config


def _check_mqtt(mqtt: Mqtt) -> None:
    if not mqtt.topic or set(mqtt.topic) & set("+#\0") or mqtt.topic.strip("/") != mqtt.topic or mqtt.topic[0] == "$":
        raise ValueError(f"mqtt.topic is {mqtt.topic!r}, and must be a topic without + and #, as 'bedplate'")
    if bool(mqtt.certificate_file) != bool(mqtt.key_file):
        raise ValueError("mqtt.certificate_file and mqtt.key_file belong together")
    if mqtt.password_file and not mqtt.username:
        raise ValueError("mqtt.password_file needs mqtt.username")
    if not mqtt.tls and mqtt.password_file and mqtt.host not in LOOPBACK:
        raise ValueError("mqtt.tls is false: a password would travel in the clear; leave TLS on")


def _check_webhook(webhook: Webhook) -> None:
    which = f"url of webhook {webhook.name!r} is {webhook.url!r}"
    try:
        url = urlsplit(webhook.url)
        _ = url.port  # it is looked at only when it is asked for
    except ValueError as error:
        raise ValueError(f"{which}: {error}") from error
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(f"{which}, and must be https://HOST/PATH")
    if url.username or url.password:
        raise ValueError(f"url of webhook {webhook.name!r} holds a password: what is posted is signed, it needs none")
    if url.scheme == "http" and not webhook.insecure and url.hostname not in LOOPBACK:
        raise ValueError(f"{which}, and must be https; insecure = true allows http")


WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}


def _named(message: str) -> str:
    """What msgspec says, for people.

    'Object contains unknown field `hst` - at `$.mqtt`'       -> 'unknown key "mqtt.hst"; did you mean "host"?'
    'Expected `int`, got `str` - at `$.mqtt.port`'            -> 'mqtt.port must be a whole number, and is text'
    'Object missing required field `url` - at `$.webhook[0]`' -> 'webhook[0].url is missing'
    """
    what, _, place = message.partition(" - at `$.")
    place = place.removesuffix("`")
    if unknown := re.match(r"Object contains unknown field `([^`]*)`", what):
        table = {"mqtt": Mqtt, "webhook": Webhook}.get(place.partition("[")[0], Config)
        near = difflib.get_close_matches(unknown[1], table.__struct_fields__, n=1)
        key = f"{place}.{unknown[1]}" if place else unknown[1]
        return f"unknown key {json.dumps(key)}" + (f'; did you mean "{near[0]}"?' if near else "")
    if missing := re.match(r"Object missing required field `([^`]*)`", what):
        return f"{place}.{missing[1]} is missing"
    plain = re.sub(r"`(\w+)`", lambda word: WORDS.get(word[1], word[1]), what)
    return f"{place} {plain}".replace(" Expected ", " must be ").replace(", got ", ", and is ")
