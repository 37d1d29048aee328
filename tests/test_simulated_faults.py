"""Simulated machines with every fault, in two processes: what was scheduled is seen at the real provisioner."""

import contextlib
import json
import os
import re
import signal
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from nodeagent.schedule import CHURN, KINDS
from tests.running import BIN, site, until

SEED = "1"  # with it every kind comes within the first minute and a half of the schedule
SCHEDULE = ["--machines", "60", "--seed", SEED, "--faults", "all=1", "--churn", "1", "--hour", "120"]


class Simulation:
    """The program, with what it said so far."""

    def __init__(self, place, *words):
        self.log = place.folder / "simulate.log"
        self.events = place.folder / "events.jsonl"
        state = ["--state", str(place.folder / "simulated"), "--tick", "0.1", "--events", str(self.events)]
        command = [
            str(BIN / "nodeagent"),
            "simulate",
            *words,
            *state,
            "--join-token-file",
            str(place.token("--uses", "0")),
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def text(self):
        return self.log.read_text()

    def told(self):
        """What it says that happened: kind -> the lines."""
        found = defaultdict(list)
        for line in self.events.read_text().splitlines() if self.events.exists() else ():
            event = json.loads(line)
            found[event["fault"]].append(event)
        return found

    def workers(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]


@contextlib.contextmanager
def simulated(place, *words):
    simulation = Simulation(place, *words)
    try:
        yield simulation
    finally:
        simulation.process.kill()
        simulation.process.wait()


def says(events, kind, words=""):
    return any(words in because for because in events[kind])


HOURS = 3000.0  # seconds: the least that a clock is wrong
SEEN = {  # how the provisioner knows of it, by the events of that host and all machines by their hosts' names
    "silence": lambda events, *_: says(events, "machine.silent"),
    "mute": lambda events, *_: says(events, "machine.present"),  # whether it falls silent, its length decides
    "flap": lambda events, *_: says(events, "machine.present"),
    "reboot": lambda events, *_: says(events, "machine.changed", "rebooted"),
    "reimage": lambda events, *_: len(events["machine.asked"]) == 2,
    "clone": lambda events, *_: says(events, "machine.changed", "its inventory changed"),
    "twin": lambda _, name, machines: f"{name}-twin" in machines,
    "skew": lambda _, name, machines: abs(machines[name].get("clock_skew_s", 0.0)) > HOURS,
    "swap": lambda events, *_: says(events, "machine.changed", "its inventory changed"),
    "problem": lambda events, *_: says(events, "machine.problem.appeared"),
    "flicker": lambda events, *_: says(events, "machine.problem.flapping"),
    CHURN: lambda _, name, machines: f"{name}-2" in machines,
}


def unseen(told, place):
    """The kinds that happened, and of which the provisioner knows nothing."""
    events = defaultdict(lambda: defaultdict(list))
    known = {machine["hostname"]: machine for machine in place.machines()}
    for event in json.loads(place.bedplate("events", "-n", "9000", "-o", "json").stdout):
        events[event.get("hostname", "")][event["kind"]].append(event["because"])
    happened = {kind: {event["machine"] for event in told[kind]} for kind in told}
    return [kind for kind, machines in happened.items() if not any(SEEN[kind](events[m], m, known) for m in machines)]


@pytest.mark.slow
@pytest.mark.timeout(170)
def test_every_fault_of_the_schedule_happens_and_is_seen(tmp_path):
    place = site(tmp_path, silent_after_s=2)
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        with simulated(place, *SCHEDULE, "--processes", "2") as simulation:
            until(lambda: set(simulation.told()) == {*KINDS, CHURN}, 90)
            left = {*KINDS, CHURN}

            def all_seen():
                left.intersection_update(unseen(simulation.told(), place))
                return not left

            until(all_seen, 60)
            simulation.process.send_signal(signal.SIGINT)
            assert simulation.process.wait(30) == 0
        assert re.search(r"said goodbye on \d+ streams", simulation.text().splitlines()[-1])
        happened = [event for events in simulation.told().values() for event in events]
    planned = subprocess.run(
        [str(BIN / "nodeagent"), "simulate", *SCHEDULE, "--plan", "1"], capture_output=True, text=True, check=True
    )
    plan = [json.loads(line) for line in planned.stdout.splitlines()]
    assert len(happened) >= len(KINDS)
    assert all({key: event[key] for key in plan[0]} in plan for event in happened)


@pytest.mark.slow
def test_a_process_that_dies_is_said_and_the_others_go_on_and_all_end_with_their_leader(tmp_path):
    place = site(tmp_path)
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        with simulated(place, "--machines", "6", "--processes", "3") as simulation:
            until(lambda: "connected 6" in simulation.text())
            first, *rest = simulation.workers()
            os.kill(first, signal.SIGKILL)
            until(lambda: "connected 4" in simulation.text())
            assert (
                f"process {first} was killed by signal 9: its 2 machines are gone; the others go on"
                in simulation.text()
            )
            os.kill(simulation.process.pid, signal.SIGKILL)
            simulation.process.wait()
            until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in rest), 8)
        until(lambda: "whoever led it is gone" in place.bedplate("explain", "sim1-002").stdout)
