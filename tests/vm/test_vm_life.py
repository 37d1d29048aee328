"""Both units under a real systemd: ready, busy, hung, stopped, rebooted, cut off."""

import json
from itertools import pairwise
from typing import Any

import pytest

from tests.vm import guide, image
from tests.vm.machine import Machine
from tests.vm.site import CONNECTED, FROM_HERE, PROGRAMS, SINCE, STATUS, known

UNITS = ("nodeagent", "provisioner")
HOLD = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for pid in map(int, sys.argv[1:]):
    for request in 0x4206, 0x4207:  # PTRACE_SEIZE, PTRACE_INTERRUPT: of the main thread, and of no other
        if libc.ptrace(request, pid, None, None):
            raise OSError(ctypes.get_errno(), f"cannot hold {pid}")
print("both are held", flush=True)
try:
    while True:
        os.waitpid(-1, 0x40000000)  # __WALL: who is dead is let go
except ChildProcessError:
    pass
"""
PIP = "/opt/bedplate/bin/pip"  # what the disk has had already


def test_a_virtual_machine_can_be_had_here() -> None:
    assert not image.missing(), image.missing()


def test_the_disk_has_what_the_guide_installs() -> None:
    assert guide.packages() <= set(image.PACKAGES)


@pytest.mark.parametrize("how", ["a cut of power", "a reboot"])
def test_both_come_back_from(bench: Machine, how: str) -> None:
    if how == "a reboot":
        bench.reboot()
    else:
        bench.sh("sync")
        bench.cut_power()
        bench.power_on()
    bench.hears(CONNECTED)
    before, after = known(bench), _shown(bench)
    assert _life(after) == _life(before)
    assert _boot(after) == bench.sh("cat /proc/sys/kernel/random/boot_id").strip() != _boot(before)
    assert bench.sh(PROGRAMS + "bedplate events --machine gpu-01").count("rebooted") == bench.boots


def test_start_returns_when_the_unit_is_ready_and_the_status_line_is_the_tick_s_sentence(bench: Machine) -> None:
    assert bench.sh(f"{STATUS} nodeagent").startswith(f"{CONNECTED}; ")
    assert bench.sh(f"{STATUS} provisioner") == "1 present\n"
    bench.sh("systemctl stop provisioner")
    bench.until(f"{STATUS} nodeagent | grep '^not connected: '")
    assert 'Status: "not connected: ' in bench.sh("systemctl status nodeagent")
    bench.sh("systemctl start provisioner; exec 3<>/dev/tcp/127.0.0.1/7443 4<>/dev/tcp/127.0.0.1/7444")
    assert bench.sh(f"{STATUS} provisioner") != "\n"
    upgrade = guide.without(guide.blocks("Upgrading")[1], PIP)  # it restarts the agent
    bench.sh(PROGRAMS + upgrade + "test -S /run/bedplate/nodeagent.sock")
    assert bench.sh(f"{STATUS} nodeagent") != "\n"
    bench.until(f"{STATUS} nodeagent | grep '^{CONNECTED}; '")
    bench.until(f"{STATUS} provisioner | grep '^1 present'")


def test_a_provisioner_that_cannot_start_says_why_and_is_tried_again_at_a_pace(bench: Machine) -> None:
    bench.sh(f"{FROM_HERE}; cp /etc/bedplate/provisioner.toml ~/good")
    bench.sh("echo 'silent_after = 3' >> /etc/bedplate/provisioner.toml")
    assert bench.run("systemctl", "restart", "provisioner").code != 0
    bench.hears("provisioner.service: Scheduled restart job, restart counter is at 2")
    taker = "import socket, threading; taken = socket.create_server(('0.0.0.0', 7443)); threading.Event().wait()"
    bench.sh(f'systemd-run --quiet --unit=taker python3 -c "{taker}"')
    bench.sh("cp ~/good /etc/bedplate/provisioner.toml")
    bench.hears("provisioner: cannot listen on 0.0.0.0:7443: the port is taken")
    bench.sh("systemctl stop taker")
    bench.hears("Started provisioner.service", CONNECTED)
    said = bench.sh(f"journalctl -o short-unix -u provisioner {SINCE}")
    assert 'unknown key "silent_after"; did you mean "silent_after_s"?' in said
    tries = [float(line.split()[0]) for line in said.splitlines() if "Scheduled restart job" in line]
    assert min(later - before for before, later in pairwise(tries)) >= 2.0
    assert bench.sh("systemctl show -P StartLimitIntervalUSec provisioner nodeagent").split() == ["0", "0"]  # for ever


def test_an_agent_that_cannot_read_its_configuration_says_why_and_comes_back_when_it_can(bench: Machine) -> None:
    bench.sh("echo 'tick = 3' > /etc/bedplate/nodeagent.toml")
    assert bench.run("systemctl", "restart", "nodeagent").code != 0
    bench.hears('unknown key "tick"; did you mean "tick_s"?')
    bench.sh("> /etc/bedplate/nodeagent.toml")
    bench.hears(CONNECTED)


@pytest.mark.longest
def test_what_is_stopped_for_a_minute_is_ended_by_the_watchdog_and_comes_back_as_the_same(bench: Machine) -> None:
    restarts = _restarts(bench)
    bench.sh(f"{FROM_HERE}; systemctl kill --signal=STOP nodeagent provisioner")
    _ended_by_the_watchdog(bench, restarts)


@pytest.mark.longest
def test_what_hangs_in_its_main_loop_is_ended_by_the_watchdog_and_says_where_it_stood(bench: Machine) -> None:
    """As a debugger would hold it: the other threads go on."""
    restarts = _restarts(bench)
    bench.run("tee", "/usr/local/lib/hold.py", given=HOLD)
    pids = " ".join(f"$(systemctl show -P MainPID {unit})" for unit in UNITS)
    bench.sh(f"{FROM_HERE}; systemd-run --quiet --unit=holder python3 /usr/local/lib/hold.py {pids}")
    bench.hears("both are held")
    for said in _ended_by_the_watchdog(bench, restarts):
        assert "Fatal Python error: Aborted" in said
        assert "in run_forever" in said


@pytest.mark.spoils
def test_stop_is_in_order_and_the_goodbye_is_kept(bench: Machine) -> None:
    bench.sh(FROM_HERE)
    _stop(bench, "nodeagent")
    bench.until(PROGRAMS + "bedplate explain gpu-01 | grep 'the agent is stopping: SIGTERM'")
    _stop(bench, "provisioner")
    said = bench.sh(f"journalctl --sync; journalctl -o cat -u nodeagent -u provisioner {SINCE}")
    assert "something hangs" not in said
    assert "State 'stop-sigterm' timed out" not in said


@pytest.mark.spoils
def test_what_is_taken_off_a_host_is_gone(bench: Machine) -> None:
    for block in guide.blocks("Taking it off a host"):
        bench.sh(block)
    ours = "'(' -name '*bedplate*' -o -name 'provisioner*' -o -name 'nodeagent*' ')'"
    assert bench.sh(f"find / -xdev -path /root -prune -o {ours} -print") == ""
    assert bench.sh("systemctl list-units --all --plain --no-legend 'nodeagent*' 'provisioner*'") == ""
    assert bench.run("getent", "passwd", "bedplate").code == 2


def test_reload_reads_the_configuration_again_in_the_same_process(bench: Machine) -> None:
    pid = bench.sh("systemctl show -P MainPID nodeagent")
    bench.sh("echo 'tick_s = 1.0' > /etc/bedplate/nodeagent.toml; systemctl reload nodeagent")
    bench.hears("read /etc/bedplate/nodeagent.toml again")
    assert bench.sh("systemctl show -P MainPID nodeagent") == pid
    assert bench.sh("systemctl is-active nodeagent") == "active\n"
    assert bench.sh(f"{STATUS} nodeagent").startswith(f"{CONNECTED}; ")
    bench.sh("> /etc/bedplate/nodeagent.toml; systemctl reload nodeagent")


def _stop(bench: Machine, unit: str) -> None:
    """In order, and within 5 s by systemd's own clock."""
    bench.sh(f"systemctl stop {unit}")
    shown = bench.sh(f"systemctl show -p Result,ActiveExitTimestampMonotonic,InactiveEnterTimestampMonotonic {unit}")
    said = dict(line.split("=") for line in shown.split())
    assert said["Result"] == "success"
    assert int(said["InactiveEnterTimestampMonotonic"]) - int(said["ActiveExitTimestampMonotonic"]) < 5_000_000


def _restarts(bench: Machine) -> list[int]:
    return [int(count) for count in bench.sh(f"systemctl show -P NRestarts {' '.join(UNITS)}").split()]


def _ended_by_the_watchdog(bench: Machine, restarts: list[int]) -> list[str]:
    """What each unit's journal has once both are back as who they were."""
    bench.hears(*(f"Started {unit}.service" for unit in UNITS), CONNECTED)
    assert [now > before for now, before in zip(_restarts(bench), restarts, strict=True)] == [True, True]
    assert _life(_shown(bench)) == _life(known(bench))
    journals = [bench.sh(f"journalctl --sync; journalctl -o cat -u {unit} {SINCE}") for unit in UNITS]
    assert all("Watchdog timeout" in said for said in journals)
    return journals


def _shown(bench: Machine) -> dict[str, Any]:
    return dict(json.loads(bench.sh(PROGRAMS + "bedplate machine show gpu-01 -o json")))


def _boot(shown: dict[str, Any]) -> str:
    return str(shown["snapshot"]["vitals"]["host"]["boot_id"])


def _life(shown: dict[str, Any]) -> tuple[str, int]:
    return shown["machine"]["machine_id"], shown["machine"]["incarnation"]
