"""The systemd units: as little exposed as their work allows, and each line with its reason."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.vm.forbidden import TABLE

UNITS = Path(__file__).resolve().parent.parent / "systemd"
EXPOSURE = {"provisioner.service": 1.1, "nodeagent.service": 2.1}  # as measured; what raises one gives its reason there


@pytest.mark.parametrize("unit", EXPOSURE)
def test_a_unit_is_no_more_exposed_than_its_work_needs(unit: str) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return  # nothing else weighs units; continuous integration installs it
    command = [analyze, "security", "--offline=true", "--no-pager", str(UNITS / unit)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert exposure, said
    assert float(exposure[1]) <= EXPOSURE[unit], said


@pytest.mark.parametrize("unit", EXPOSURE)
def test_every_hardening_line_has_its_reason(unit: str) -> None:
    hardening = (UNITS / unit).read_text().partition("# Hardening\n")[2].partition("[Install]")[0]
    assert hardening.startswith("# ")
    for above, line in zip(hardening.splitlines(), hardening.splitlines()[1:], strict=False):
        assert line.startswith("#") or above, f"a line after a gap has no reason above it: {line}"
    for left in re.findall(r"# - [^(]*\(([^)]*)\)", hardening):
        for setting in left.split(", "):
            assert not re.search(rf"^{setting}yes", hardening, re.MULTILINE), (
                f"{setting} is said to be left, and is not"
            )


@pytest.mark.parametrize("unit", EXPOSURE)
def test_every_hardening_line_is_tried_in_a_virtual_machine(unit: str) -> None:
    hardening = (UNITS / unit).read_text().partition("# Hardening\n")[2].partition("[Install]")[0]
    lines = [line for line in hardening.splitlines() if line and not line.startswith("#")]
    assert sorted(lines) == sorted(TABLE[unit.removesuffix(".service")])


@pytest.mark.parametrize("unit", EXPOSURE)
def test_a_unit_runs_the_programs_that_the_package_installs(unit: str) -> None:
    text = (UNITS / unit).read_text()
    assert f"ExecStart=/opt/bedplate/bin/{unit.removesuffix('.service')} " in text
    assert "Type=notify" in text
    assert "WatchdogSec=" in text
