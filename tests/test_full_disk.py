"""A disk that is full, with the real programs on a real one: said, served through, and nothing acknowledged is lost."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from nodeagent import identity
from tests.compiled import library
from tests.running import BIN, Program, Site, agent, site, toml, until
from tests.small_disk import SmallDisk, small_disk

pytestmark = pytest.mark.slow
MACHINE = Path(__file__).parent / "machines/vm"
FULL = "No space left on device"
PAGE = " ".join(
    (Path(__file__).parents[1] / "docs/operations.md").read_text().split()
)  # what people are told to look for


def test_what_is_printed_is_what_the_page_says() -> None:
    for line in (
        f"cannot write store …: {FULL}; make room on its disk",
        "the store takes what is written again",
        f"cannot write …/identity.json: {FULL}; what was there is still there",
        "cannot write store …: Read-only file system; the kernel's log says why; it is mounted anew, or repaired",
        "disk I/O error; look at its disk and the kernel's log",
        "cannot use state folder …: Read-only file system",
        f"cannot open store …: {FULL}; make room on its disk",
        f"cannot write state folder …: {FULL}",
    ):
        assert f"`{line}`" in PAGE


def _connected(program: Program) -> None:
    program.said.clear()
    program.wait_for("STATUS=connected to")


def _events(place: Site) -> list[str]:
    return [event["kind"] for event in json.loads(place.bedplate("events", "-o", "json").stdout)]


def _tokens(place: Site) -> list[str]:
    return [token["token_id"] for token in json.loads(place.bedplate("token", "list", "-o", "json").stdout)]


def test_a_provisioner_whose_disk_is_full_says_so_serves_on_and_loses_nothing(tmp_path: Path) -> None:
    place = site(tmp_path)
    line = (
        f"cannot write store {tmp_path}/provisioner/bedplate.db: {FULL}; make room on its disk; nothing of this batch"
    )
    with small_disk(tmp_path / "provisioner", "3m") as disk, replace(place, inside=disk.entry).run() as provisioner:
        provisioner.wait_for("READY=1")
        with agent(tmp_path / "agent", place.token("--uses", "1"), root=MACHINE, tick_s=0.2) as program:
            _connected(program)
            until(lambda: bool(place.machines()[0].get("kernel")))
            disk.fill()
            refused = place.bedplate("token", "create", check=False)
            assert refused.returncode != 0
            assert refused.stderr.startswith(f"bedplate: cannot create token: {line}")
            assert provisioner.text().count(line) == 1
            before, tokens = _events(place), _tokens(place)  # reads are answered
            program.process.kill()
            program.process.wait()
        with agent(tmp_path / "agent", None, root=MACHINE, tick_s=0.2) as program:
            until(lambda: f"dismissed: {line}" in program.text())
            disk.empty()
            place.bedplate("token", "create")
            assert "the store takes what is written again" in provisioner.text()
            os.kill(program.pid, signal.SIGHUP)
            _connected(program)
            provisioner.process.kill()
            provisioner.process.wait()
            with replace(place, inside=disk.entry).run() as again:
                again.wait_for("READY=1")
                assert _tokens(place)[1:] == tokens
                assert _events(place)[: len(before)] == before
                assert len(place.machines()) == 1
                _connected(program)


def test_a_provisioner_that_starts_on_a_full_disk_ends_with_a_line_and_starts_once_there_is_room(
    tmp_path: Path,
) -> None:
    place = site(tmp_path)
    with small_disk(tmp_path / "provisioner", "3m") as disk:
        disk.fill()
        command = [*disk.entry, str(BIN / "provisioner"), "--config", str(place.config), "run"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert re.fullmatch(
            rf"provisioner: cannot \w+ store [^\n]*: {FULL}; make room on its disk[^\n]*\n", done.stderr
        )
        disk.empty()
        with replace(place, inside=disk.entry).run() as provisioner:
            provisioner.wait_for("READY=1")
            assert place.machines() == []


def test_init_on_a_full_disk_makes_nothing_by_half_and_goes_on_once_there_is_room(tmp_path: Path) -> None:
    place = site(tmp_path)
    shutil.rmtree(tmp_path / "provisioner")
    with small_disk(tmp_path / "provisioner", "800k") as disk:
        init = [*disk.entry, str(BIN / "provisioner"), "--config", str(place.config), "init"]
        for room_kib in range(0, 800, 40):
            disk.fill((800 - room_kib) << 10)
            done = subprocess.run(init, capture_output=True, text=True, timeout=30, check=False)
            disk.empty()
            if not done.returncode:
                break
            assert re.fullmatch(rf"provisioner: cannot [^\n]*: {FULL}[^\n]*\n", done.stderr)
            assert not (disk.seen / "ca.pem").exists()
        assert 80 < room_kib < 760
        verify = [*init[:-1], "audit", "verify"]
        assert (
            "1 entries: the chain is whole" in subprocess.run(verify, capture_output=True, text=True, check=True).stderr
        )
        left = {"admin", "bedplate.db", "ca.key", "ca.pem"}
        assert {path.name for path in disk.seen.iterdir()} == left


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (
            errno.EROFS,
            "Read-only file system; the kernel's log says why; it is mounted anew, or repaired; nothing of this",
        ),
        (errno.EIO, "disk I/O error; look at its disk and the kernel's log; nothing of this batch was written"),
    ],
)
def test_a_disk_that_goes_bad_under_the_store_is_said_and_served_through(
    tmp_path: Path, number: int, says: str
) -> None:
    place, gone = site(tmp_path), tmp_path / "provisioner.errno"
    preloaded = f"LD_PRELOAD={library(Path(__file__).with_name('failing.c'))}"
    inside = ("/usr/bin/env", preloaded, f"FAILING={tmp_path}/provisioner")
    with replace(place, inside=inside).run() as provisioner:
        provisioner.wait_for("READY=1")
        place.token()
        before = _tokens(place)
        gone.write_text(str(int(number)))
        refused = place.bedplate("token", "create", check=False)
        assert f"cannot write store {tmp_path}/provisioner/bedplate.db: {says}" in refused.stderr
        assert _tokens(place) == before
        gone.unlink()
        place.bedplate("token", "create")
        after = _tokens(place)
        gone.write_text(str(int(number)))
        assert provisioner.stop() == 0
    command = [*inside, str(BIN / "provisioner"), "--config", str(place.config), "run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == f"provisioner: cannot use state folder {tmp_path}/provisioner: {os.strerror(number)}\n"
    gone.unlink()
    with place.run() as again:
        again.wait_for("READY=1")
        assert _tokens(place) == after
        assert after[1:] == before


def test_a_newcomer_on_a_full_disk_asks_for_nothing_that_it_could_not_keep(tmp_path: Path) -> None:
    place = site(tmp_path)
    with place.run() as provisioner, small_disk(tmp_path / "agent" / "state", "200k") as disk:
        provisioner.wait_for("READY=1")
        token = place.token("--uses", "1")
        _kept_out(tmp_path / "agent", disk)
        with agent(tmp_path / "agent", None, inside=disk.entry, root=MACHINE, tick_s=0.2) as program:
            program.wait_for("READY=1")
            disk.fill()
            config = tmp_path / "agent" / "nodeagent.toml"
            config.write_text(config.read_text() + f'join_token_file = "{token}"\n')
            os.kill(program.pid, signal.SIGHUP)
            until(lambda: f"/state/join.key: {FULL}" in program.text())
            assert place.machines() == []
            disk.empty()
            os.kill(program.pid, signal.SIGHUP)
            _connected(program)
        assert [machine["incarnation"] for machine in place.machines()] == [1]


def _kept_out(folder: Path, disk: SmallDisk) -> None:
    """Who is nobody yet does not begin on a full disk."""
    disk.fill()
    config = folder / "nodeagent.toml"
    config.write_text(toml(state=folder / "state", root=MACHINE, socket=""))
    command = [*disk.entry, str(BIN / "nodeagent"), "run", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == f"nodeagent: cannot write state folder {folder}/state: {FULL}\n"
    disk.empty()


def test_an_agent_whose_disk_is_full_reports_on_and_renews_once_there_is_room(tmp_path: Path) -> None:
    place = site(tmp_path, certificate_days=12 / 86400)
    with place.run() as provisioner, small_disk(tmp_path / "agent" / "state", "200k") as disk:
        provisioner.wait_for("READY=1")
        token = place.token("--uses", "1")
        with agent(tmp_path / "agent", token, inside=disk.entry, root=MACHINE, tick_s=0.2) as program:
            _connected(program)
            first = identity.load(disk.seen)
            disk.fill()
            until(lambda: FULL in program.text())
            assert program.said[-1].startswith("STATUS=connected to")
            assert identity.load(disk.seen) == first
            disk.empty()
            until(lambda: os.kill(program.pid, signal.SIGHUP) or identity.load(disk.seen) != first)
        assert [machine["incarnation"] for machine in place.machines()] == [1]
