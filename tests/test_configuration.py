"""docs/configuration.md lists each key of both configurations, with its default."""

import re
from pathlib import Path

import msgspec
import pytest

from nodeagent.config import FIXED
from nodeagent.config import Config as AgentConfig
from provisioner.config import Config as ProvisionerConfig

PAGE = Path(__file__).resolve().parent.parent / "docs/configuration.md"


def _toml(value: object) -> str:
    """As TOML writes it: 60.0 -> '60.0', '' -> '""', () -> '[]'"""
    match value:
        case str():
            return f'"{value}"'
        case tuple():
            return f"[{', '.join(_toml(entry) for entry in value)}]"
        case _:
            return str(value)


@pytest.mark.parametrize(("program", "config"), [("nodeagent", AgentConfig()), ("provisioner", ProvisionerConfig())])
def test_each_key_of_a_configuration_is_documented_with_its_default(program: str, config: msgspec.Struct) -> None:
    part = next(part for part in PAGE.read_text().split("\n## ") if part.startswith(f"{program}:"))
    documented = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", part, re.MULTILINE))
    assert documented == {key: _toml(getattr(config, key)) for key in config.__struct_fields__}


def test_keys_that_need_a_restart_are_marked_as_such() -> None:
    assert set(re.findall(r"^\| `(\w+)` \| `[^`]*` \| restart \|", PAGE.read_text(), re.MULTILINE)) == set(FIXED)
