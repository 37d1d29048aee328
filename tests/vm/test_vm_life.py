"""Both units under a real systemd: ready, busy, hung, stopped, rebooted, cut off."""

from itertools import pairwise

from tests.vm import guide, image
from tests.vm.machine import Machine
from tests.vm.site import STATUS

UNITS = ("nodeagent", "provisioner")
CONNECTED = "connected to provisioner.example:7443; "


def test_a_virtual_machine_can_be_had_here() -> None:
    assert not image.missing(), image.missing()


def test_the_disk_has_what_the_guide_installs() -> None:
    assert guide.packages() <= set(image.PACKAGES)


def test_start_returns_when_the_unit_is_ready_and_the_status_line_is_the_tick_s_sentence(bench: Machine) -> None:
    assert bench.sh(f"{STATUS} nodeagent").startswith(CONNECTED)
    assert bench.sh(f"{STATUS} provisioner") == "1 present\n"
    bench.sh("systemctl stop provisioner")
    bench.until(f"{STATUS} nodeagent | grep '^not connected: '")
    assert 'Status: "not connected: ' in bench.sh("systemctl status nodeagent")
    bench.sh("systemctl start provisioner; exec 3<>/dev/tcp/127.0.0.1/7443 4<>/dev/tcp/127.0.0.1/7444")
    assert bench.sh(f"{STATUS} provisioner") != "\n"
    bench.sh("systemctl restart nodeagent; test -S /run/bedplate/nodeagent.sock")
    assert bench.sh(f"{STATUS} nodeagent") != "\n"
    _connected(bench)
    bench.until(f"{STATUS} provisioner | grep '^1 present'")


def test_a_provisioner_that_cannot_start_says_why_and_is_tried_again_at_a_pace(bench: Machine) -> None:
    bench.sh("cp /etc/bedplate/provisioner.toml ~/good; echo 'silent_after = 3' >> /etc/bedplate/provisioner.toml")
    assert bench.run("systemctl", "restart", "provisioner").code != 0
    bench.until(_said("provisioner", 'unknown key "silent_after"; did you mean "silent_after_s"?'))
    bench.until("test $(systemctl show -P NRestarts provisioner) -ge 2")
    assert bench.sh("systemctl show -P StartLimitIntervalUSec provisioner nodeagent").split() == ["0", "0"]  # for ever
    starts = [float(line.split()[0]) for line in bench.sh(_scheduled("provisioner")).splitlines()]
    assert min(later - before for before, later in pairwise(starts)) >= 2.0
    bench.sh("systemctl stop provisioner; cp ~/good /etc/bedplate/provisioner.toml")
    taker = "import socket, threading; taken = socket.create_server(('0.0.0.0', 7443)); threading.Event().wait()"
    bench.sh(f'systemd-run --unit=taker python3 -c "{taker}"')
    bench.until("(exec 3<>/dev/tcp/127.0.0.1/7443)")
    assert bench.run("systemctl", "start", "provisioner").code != 0
    bench.until(_said("provisioner", "cannot listen on 0.0.0.0:7443: the port is taken"))
    bench.sh("systemctl stop taker")
    bench.until("systemctl is-active provisioner")
    _connected(bench)


def test_an_agent_that_cannot_read_its_configuration_says_why_and_comes_back_when_it_can(bench: Machine) -> None:
    bench.sh("echo 'tick = 3' > /etc/bedplate/nodeagent.toml")
    assert bench.run("systemctl", "restart", "nodeagent").code != 0
    bench.until(_said("nodeagent", 'unknown key "tick"; did you mean "tick_s"?'))
    bench.sh("> /etc/bedplate/nodeagent.toml")
    _connected(bench)


def _connected(bench: Machine) -> None:
    bench.until(f"{STATUS} nodeagent | grep '^{CONNECTED}'", limit_s=300)


def _said(unit: str, sentence: str) -> str:
    return f"journalctl --sync; journalctl -o cat -u {unit} | grep -F '{sentence}'"


def _scheduled(unit: str) -> str:
    return f"journalctl --sync; journalctl -o short-unix -u {unit} | grep 'Scheduled restart job'"
