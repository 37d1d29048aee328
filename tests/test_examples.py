"""The examples of docs/api.md do what they say, against a provisioner and an agent as an operator starts them."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import agent, site

EXAMPLE = Path(__file__).resolve().parent.parent / "docs/examples/fleet.py"


def _run(port: int, admin: Path, *job: str) -> list[str]:
    command = [sys.executable, str(EXAMPLE), f"127.0.0.1:{port}", str(admin), *job]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()


def _first_line(port: int, admin: Path, *job: str) -> str:
    """Of a program that goes on."""
    command = [sys.executable, str(EXAMPLE), f"127.0.0.1:{port}", str(admin), *job]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            return program.stdout.readline()
        finally:
            program.kill()


@pytest.mark.slow
def test_the_provisioning_tool_of_the_reference_does_its_three_jobs(tmp_path: Path) -> None:
    place = site(tmp_path, silent_after_s=1.0)
    admin = tmp_path / "provisioner/admin"
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        (token,) = _run(place.port, admin, "token")
        assert token.startswith("bedplate1.")
        path = tmp_path / "token"
        path.touch(mode=0o600)
        path.write_text(token)
        with agent(tmp_path / "agent", path) as program:
            program.wait_for("STATUS=connected to")
            assert _run(place.port, admin, "silent") == []
            revision, hostname, phase = _first_line(place.port, admin, "watch").split()
            assert int(revision) > 0
            assert hostname
            assert phase == "PHASE_PRESENT"
        silenced = _first_line(place.port, admin, "watch", revision).split()
        assert int(silenced[0]) > int(revision), "a watch resumes after the revision that it is given"
