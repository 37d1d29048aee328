"""Connections whose packets are lost and that nobody closed: noticed at both ends, said, and made anew without a loss.

A host that was unplugged, a switch that forwards nothing, a firewall that forgot: TCP alone would wait for hours.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.namespaces import Cable, Namespace, cable, namespace
from tests.running import Program, Site, agent, site, until

MACHINES = Path(__file__).parent / "machines"
ESTABLISHED = "01"
LOST = {"h100": (True, True), "dgx2": (True, False), "vm": (False, True)}  # machine: up, down


@dataclass(frozen=True)
class Host:
    root: Path
    cable: Cable
    program: Program

    @property
    def hostname(self) -> Path:
        return self.root / "proc/sys/kernel/hostname"


@contextlib.contextmanager
def _host(place: Site, hub: Namespace, name: str, number: int, token: Path) -> Iterator[Host]:
    root = place.folder / name / "root"
    shutil.copytree(MACHINES / name, root, symlinks=True)
    with namespace() as spoke:
        line = cable(hub, spoke, number)
        spoke.ip("route", "add", "default", "via", f"10.99.{number}.1")
        with agent(place.folder / name, token, inside=spoke.inside, root=root) as program:
            program.wait_for("STATUS=connected to")
            yield Host(root, line, program)


def _phases(place: Site) -> dict[str, tuple[str, str]]:
    """{'gpu-01': ('silent', 'silent for …')}"""
    return {
        str(one["hostname"]): (str(one["phase"]).removeprefix("PHASE_").lower(), str(one["because"]))
        for one in place.machines()
    }


def _kinds(place: Site) -> list[str]:
    events = json.loads(place.bedplate("events", "-o", "json").stdout)
    return sorted(event["kind"] for event in events if event["kind"] in {"machine.silent", "machine.present"})


def _streams(provisioner: Program, port: int) -> int:
    """Connections to the port, as the kernel counts them; gRPC's sockets are of IPv6, whatever is dialled."""
    tables = [Path(f"/proc/{provisioner.pid}/net/{kind}").read_text().splitlines()[1:] for kind in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == ESTABLISHED for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_lost_packets_are_noticed_at_both_ends_and_nothing_is_lost_with_them(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(namespace())
        hub.ip("address", "add", "10.99.0.1/32", "dev", "lo")
        place = site(tmp_path, host="10.99.0.1", inside=hub.inside, keepalive_s=1, silent_after_s=1)
        provisioner = stack.enter_context(place.run())
        provisioner.wait_for("READY=1")
        token = place.token("--uses", "3")
        hosts = [stack.enter_context(_host(place, hub, name, number, token)) for number, name in enumerate(LOST, 1)]
        until(lambda: [phase for phase, _ in _phases(place).values()] == ["present"] * 3)
        until(lambda: _streams(provisioner, place.port) == 3)
        for host, (up, down) in zip(hosts, LOST.values(), strict=True):
            host.cable.lose(up=up, down=down)
            host.hostname.write_text(f"renamed-{host.cable.number}\n")  # while nobody hears it
        until(lambda: [phase for phase, _ in _phases(place).values()] == ["silent"] * 3)
        assert all("(its stream broke without a goodbye)" in because for _, because in _phases(place).values())
        for host in hosts:
            host.program.said.clear()
            host.program.wait_for("STATUS=not connected: ", limit_s=60)
            host.cable.mend()
        until(lambda: set(_phases(place)) == {"renamed-1", "renamed-2", "renamed-3"}, limit_s=90)
        until(lambda: [phase for phase, _ in _phases(place).values()] == ["present"] * 3)
        assert _kinds(place) == ["machine.present"] * 6 + ["machine.silent"] * 3
        until(lambda: _streams(provisioner, place.port) == 3)
        assert all("on a stream from 10.99." in because for _, because in _phases(place).values())
