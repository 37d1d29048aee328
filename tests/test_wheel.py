"""What is installed from a wheel is what stands here: the programs, and the captured machines with all their links."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOOK = """
import sys
from pathlib import Path
import nodeagent
from nodeagent import shipped
from nodeagent.host import replayed
from nodeagent.observe import scan
print(Path(nodeagent.__file__).parent.parent)
for name in shipped.names():
    print(name, scan(replayed(shipped.folder(name, Path(sys.argv[1])))).SerializeToString(deterministic=True).hex())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--no-index"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "-w", str(folder), str(ROOT)], check=True)
    return next(folder.glob("*.whl"))


def _look(site: Path, scratch: Path) -> list[str]:
    """Where the agent came from, then each captured machine as it replays."""
    scratch.mkdir()
    command = [sys.executable, "-c", LOOK, str(scratch)]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        command, env=environment, cwd=scratch, capture_output=True, text=True, check=True
    ).stdout.split("\n")


@pytest.mark.slow
def test_captured_machines_replay_from_a_wheel_as_they_do_here(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    place, *machines = _look(tmp_path / "site", tmp_path / "there")
    assert place == str(tmp_path / "site")
    assert len(machines) > 2
    assert machines == _look(ROOT, tmp_path / "here")[1:]


@pytest.mark.slow
def test_a_wheel_holds_the_programs_and_nothing_of_their_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        scripts = next(archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {
        "nodeagent",
        "provisioner",
        "bedplate",
    }
    assert all(program in scripts for program in ("nodeagent = ", "provisioner = ", "bedplate = "))
    assert any(name.endswith("licenses/LICENSE") for name in names)
