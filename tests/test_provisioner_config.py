"""The provisioner's configuration: every mistake is one line that names the key."""

from pathlib import Path

import pytest

from provisioner.config import Config, load
from provisioner.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("silent_after = 5", 'unknown key "silent_after"; did you mean "silent_after_s"?'),
        ('silent_after_s = "5"', "Expected `float`, got `str` for silent_after_s"),
        ("silent_after_s = 0", "Expected `float` > 0.0 for silent_after_s"),
        ('listen = "7443"', "listen is '7443', and must be HOST:PORT"),
        ('listen = "localhost:70000"', "listen is 'localhost:70000', and must be HOST:PORT"),
        ('log = "syslog"', "log is 'syslog', and must be journal, stderr or auto"),
        ('log_level = "loud"', "log_level is 'loud', and must be debug, info, warning or error"),
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
