"""What docs/operations.md tells people to do, done: with the real programs, step by step as the page has it.

Rule: what is run is what stands there. Only folders and owners are others, and systemctl says what it was asked: what
      the units would do, the test does.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.running import BIN, Program, Site, agent, site, until
from tests.vm import guide

pytestmark = pytest.mark.slow
MACHINE = Path(__file__).parent / "machines/h100"
PAGE = guide.ROOT / "docs/operations.md"
RESTARTED = ["systemctl stop provisioner", "systemctl start provisioner"]
BACKUP = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).backup(sqlite3.connect(sys.argv[2].split(chr(39))[1]))"
THERE = f"""
systemctl() {{ echo systemctl "$@"; }}
runuser() {{ shift 3; "$@" > /dev/null; }}
command -v sqlite3 > /dev/null || sqlite3() {{ {sys.executable} -c '{BACKUP}' "$@"; }}
"""


def _do(place: Site, script: str) -> list[str]:
    """Paste it into a shell on the provisioner's host. What systemctl was asked; AssertionError where it complains."""
    (place.folder / "backup").mkdir(exist_ok=True)
    for there, here in (
        ("/var/lib/bedplate", place.folder),
        ("/backup", place.folder / "backup"),
        ("/opt/bedplate/bin", BIN),
        ("/etc/bedplate", place.folder),
        (" -o bedplate -g bedplate", ""),
    ):
        script = script.replace(there, str(here))
    done = subprocess.run(["sh", "-c", THERE + script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def _tokens(place: Site) -> set[str]:
    return {token["token_id"] for token in json.loads(place.bedplate("token", "list", "-o", "json").stdout)}


def _connected(program: Program) -> None:
    program.said.clear()
    program.wait_for("STATUS=connected to")


def _connected_again(program: Program) -> None:
    program.process.send_signal(signal.SIGHUP)  # it dials now, however often it was in vain before
    _connected(program)


def _refused(program: Program, because: str) -> None:
    until(lambda: because in program.text())


def test_a_backup_that_is_older_than_the_machines_is_restored(tmp_path: Path) -> None:
    place = site(tmp_path)
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        with agent(tmp_path / "agent", place.token("--uses", "1"), root=MACHINE) as program:
            _connected(program)
            _do(place, guide.blocks("Back up", page=PAGE)[0])
            provisioner.stop()
            for _ in range(2):
                with place.run() as again:
                    again.wait_for("READY=1")
                    _connected_again(program)
            assert _do(place, guide.blocks("Restore", page=PAGE)[0]) == RESTARTED
            with place.run() as restored:
                restored.wait_for("READY=1")
                program.process.send_signal(signal.SIGHUP)
                _refused(program, "this machine obeys epoch 3, and this provisioner is of epoch 2")
            with place.run() as restored:  # each start is an epoch more
                restored.wait_for("READY=1")
                _connected_again(program)


def test_a_store_is_restored_after_each_of_two_incidents_with_what_was_there_put_aside(tmp_path: Path) -> None:
    place = site(tmp_path)
    state = tmp_path / "provisioner"
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        place.token()
        known = _tokens(place)
        _do(place, guide.blocks("Back up", page=PAGE)[0])
    for incident in (1, 2):
        with place.run() as provisioner:
            provisioner.wait_for("READY=1")
            place.token()
            assert len(_tokens(place)) == 2
            provisioner.process.kill()  # so that what came last is in the log beside the store, and nowhere else
            provisioner.process.wait()
        assert (state / "bedplate.db-wal").stat().st_size
        assert _do(place, guide.blocks("Restore", page=PAGE)[0]) == RESTARTED
        with place.run() as restored:
            restored.wait_for("READY=1")
            assert _tokens(place) == known
        assert len([*state.glob("old.*/bedplate.db"), *state.glob("old.*/bedplate.db-wal")]) == 2 * incident


def test_a_store_that_is_gone_is_restored_and_a_backup_that_is_not_there_starts_nothing(tmp_path: Path) -> None:
    place = site(tmp_path)
    state, block = tmp_path / "provisioner", guide.blocks("Restore", page=PAGE)[0]
    _do(place, guide.blocks("Back up", page=PAGE)[0])
    for path in state.glob("bedplate.db*"):
        path.unlink()
    assert _do(place, block) == RESTARTED
    assert (state / "bedplate.db").read_bytes() == (tmp_path / "backup/bedplate.db").read_bytes()
    (tmp_path / "backup/bedplate.db").unlink()
    with pytest.raises(AssertionError, match="install:"):
        _do(place, block + "false")
    assert not (state / "bedplate.db").exists()


def test_a_ca_that_was_lost_is_begun_anew(tmp_path: Path) -> None:
    place = site(tmp_path)
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        with agent(tmp_path / "agent", place.token("--uses", "1"), root=MACHINE) as program:
            _connected(program)
            name = place.machines()[0]["machine_id"]
            provisioner.stop()
            (tmp_path / "provisioner/ca.key").unlink()
            (block,) = guide.blocks("The CA's key is lost", page=PAGE)
            assert _do(place, guide.without(block, "(umask ")) == RESTARTED
            with place.run() as again:
                again.wait_for("READY=1")
                _refused(program, "it is of a CA that this machine does not know")
                place.token("--uses", "1")
                _connected_again(program)
                (machine,) = place.machines()
                assert (machine["machine_id"], machine["incarnation"]) == (name, 1)


def test_a_machine_that_was_off_for_longer_than_its_certificate_lasts_comes_back_by_any_token(tmp_path: Path) -> None:
    place = site(tmp_path, certificate_days=3 / 86400)
    state = tmp_path / "agent"
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        with agent(state, place.token("--uses", "1"), root=MACHINE) as program:
            _connected(program)
        kept = json.loads((state / "state/identity.json").read_bytes())
        until(lambda: time.time() > kept["kept_at"] + kept["not_after"] - kept["not_before"])
        with agent(state, None, root=MACHINE) as program:  # its token was taken away, as docs/install.md has it
            _refused(program, "Socket closed")
        with agent(state, place.token("--uses", "1"), root=MACHINE) as program:
            _connected(program)
        (machine,) = place.machines()
        assert (machine["machine_id"], machine["incarnation"]) == (kept["machine_id"], 1)
