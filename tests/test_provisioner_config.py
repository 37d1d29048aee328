"""The provisioner's configuration: every mistake is one line that names the key."""

from pathlib import Path

import pytest

from provisioner.config import Config, load
from provisioner.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("silent_after = 5", 'unknown key "silent_after"; did you mean "silent_after_s"?'),
        ('silent_after_s = "5"', "silent_after_s must be a number, and is text"),
        ("silent_after_s = 0", "silent_after_s must be a number > 0.0"),
        ('listen = "7443"', "listen is '7443', and must be HOST:PORT"),
        ('listen = "localhost:70000"', "listen is 'localhost:70000', and must be HOST:PORT"),
        ('log = "syslog"', "log is 'syslog', and must be journal, stderr or auto"),
        ('log_level = "loud"', "log_level is 'loud', and must be debug, info, warning or error"),
        ('mqtt.hst = "b"', 'unknown key "mqtt.hst"; did you mean "host"?'),
        ('mqtt.topic = "a/#"', "mqtt.topic is 'a/#', and must be a topic without + and #, as 'bedplate'"),
        ("mqtt.port = 0", "mqtt.port must be a whole number >= 1"),
        ('mqtt.key_file = "k"', "mqtt.certificate_file and mqtt.key_file belong together"),
        ('mqtt.password_file = "p"', "mqtt.password_file needs mqtt.username"),
        (
            'mqtt = {host = "b", username = "u", password_file = "p", tls = false}',
            "mqtt.tls is false: a password would travel in the clear; leave TLS on",
        ),
        (
            'webhook = [{name = "a", url = "http://far/", secret_file = "s"}]',
            "url of webhook 'a' is 'http://far/', and must be https; insecure = true allows http",
        ),
        (
            'webhook = [{name = "a", url = "ftp://far", secret_file = "s"}]',
            "url of webhook 'a' is 'ftp://far', and must be https://HOST/PATH",
        ),
        (
            'webhook = [{name = "a", url = "https://u:p@far", secret_file = "s"}]',
            "url of webhook 'a' holds a password: what is posted is signed, it needs none",
        ),
        (
            'webhook = [{name="a", url="https://a/", secret_file="s"}, {name="a", url="https://b/", secret_file="s"}]',
            "two webhooks have the name 'a'",
        ),
        ('webhook = [{name = "a"}]', "webhook[0].url is missing"),
        ('webhook = [{urll = "a"}]', 'unknown key "webhook[0].urll"; did you mean "url"?'),
        ('mqtt = "b"', "mqtt must be a table, and is text"),
        ("listen = ", "not TOML: Invalid value (at end of document)"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "provisioner.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == f"cannot read config {path}: {line}"


def test_bytes_that_are_no_text_are_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "provisioner.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not TOML"):
        load(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory"):
        load(tmp_path / "nowhere.toml")


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "provisioner.toml"
    path.touch()
    assert load(path) == Config()


def test_what_is_advertised_is_where_it_listens_unless_said_otherwise() -> None:
    assert Config().dial == "127.0.0.1:7443"
    assert Config(advertise="provisioner.example:443").dial == "provisioner.example:443"
