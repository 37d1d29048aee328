"""What was released goes on working: the wire against the last release, and its programs against these.

The last release stands in tests/released: tests/release.py says how it came there.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests import release
from tests.running import BIN, Program, Site, agent, environment_of, site, until

ROOT = release.ROOT
MACHINES = ROOT / "tests/machines"


def _breaking(protos: Path) -> list[str]:
    """What buf has to say of these protos, held against the last release."""
    command = [str(BIN / "buf"), "breaking", str(protos), "--against", str(release.last())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode == 0) == (not done.stdout)
    return done.stdout.splitlines()


def _edited(folder: Path, before: str, after: str, name: str = "uplink") -> Path:
    """A copy of the protos in which one line of the uplink, or of another, is another."""
    shutil.copytree(ROOT / "protos", folder, ignore=shutil.ignore_patterns("*.py*", "__pycache__"))
    edited = folder / f"bedplate/v1/{name}.proto"
    assert before in edited.read_text()
    edited.write_text(edited.read_text().replace(before, after))
    return folder


def test_the_protos_break_nothing_of_the_last_release() -> None:
    assert _breaking(ROOT / "protos") == [], release.about()


def test_a_field_that_is_given_another_number_is_refused(tmp_path: Path) -> None:
    said = _breaking(_edited(tmp_path / "protos", "string agent_version = 1;", "string agent_version = 99;"))
    assert any('field "1" with name "agent_version" on message "Hello" was deleted' in line for line in said)


def test_a_field_of_another_type_or_another_name_is_refused(tmp_path: Path) -> None:
    for number, other in enumerate(("uint64 agent_version = 1;", "string agent_release = 1;")):
        assert _breaking(_edited(tmp_path / str(number), "string agent_version = 1;", other))


@pytest.mark.parametrize(
    ("before", "after", "name", "gone"),
    [
        ("rpc Renew(", "rpc RenewCertificate(", "uplink", 'RPC "Renew"'),
        ("service Uplink {", "service Uplinks {", "uplink", 'service "Uplink"'),
        ("rpc WatchEvents(", "rpc FollowEvents(", "fleet", 'RPC "WatchEvents"'),
    ],
)
def test_a_call_that_is_there_no_more_is_refused(before: str, after: str, name: str, gone: str, tmp_path: Path) -> None:
    assert any(gone in line for line in _breaking(_edited(tmp_path / "protos", before, after, name)))


def test_a_field_that_is_new_breaks_nothing(tmp_path: Path) -> None:
    new = "string agent_version = 1;\n  string made_up = 999;"
    assert _breaking(_edited(tmp_path / "protos", "string agent_version = 1;", new)) == []


def test_what_is_kept_as_the_last_release_is_the_version_before_this_one() -> None:
    here, before, *_ = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert here == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert release.released() == before, "run `make released`: CONTRIBUTING.md says when"
    assert set(re.findall(r"bedplate-([\d.]+)-py3", (ROOT / "docs/install.md").read_text())) == {here}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release.unpacked(tmp_path_factory.mktemp("released"))


@pytest.mark.slow
def test_the_programs_of_the_last_release_are_not_those_of_this_checkout(old: Path) -> None:
    look = "import bedplate.v1.uplink_pb2, importlib.metadata, nodeagent, provisioner\n"
    look += "print(*nodeagent.__path__, *provisioner.__path__, bedplate.v1.uplink_pb2.__file__, sep='\\n')\n"
    look += "print(importlib.metadata.version('bedplate'))"
    done = subprocess.run(
        [sys.executable, "-c", look], env=environment_of(old), cwd=old, check=True, capture_output=True, text=True
    )
    *paths, version = done.stdout.splitlines()
    assert paths == [str(old / name) for name in ("nodeagent", "provisioner", "bedplate/v1/uplink_pb2.py")]
    assert version == release.released()


def _connected(program: Program) -> None:
    program.said.clear()
    program.wait_for("STATUS=connected to")


def _inventory(shown: dict[str, Any]) -> dict[str, Any]:
    return dict(shown["snapshot"]["inventory"])


def _shown(place: Site) -> dict[str, Any]:
    return dict(json.loads(place.bedplate("machine", "show", "-o", "json", place.machines()[0]["machine_id"]).stdout))


def _back(place: Site) -> bool:
    (machine,) = place.machines()
    return machine["phase"] == "PHASE_PRESENT" and "stream" in machine["because"]


@pytest.mark.slow
@pytest.mark.parametrize("older", ["agent", "provisioner"])
def test_one_program_of_the_last_release_works_with_the_other_of_this(older: str, old: Path, tmp_path: Path) -> None:
    """Enrols, reports, and is back with all that was known of it after the provisioner was killed."""
    agent_home, provisioner_home = (old, None) if older == "agent" else (None, old)
    place = site(tmp_path, provisioner_home, silent_after_s=1)
    with place.run(provisioner_home) as provisioner:
        provisioner.wait_for("READY=1")
        token = place.token("--uses", "1")
        with agent(tmp_path / "agent", token, agent_home, root=MACHINES / "h100") as program:
            _connected(program)
            until(lambda: place.machines()[0].get("gpu_count") == 8)
            before = _shown(place)
            provisioner.process.kill()
            provisioner.process.wait()
            with place.run(provisioner_home) as again:
                again.wait_for("READY=1")
                until(lambda: _back(place))
                assert _inventory(_shown(place)) == _inventory(before)
                assert program.stop() == 0


@pytest.mark.slow
def test_a_site_of_the_last_release_is_upgraded_where_it_stands(old: Path, tmp_path: Path) -> None:
    """The provisioner first, then the agent: each on the state that the older one has left."""
    place = site(tmp_path, old, silent_after_s=1)
    state = tmp_path / "agent"
    with place.run(old) as provisioner:
        provisioner.wait_for("READY=1")
        token = place.token("--uses", "1")
        with agent(state, token, old, root=MACHINES / "dgx2") as program:
            _connected(program)
            until(lambda: place.machines()[0].get("gpu_count") == 16)
            before = _shown(place)
            assert provisioner.stop() == 0
            with place.run() as younger:
                younger.wait_for("READY=1")
                until(lambda: _back(place))
                assert program.stop() == 0
                with agent(state, None, root=MACHINES / "dgx2") as upgraded:
                    _connected(upgraded)
                    until(lambda: _back(place))
                    (machine,) = place.machines()
                    assert _inventory(_shown(place)) == _inventory(before)
                    assert machine["machine_id"] == before["machine"]["machine_id"]
