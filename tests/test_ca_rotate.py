"""One root takes another's place under running programs: `provisioner ca rotate`, and no machine is lost."""

import contextlib
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests import release
from tests.running import BIN, Program, Site, agent, site, until
from tests.yard import Yard, connected, yard

MACHINES = Path(__file__).resolve().parent / "machines"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_rotation_from_start_to_end_loses_no_machine_not_one_that_is_off_and_none_that_comes_meanwhile(
    tmp_path: Path,
) -> None:
    with yard(tmp_path) as here, contextlib.ExitStack() as agents:
        old_token = here.token("old-token", "--uses", "3")
        connected(agents.enter_context(agent(tmp_path / "on", old_token, root=MACHINES / "h100")))
        with agent(tmp_path / "off", old_token, root=MACHINES / "dgx2") as off:
            connected(off)
        before = {one["machine_id"]: one["incarnation"] for one in here.place.machines()}
        here.go_on()
        until(lambda: here.came() == "1 of 2")
        refused = here.ca("rotate", "--yes")
        assert refused.returncode == 1
        assert "1 of 2 machines came with a certificate of the new root; not yet: " in refused.stderr
        assert all(word in refused.stderr for word in ("dgx2 (m-", "admin (admin)", "join token t-"))

        connected(agents.enter_context(agent(tmp_path / "new", old_token, root=MACHINES / "vm")))
        both = here.token("both", "--uses", "1")
        here.new_credential("ada", "admin")
        here.place.bedplate("credential", "revoke", "admin", "--yes")
        agents.enter_context(agent(tmp_path / "off", None, root=MACHINES / "dgx2"))
        until(lambda: here.came() == "3 of 3")
        here.go_on()
        until(lambda: here.place.bedplate("status", check=False).returncode == 0)
        assert here.present()

        here.go_on()
        until(lambda: "1 root is trusted" in here.provisioner.text())
        until(here.present)
        assert before.items() <= {one["machine_id"]: one["incarnation"] for one in here.place.machines()}.items()
        steps = [entry for entry in audit(here.place) if entry["method"] == "provisioner ca rotate"]
        assert [len(json.loads(entry["after"])["roots"]) for entry in steps] == [2, 2, 1]
        assert both.exists()


def audit(place: Site) -> list[dict[str, Any]]:
    return [json.loads(line) for line in place.bedplate("audit", "-o", "jsonl").stdout.splitlines()]


def again_by(token: Path, program: Program, fresh: Path) -> None:
    """Somebody puts another join token in place, and lets the agent read it."""
    token.write_text(fresh.read_text())
    program.said.clear()
    program.process.send_signal(signal.SIGHUP)
    connected(program)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_machine_that_was_away_for_the_whole_rotation_says_so_and_comes_back_by_a_token_as_who_it_was(
    tmp_path: Path,
) -> None:
    with yard(tmp_path) as here:
        token = here.token("token", "--uses", "1")
        with agent(tmp_path / "far", token, root=MACHINES / "dgx2") as far:
            connected(far)
        (before,) = here.place.machines()
        here.go_on()
        here.new_credential("ada", "admin")
        for _ in range(2):
            refused = here.ca("rotate", "--yes", "--lose", "admin", "--lose", "nobody")
            assert "nobody is lost by the next step who is called nobody" in refused.stderr
            here.go_on("--lose", "dgx2", "--lose", "admin")
        until(lambda: "1 root is trusted" in here.provisioner.text())
        with agent(tmp_path / "far", token, root=MACHINES / "dgx2") as far:
            far.wait_for("STATUS=not connected: cannot reach")
            assert "it is of a CA that this machine does not know: give it a join token that is made now" in far.text()
            again_by(token, far, here.token("fresh", "--uses", "1"))
            until(here.present)
        (after,) = here.place.machines()
        assert (after["machine_id"], after["incarnation"]) == (before["machine_id"], before["incarnation"])


def off_for_too_long(place: Site, folder: Path) -> Path:
    """One machine that was let in, and turned off until its certificate was over: the token that it has."""
    long = place.config.read_text()
    place.config.write_text(f"{long}certificate_days = {3 / 86400}\n")
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        token = place.token("--uses", "1").rename(folder.with_suffix(".token"))
        with agent(folder, token, root=MACHINES / "dgx2") as far:
            connected(far)
    place.config.write_text(long)
    kept = json.loads((folder / "state/identity.json").read_bytes())
    until(lambda: time.time() > kept["kept_at"] + kept["not_after"] - kept["not_before"])
    return token


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_machine_that_waits_for_a_person_and_one_that_was_off_for_too_long_are_waited_for_and_not_lost(
    tmp_path: Path,
) -> None:
    place = site(tmp_path, silent_after_s=5)
    far_token = off_for_too_long(place, tmp_path / "far")
    with place.run() as provisioner, contextlib.ExitStack() as agents:
        provisioner.wait_for("READY=1")
        here = Yard(place, provisioner)
        review = here.token("review", "--review", "--uses", "1")
        new = agents.enter_context(agent(tmp_path / "new", review, root=MACHINES / "vm"))
        far_id = here.machine("DGX")["machine_id"]
        until(lambda: len(place.machines()) == 2)
        (new_id,) = {one["machine_id"] for one in place.machines()} - {far_id}
        here.go_on()
        here.new_credential("ada", "admin")
        place.bedplate("credential", "revoke", "admin", "--yes")
        refused = here.ca("rotate", "--yes")
        assert refused.returncode == 1
        assert f"dgx2 ({far_id}, its certificate is over)" in refused.stderr
        assert f"({new_id}, pending)" in refused.stderr
        assert f"bedplate machine accept {new_id} while it is on" in here.ca("show").stdout

        place.bedplate("machine", "accept", new_id)
        connected(new)
        connected(agents.enter_context(agent(tmp_path / "far", far_token, root=MACHINES / "dgx2")))
        until(lambda: here.came() == "2 of 2")
        here.go_on()
        until(lambda: here.provisioner.text().count("2 roots are trusted") == 2)
        here.go_on()
        until(lambda: "1 root is trusted" in here.provisioner.text())
        until(here.present)
        assert {one["machine_id"]: one["incarnation"] for one in place.machines()} == {far_id: 1, new_id: 1}


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_stolen_key_is_worth_nothing_within_seconds_and_machines_come_back_as_who_they_were(tmp_path: Path) -> None:
    with yard(tmp_path) as here:
        token = here.token("token", "--uses", "1")
        with agent(tmp_path / "one", token, root=MACHINES / "dgx2") as one:
            connected(one)
            (before,) = here.place.machines()
            said = here.ca("rotate", "--stolen", "--yes").stderr
            assert f"it will lose dgx2 ({before['machine_id']})" in said
            assert "it will lose admin (admin)" in said
            until(lambda: "of a CA that is trusted no more: enrol it again with a new join token" in one.text())
            assert here.place.bedplate("status", check=False).returncode == 4
            here.new_credential("ada", "admin")
            again_by(token, one, here.token("fresh", "--uses", "1"))
            until(here.present)
            status = json.loads(here.place.bedplate("status", "-o", "json").stdout)
            assert status["broken_off"] == {}, "it was the provisioner that ended its stream"
        (after,) = here.place.machines()
        assert (after["machine_id"], after["incarnation"]) == (before["machine_id"], before["incarnation"])


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_an_agent_of_the_last_release_renews_when_it_is_told_to_and_is_not_lost(tmp_path: Path) -> None:
    old = release.unpacked(tmp_path / "released")
    with yard(tmp_path) as here:
        token = here.token("token", "--uses", "1")
        with agent(tmp_path / "one", token, old, root=MACHINES / "dgx2") as one:
            connected(one)
            here.go_on()
            until(lambda: here.came() == "1 of 1")
            here.new_credential("ada", "admin")
            here.go_on("--lose", "admin")
            here.go_on("--lose", "admin")
            until(lambda: "1 root is trusted" in here.provisioner.text())
            until(here.present)
            assert one.process.poll() is None


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_simulated_machines_take_part_in_it(tmp_path: Path) -> None:
    with yard(tmp_path) as here:
        token, words = here.token("simulated", "--uses", "3"), ["--machines", "3", "--tick", "0.2"]
        command = [str(BIN / "nodeagent"), "simulate", *words, "--state", str(tmp_path / "machines")]
        with subprocess.Popen([*command, "--join-token-file", str(token)], stdout=subprocess.DEVNULL) as simulation:
            try:
                until(lambda: [one["phase"] for one in here.place.machines()] == 3 * ["PHASE_PRESENT"])
                here.go_on()
                until(lambda: here.came() == "3 of 3")
            finally:
                simulation.terminate()
