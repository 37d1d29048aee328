"""What docs/security.md says about who may do what is what the two programs do, and no secret is without its row."""

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from nodeagent import access as agent_access
from nodeagent import config as agent_config
from nodeagent import identity
from provisioner import access, config
from tests.vm import guide

PAGE = Path(__file__).resolve().parent.parent / "docs/security.md"
SECRET = re.compile(r"(?:.*_)?(?:key|key_file|token_file|password_file|secret_file)")  # the keys of a configuration


def _table(heading: str) -> dict[str, set[str]]:
    """'| viewer | `Fleet.GetStatus`, … |' -> {'viewer': {'Fleet.GetStatus', …}}, of the table with this heading"""
    after = PAGE.read_text().split(f"| {heading} |\n", 1)[1]
    rows = [line.split("|") for line in after.split("\n\n", 1)[0].splitlines()[1:]]
    return {row[1].strip(): set(re.findall(r"`([\w.]+)`", row[2])) for row in rows}


def _methods(given: Mapping[str, str]) -> dict[str, set[str]]:
    """{'/bedplate.v1.Fleet/GetStatus': 'viewer'} -> {'viewer': {'Fleet.GetStatus'}}"""
    tables: dict[str, set[str]] = {}
    for path, who in given.items():
        tables.setdefault(who, set()).add(".".join(path.split(".")[-1].split("/")))
    return tables


def test_who_may_do_what_at_the_provisioner_is_documented_method_by_method() -> None:
    given = {path: who.value for path, who in access.METHODS.items()}
    assert _table("who | methods") == _methods(given), "docs/security.md and METHODS of provisioner/access.py differ"


def test_who_may_do_what_on_a_host_is_documented_method_by_method() -> None:
    assert _table("who | methods of the agent") == _methods(agent_access.METHODS)


def test_each_file_that_holds_a_secret_has_a_row_that_says_what_it_is_worth() -> None:
    configured = (agent_config.Config, config.Config, config.Mqtt, config.Webhook)
    keys = {field.name for one in configured for field in msgspec.structs.fields(one) if SECRET.fullmatch(field.name)}
    files = keys | {identity.IDENTITY, identity.NEXT_KEY, identity.JOIN_KEY, "ca.key", "bedplate.db"}
    part = guide.part("What a stolen secret is worth", PAGE)
    rows = "".join(re.findall(r"^\|.*?\|.*?\|", part, flags=re.MULTILINE))  # what it is, where it is
    assert {name for name in files if f"`{name}`" not in rows} == set()
