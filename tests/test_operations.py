"""What docs/operations.md tells people to do, done: with the real programs, step by step as the page has it."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.running import Program, agent, site, until

pytestmark = pytest.mark.slow
MACHINE = Path(__file__).parent / "machines/h100"


def _connected(program: Program) -> None:
    program.said.clear()
    program.wait_for("STATUS=connected to")


def _refused(program: Program, because: str) -> None:
    until(lambda: because in program.text())


def test_a_backup_that_is_older_than_the_machines_is_restored(tmp_path: Path) -> None:
    place = site(tmp_path)
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        with agent(tmp_path / "agent", place.token("--uses", "1"), root=MACHINE) as program:
            _connected(program)
            provisioner.stop()
            shutil.copytree(tmp_path / "provisioner", tmp_path / "backup")
            for _ in range(2):
                with place.run() as again:
                    again.wait_for("READY=1")
                    _connected(program)
            shutil.rmtree(tmp_path / "provisioner")
            shutil.copytree(tmp_path / "backup", tmp_path / "provisioner")
            with place.run() as restored:
                restored.wait_for("READY=1")
                _refused(program, "this machine obeys epoch 3, and this provisioner is of epoch 2")
            with place.run() as restored:  # each start is an epoch more
                restored.wait_for("READY=1")
                _connected(program)


def test_a_ca_that_was_lost_is_begun_anew(tmp_path: Path) -> None:
    place = site(tmp_path)
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        with agent(tmp_path / "agent", place.token("--uses", "1"), root=MACHINE) as program:
            _connected(program)
            name = place.machines()[0]["machine_id"]
            provisioner.stop()
            for secret in ("ca.key", "ca.pem"):
                (tmp_path / "provisioner" / secret).rename(tmp_path / secret)
            place.initialise()
            with place.run() as again:
                again.wait_for("READY=1")
                _refused(program, "it is of a CA that this machine does not know")
                place.token("--uses", "1")
                program.process.send_signal(signal.SIGHUP)
                _connected(program)
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
