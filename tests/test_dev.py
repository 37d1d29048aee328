"""`make dev`: everything on this host, and nothing of it left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest

pytestmark = pytest.mark.slow


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _start(state: Path, home: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "XDG_CONFIG_HOME": str(home)}
    command = [sys.executable, "-m", "provisioner.dev", "--state", str(state)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def _read_until(process: "subprocess.Popen[str]", word: str) -> str:
    lines = ""
    assert process.stdout
    while word not in lines:
        line = process.stdout.readline()
        assert line, lines
        lines += line
    return lines


@pytest.mark.timeout(90)
def test_nine_machines_are_there_soon_a_second_start_goes_on_and_nothing_is_left(tmp_path: Path) -> None:
    state, home = tmp_path / "state", tmp_path / "home"
    known: list[str] = []
    for _ in range(2):
        process = _start(state, home)
        try:
            said = _read_until(process, "Ctrl-C ends everything")
            assert "nine machines are present" in said
            assert str(state) in said
            listed = subprocess.run(
                [str(Path(sys.executable).parent / "bedplate"), "machines", "-o", "json"],
                capture_output=True,
                text=True,
                check=True,
                env={**os.environ, "XDG_CONFIG_HOME": str(home)},
            ).stdout
            known.append(",".join(sorted(line.strip() for line in listed.splitlines() if '"machine_id"' in line)))
            children = _children(process.pid)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)
            if process.stdout:
                process.stdout.close()
        for _ in range(50):
            if not any(Path(f"/proc/{child}").exists() for child in children):
                break
            Event().wait(0.1)
        assert not any(Path(f"/proc/{child}").exists() for child in children)
        assert process.returncode == 0
    assert known[0] == known[1]
    assert known[0].count("machine_id") == 9
