"""What the units let through: the probes see all that they need, and the journal gets its fields."""

import json
from typing import Any

import pytest

from tests.vm.machine import Machine
from tests.vm.site import CONNECTED, FROM_HERE, PROGRAMS, SINCE, STATUS, known

SOFT_RDMA = """
modprobe -a crc32_generic rdma_rxe dummy
ip link add cable0 type dummy; ip link set cable0 address 52:54:00:be:d0:02 up; ip address add 192.0.2.1/24 dev cable0
rdma link add rxe0 type rxe netdev cable0
"""


@pytest.mark.spoils
def test_the_agent_sees_under_its_unit_what_root_sees_without_one(bench: Machine) -> None:
    """With a disk that is plugged in and an RDMA port that comes up while it runs."""
    bench.plug_in_nvme()
    bench.sh(SOFT_RDMA)
    bench.until("test -b /dev/nvme0n1")
    bench.until(PROGRAMS + "nodeagent snapshot -o json > outside.json; ! grep TIMEOUT outside.json")  # on a busy host
    bench.until(
        PROGRAMS + "bedplate machine show gpu-01 -o json > shown.json; grep -q BENCH-NVME shown.json;"
        " grep -q '\"rxe0/1\"' shown.json"  # its dials come last
    )
    inside = json.loads(bench.sh("cat ~/shown.json"))["snapshot"]
    outside = json.loads(bench.sh("cat ~/outside.json"))
    for snapshot in (inside, outside):
        del snapshot["inventory"]["topology"]  # computed from the rest
    assert _said(inside["inventory"]) == _said(outside["inventory"])
    assert not inside.get("problems")
    assert not outside.get("problems")
    assert _said(inside["vitals"]).keys() == _said(outside["vitals"]).keys()
    assert "permi" not in json.dumps(inside).lower()
    disk = next(disk for disk in inside["inventory"]["disks"] if disk["serial"] == "BENCH-NVME")
    devices = {device["address"]: device for device in inside["inventory"]["pci_devices"]}
    assert devices[disk["pci_address"]]["numa_node"] == 1


@pytest.mark.spoils
def test_the_journal_can_be_searched_by_machine_and_has_no_secrets(bench: Machine) -> None:
    """The provisioner has something to say of the machine too: to it, a hello each 25 s is fast."""
    bench.sh(f"{FROM_HERE}; systemctl stop provisioner")
    bench.until(f"{STATUS} nodeagent | grep '^not connected: '")
    bench.sh(
        "echo 'machine_messages_per_s = 0.04' >> /etc/bedplate/provisioner.toml; systemctl start provisioner;"
        " echo nonsense > /etc/bedplate/nodeagent.toml; systemctl reload nodeagent"
    )
    bench.hears("the old configuration stays", CONNECTED, "and is read more slowly")
    machine = known(bench)["machine"]["machine_id"]
    entries = _entries(bench.sh(f"journalctl --sync; journalctl -o json {SINCE} MACHINE_ID_BEDPLATE={machine}"))
    assert {(entry["_SYSTEMD_UNIT"], entry["SYSLOG_IDENTIFIER"]) for entry in entries} == {
        ("nodeagent.service", "nodeagent"),
        ("provisioner.service", "provisioner"),
    }
    priorities = {entry["PRIORITY"] for entry in entries if "the old configuration stays" in entry["MESSAGE"]}
    assert priorities == {"3"}
    assert {entry["PRIORITY"] for entry in entries if entry["MESSAGE"].startswith("connected to ")} == {"6"}
    (slow,) = [entry for entry in entries if entry["_SYSTEMD_UNIT"] == "provisioner.service"]
    assert slow["MESSAGE"] == f"machine {machine} sends faster than it may, and is read more slowly"
    assert (slow["PRIORITY"], slow["CODE_FUNC"], slow["_TRANSPORT"]) == ("4", "_slow_down", "journal")
    theirs = _entries(bench.sh(f"journalctl -o json {SINCE} -u provisioner _COMM=provisioner"))
    assert {entry["PRIORITY"] for entry in theirs if entry["MESSAGE"] != slow["MESSAGE"]} == {"6"}
    assert {entry["_TRANSPORT"] for entry in theirs} == {"journal"}
    assert not [entry for entry in theirs if entry["MESSAGE"].startswith("<")]
    token = bench.sh("cat ~/join-token").strip()
    everything = bench.sh("journalctl -o json --all")
    assert token not in everything
    assert "PRIVATE KEY" not in everything


def _said(part: Any) -> Any:
    """Without what is empty or zero: one of the two programs writes it out, the other one does not."""
    match part:
        case dict():
            return {
                name: said for name, value in part.items() if (said := _said(value)) not in ({}, [], "", "0", 0, False)
            }
        case list():
            return [_said(one) for one in part]
        case _:
            return part


def _entries(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
