"""Simulated machines: who they are, how their dials move, and that they are real to the provisioner."""

import json
import re
import signal
import subprocess
from random import Random

import pytest

from bedplate.v1.snapshot_pb2 import Vitals
from nodeagent import shipped
from nodeagent.course import WORK_CHANGES, Course
from nodeagent.deadband import moved
from nodeagent.errors import BedplateError
from nodeagent.observe import digest
from nodeagent.scrub import known_in_snapshot
from nodeagent.simulate.box import individual
from nodeagent.simulate.command import captured, main
from nodeagent.simulate.options import options
from tests.running import BIN, site


@pytest.fixture(scope="module")
def models():
    return captured(shipped.names())


def individuals(models, count):
    return [individual(models[sorted(models)[number % 3]], f"sim1-{number:03}") for number in range(count)]


def test_the_same_name_is_the_same_machine_and_another_is_another(models):
    first, again = individuals(models, 9), individuals(models, 9)
    assert first == again
    assert len({digest(snapshot.inventory) for snapshot in first}) == 9
    assert [snapshot.inventory.identity.hostname for snapshot in first] == [f"sim1-00{n}" for n in range(9)]


def test_no_two_machines_share_what_tells_an_individual(models):
    seen = {}
    for snapshot in individuals(models, 9):
        name = snapshot.inventory.identity.hostname
        known = known_in_snapshot(snapshot).items()
        told = [
            value for value, kind in known if kind in ("serial", "mac", "guid", "uuid") and re.search("[1-9a-f]", value)
        ]
        assert snapshot.vitals.host.boot_id in told
        for value in told:
            assert seen.setdefault(value, name) == name


def test_a_machine_is_still_of_its_model(models):
    first = individual(models["h100"], "sim1-001")
    assert [gpu.name for gpu in first.inventory.gpus] == [gpu.name for gpu in models["h100"].inventory.gpus]
    assert first.inventory.topology == models["h100"].inventory.topology
    assert first.vitals.gpus.keys() == {gpu.uuid for gpu in first.inventory.gpus}


def course(models, seed):
    return Course(models["h100"].vitals, Random(seed))  # noqa: S311 - a simulation


def test_the_same_seed_gives_the_same_course(models):
    one, two = course(models, "1/0"), course(models, "1/0")
    assert [one.tick() for _ in range(50)] == [two.tick() for _ in range(50)]


def test_most_ticks_are_no_news_and_a_few_are(models):
    walk, sent, news = course(models, "1/0"), Vitals(), 0
    for _ in range(1200):
        vitals = walk.tick()
        changed, gone = moved(sent, vitals)
        assert not gone
        if changed != Vitals():
            news, sent = news + 1, vitals
    assert 2 <= news <= 1200 * WORK_CHANGES * 4


def test_the_start_is_left_as_it_was(models):
    before = models["h100"].vitals.SerializeToString(deterministic=True)
    course(models, "x").tick()
    assert models["h100"].vitals.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--machines", "0"], "must be 1 to 10000"),
        (["--tick", "soon"], "must be 0.01 to 3600 seconds"),
        (["--models", "cray1"], "no captured machine cray1; there are dgx2, h100, vm"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path, capsys, words, says):
    with pytest.raises(SystemExit, match="2"):
        main(["--state", str(tmp_path), *words])
    assert says in capsys.readouterr().err


def test_more_looks_than_the_host_can_take_are_told_beforehand():
    assert options(["--machines", "2000"]).late(2) == ""
    assert options(["--machines", "10000", "--tick", "120"]).late(2) == ""
    assert options(["--machines", "10000"]).late(2) == (
        "they want 6 processors, and this host has 2 processors: they will be late; try --tick 60"
    )


def test_a_token_that_cannot_be_used_is_said_at_once(tmp_path):
    with pytest.raises(BedplateError, match=r"cannot read the join token: it does not begin with"):
        main(["--state", str(tmp_path / "s"), "--join-token", "garbled"])
    with pytest.raises(BedplateError, match=r"cannot simulate sim1-001: it has no certificate yet; give a join token"):
        main(["--state", str(tmp_path / "s"), "--machines", "1", "--models", "vm"])


def ids(place):
    listed = json.loads(place.bedplate("machines", "-o", "json").stdout)
    machines = listed["machines"] if isinstance(listed, dict) else listed
    return {machine["hostname"]: machine["machine_id"] for machine in machines}


@pytest.mark.slow
def test_they_enrol_speak_and_come_back_as_the_same_machines(tmp_path):
    place = site(tmp_path)
    state = ["--state", str(tmp_path / "simulated"), "--machines", "4", "--tick", "0.2"]
    command = [str(BIN / "nodeagent"), "simulate", *state]
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        token = place.token("--uses", "4")
        once = [*command, "--join-token-file", str(token), "--once"]
        first = subprocess.run(once, capture_output=True, text=True, timeout=40, check=True)
        assert "said goodbye on 4 streams" in first.stdout
        before = ids(place)
        assert sorted(before) == ["sim1-001", "sim1-002", "sim1-003", "sim1-004"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True
        ) as again:  # the token is used up, and not needed
            try:
                for line in again.stdout:
                    if "connected 4" in line:
                        break
                again.send_signal(signal.SIGTERM)
                assert "said goodbye on 4 streams" in again.stdout.read()
                assert again.wait(5) == 0
            finally:
                again.kill()
        assert ids(place) == before
        assert "the simulation is stopping: SIGTERM" in place.bedplate("explain", "sim1-001").stdout
