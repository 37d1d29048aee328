"""docs/configuration.md lists each key of both configurations, with its default."""

import re
from pathlib import Path

import msgspec
import pytest

from nodeagent.config import FIXED
from nodeagent.config import Config as AgentConfig
from provisioner.cloudevents import KINDS
from provisioner.config import Config as ProvisionerConfig
from provisioner.config import Mqtt, Webhook, load

TABLES = ("mqtt", "webhook")
PAGE = Path(__file__).resolve().parent.parent / "docs/configuration.md"


def _toml(value: object) -> str:
    """As TOML writes it: 60.0 -> '60.0', '' -> '""', () -> '[]'"""
    match value:
        case str():
            return f'"{value}"'
        case bool():
            return str(value).lower()
        case tuple():
            return f"[{', '.join(_toml(entry) for entry in value)}]"
        case _:
            return str(value)


def _parts() -> dict[str, dict[str, str]]:
    """'provisioner' or 'provisioner: [mqtt]', and its keys with their defaults."""
    found = {}
    for part in re.split(r"\n##+ ", PAGE.read_text())[1:]:
        title = part.splitlines()[0].partition(": /")[0]
        found[title] = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", part, re.MULTILINE))
    return found


def _defaults(config: type[msgspec.Struct]) -> dict[str, str]:
    """Of what stands in no table of its own; '-' where there is none."""
    return {
        field.name: "-" if field.default is msgspec.NODEFAULT else _toml(field.default)
        for field in msgspec.structs.fields(config)
        if field.name not in TABLES
    }


@pytest.mark.parametrize(
    ("title", "config"),
    [
        ("nodeagent", AgentConfig),
        ("provisioner", ProvisionerConfig),
        ("provisioner: [mqtt]", Mqtt),
        ("provisioner: [[webhook]]", Webhook),
    ],
)
def test_each_key_of_a_configuration_is_documented_with_its_default(title: str, config: type[msgspec.Struct]) -> None:
    assert _parts()[title] == _defaults(config)


def test_the_example_of_the_page_on_events_is_a_configuration(tmp_path: Path) -> None:
    example = re.findall(r"```toml\n(.*?)```", (PAGE.parent / "events.md").read_text(), re.DOTALL)
    path = tmp_path / "provisioner.toml"
    path.write_text(example[0])
    config = load(path)
    assert (config.mqtt.host, config.webhook[0].name) == ("mqtt.example", "pager")
    assert all(any(kind.startswith(prefix) for kind in KINDS) for prefix in config.webhook[0].kinds)


def test_keys_that_need_a_restart_are_marked_as_such() -> None:
    assert set(re.findall(r"^\| `(\w+)` \| `[^`]*` \| restart \|", PAGE.read_text(), re.MULTILINE)) == set(FIXED)
