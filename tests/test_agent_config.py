"""The agent's configuration file, as people really write it."""

import pytest

from nodeagent.config import CHOICES, FIXED, Config, fixed, load, parsed, token
from nodeagent.errors import ConfigError


def written(tmp_path, text, mode=0o600):
    path = tmp_path / "nodeagent.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def refusal(tmp_path, text, mode=0o600):
    path = written(tmp_path, text, mode)
    with pytest.raises(ConfigError) as caught:
        load(path)
    line = str(caught.value)
    assert line.startswith(f"cannot read config {path}: ")
    assert "\n" not in line
    return line.removeprefix(f"cannot read config {path}: ").replace(str(path), "FILE")


def test_an_empty_file_is_a_configuration(tmp_path):
    assert load(written(tmp_path, "")) == Config()


def test_what_is_written_is_what_is_read(tmp_path):
    config = load(written(tmp_path, 'state = "/s"\ntick_s = 2\nsocket_group = "ops"\nmetrics_listen = "[::1]:9477"\n'))
    assert (config.state, config.tick_s, config.socket_group) == ("/s", 2.0, "ops")
    assert config.metrics_listen == "[::1]:9477"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tick_second = 3", 'unknown key "tick_second"; did you mean "tick_s"?'),
        ("zebra = 3", 'unknown key "zebra"'),
        ('tick_s = "3"', "tick_s must be a number, and is text"),
        ("tick_s = true", "tick_s must be a number, and is true or false"),
        ("tick_s = 0", "tick_s must be a number >= 0.1"),
        ("tick_s = nan", "tick_s must be a number >= 0.1"),
        ("tick_s = inf", "tick_s must be a number <= 3600.0"),
        ("state = 3", "state must be text, and is a whole number"),
        ("state = [1]", "state must be text, and is a list"),
        ('state = ""', "state must not be empty"),
        ('log = "file"', 'log must be one of auto, journal, stderr, and is "file"'),
        ('log_level = "loud"', 'log_level must be one of debug, info, warning, error, and is "loud"'),
        ('listen = "9443"', 'listen must be "HOST:PORT"'),
        ('metrics_listen = "localhost:99999"', "metrics_listen has port 99999, and the highest is 65535"),
        ('listen = "h:1"\nlisten_key = "k"', "listen needs listen_certificate and listen_client_ca too"),
        ('join_token = "a"\njoin_token_file = "b"', "join_token and join_token_file exclude each other"),
        (f'socket = "/{"x" * 107}"', "socket is longer than the 100 bytes that there is room for"),
        ("tick_s = 1\n= 2", "it is not TOML: invalid statement (at line 2, column 1)"),
        (b"state = '\xff'", "it is not UTF-8: byte 9"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(tmp_path, text, says):
    assert refusal(tmp_path, text) == says


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read config .*absent.toml: No such file or directory"):
        load(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match=r"cannot read config .*: Is a directory"):
        load(tmp_path)


def test_a_token_in_a_configuration_that_everybody_may_read_is_refused(tmp_path):
    line = refusal(tmp_path, 'join_token = "bedplate1.secret"', 0o644)
    assert line == (
        "it holds join_token and everybody may read it; chmod o= FILE, or name a file of mode 0600 with join_token_file"
    )
    assert token(load(written(tmp_path, 'join_token = "bedplate1.secret"', 0o640))) == "bedplate1.secret"


def test_a_configuration_without_a_secret_may_be_read_by_everybody(tmp_path):
    assert load(written(tmp_path, "tick_s = 1", 0o644)).tick_s == 1


def in_file(tmp_path, data, mode):
    path = tmp_path / "token"
    path.write_bytes(data)
    path.chmod(mode)
    return parsed(f'join_token_file = "{path}"')


def test_a_token_is_read_from_its_file_without_the_line_end(tmp_path):
    assert token(in_file(tmp_path, b"bedplate1.abc\n", 0o600)) == "bedplate1.abc"
    assert token(Config()) == ""


@pytest.mark.parametrize(
    ("data", "mode", "says"),
    [
        (b"x", 0o644, "everybody may read it; chmod 0600 "),
        (b" \n", 0o600, "it is empty"),
        (b"x" * 20000, 0o600, "it is far too long"),
        (b"\xff", 0o600, "it is not a line of text"),
    ],
)
def test_a_token_file_that_cannot_be_used_is_named(tmp_path, data, mode, says):
    with pytest.raises(ConfigError, match=says):
        token(in_file(tmp_path, data, mode))


def test_a_token_file_that_is_gone_matters_only_when_the_token_is_needed(tmp_path):
    config = load(written(tmp_path, f'join_token_file = "{tmp_path}/gone"'))
    with pytest.raises(ConfigError, match=r"cannot read join token .*gone: No such file or directory"):
        token(config)


def test_what_only_a_restart_takes_over_is_named():
    assert fixed(Config(), Config(tick_s=1.0, log_level="debug")) == []
    assert fixed(Config(), Config(state="/x", listen="h:1")) == ["state", "listen"]
    assert set(FIXED) < set(Config.__struct_fields__)


def test_the_choices_are_those_of_the_struct():
    for key, values in CHOICES.items():
        for value in values:
            assert getattr(parsed(f'{key} = "{value}"'), key) == value
