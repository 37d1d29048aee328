"""Scrubbing: nothing that tells an individual is left anywhere, and all that a capture is of use for is."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from trees import machine

from bedplate.v1.snapshot_pb2 import Snapshot
from nodeagent.capture import capture, write
from nodeagent.host import live, replayed
from nodeagent.observe import scan
from nodeagent.scrub import PATTERNS, Scrubber, disguise, known_in_snapshot
from nodeagent.standin import PLACEHOLDER, stand_in

MACHINES = Path(__file__).parent / "machines"
NIC = "sys/devices/pci0000:4e/0000:4e:01.0/0000:50:00.0"
DISK = "sys/devices/pci0000:4e/0000:4e:02.0/0000:51:00.0/nvme/nvme0"
FILES = {
    "etc/machine-id": "3d1219c7c4c5404aaa1f6d2a48adfda4\n",
    "proc/sys/kernel/hostname": "gpu-rack7-03\n",
    "proc/sys/kernel/random/boot_id": "339105a7-4475-4b1f-b3f4-ea00bc6e1a3f\n",
    "proc/loadavg": "0.52 0.58 0.59 1/467 12345\n",
    "proc/cmdline": (
        "root=UUID=7c1f9a52-41c5-4a1e-9d2e-0a1b2c3d4e5f BOOTIF=01-a0-88-c2-97-b1-ee hostname=gpu-rack7-03.example.com "
        "ip=198.51.100.7::198.51.100.1:255.255.255.0:gpu-rack7-03:eth0 url=http://boot.dc1.example.com/x "
        "nfsroot=203.0.113.9:/export ip6=2001:db8:7::42 serial=J400ABC12345 driver=1.2.3\n"
    ),
    "sys/class/dmi/id/product_serial": "J400ABC12345\n",
    "sys/class/dmi/id/board_serial": "9\n",
    "sys/class/dmi/id/chassis_serial": "To be filled by O.E.M.\n",
    "sys/class/dmi/id/product_uuid": "4C4C4544-0034-3010-8054-B7C04F503733\n",
    "sys/class/dmi/id/product_name": "PowerEdge XE9680\n",
    f"{NIC}/vendor": "0x15b3",
    f"{NIC}/infiniband/mlx5_0/node_guid": "a088:c203:0097:b1ee\n",
    f"{NIC}/infiniband/mlx5_0/fw_ver": "28.39.1002\n",
    f"{NIC}/infiniband/mlx5_0/ports/1/link_layer": "Ethernet\n",
    f"{NIC}/net/enxa088c297b1ee/dev_port": "0\n",
    f"{NIC}/net/enxa088c297b1ee/operstate": "up\n",
    f"{DISK}/serial": "S6EWNA0R123456\n",
    f"{DISK}/model": "SAMSUNG MZWLR3T8HBLS-00007\n",
    f"{DISK}/nvme0n1/size": "7501476528\n",
    f"{DISK}/nvme0n1/wwid": "nvme.144d-533645574e413052313233343536-53414d53554e47-00000001\n",
}
LINKS = {
    "sys/bus/pci/devices/0000:50:00.0": f"../../../../{NIC}",
    "sys/class/infiniband/mlx5_0": f"../../{NIC.removeprefix('sys/')}/infiniband/mlx5_0",
    "sys/class/net/enxa088c297b1ee": f"../../{NIC.removeprefix('sys/')}/net/enxa088c297b1ee",
    f"{NIC}/infiniband/mlx5_0/device": "../../../0000:50:00.0",
    f"{NIC}/net/enxa088c297b1ee/device": "../../../0000:50:00.0",
    "sys/block/nvme0n1": f"../{DISK.removeprefix('sys/')}/nvme0n1",
    f"{DISK}/nvme0n1/device": "../../nvme0",
}
LINK = {"name": "enxa088c297b1ee", "mac": "a0:88:c2:97:b1:ee", "permanent_mac": "a0:88:c2:97:b1:ee", "mtu": 9000}
GPU = {"uuid": "GPU-8f3c2b1a-1234-5678-9abc-def012345678", "pci_address": "0000:53:00.0", "serial": "1650924012345"}
ANSWERS = {
    "links": [{**LINK, "addresses": ["198.51.100.7/24", "2001:db8:7::42/64", "fe80::a288:c2ff:fe97:b1ee/64"]}],
    "nvml": {"gpus": [{**GPU, "name": "NVIDIA H100 80GB HBM3", "vbios_version": "96.00.74.00.01"}]},
    "uname": {"hostname": "gpu-rack7-03", "kernel": "6.12.51", "architecture": "x86_64"},
    "filesystems": [{"mount": "/", "device": "/dev/disk/by-id/nvme-S6EWNA0R123456", "size_bytes": 1}],
}
TELLING = (
    "3d1219c7c4c5404aaa1f6d2a48adfda4",
    "gpu-rack7-03",
    "339105a7-4475-4b1f-b3f4-ea00bc6e1a3f",
    "J400ABC12345",
    "198.51.100.",
    "203.0.113",
    "7c1f9a52-41c5-4a1e-9d2e-0a1b2c3d4e5f",
    "a0-88-c2-97-b1-ee",
    "example.com",
    "2001:db8",
    "4c4c4544",
    "b7c04f503733",
    "a088:c203",
    "97:b1:ee",
    "a088c297b1ee",
    "a288:c2ff",
    "S6EWNA0R123456",
    "533645574e41305231",
    "8f3c2b1a",
    "def012345678",
    "1650924012345",
)


def tree(folder):
    """All names, link targets and contents below a folder, as one text in lower case."""
    words = []
    for path in sorted(folder.rglob("*")):
        words.append(str(path.relative_to(folder)))
        if path.is_symlink():
            words.append(str(path.readlink()))
        elif path.is_file():
            words.append(path.read_text("latin-1"))
    return "\n".join(words).lower()


@pytest.fixture
def told(tmp_path):
    """The capture of a telling machine as it is, and scrubbed."""
    host = machine(tmp_path / "host", FILES, LINKS, ANSWERS)
    for name, scrub in (("plain", False), ("scrubbed", True)):
        write(capture(host, scrub=scrub, salt="a grain"), tmp_path / name)
    return tmp_path / "plain", tmp_path / "scrubbed"


def test_nothing_that_tells_the_machine_is_left_in_any_name_or_byte(told):
    plain, scrubbed = (tree(folder) for folder in told)
    assert [value for value in TELLING if value.lower() not in plain] == []
    assert [value for value in TELLING if value.lower() in scrubbed] == []


def test_no_identifier_of_any_shape_is_in_both(told):
    plain, scrubbed = (tree(folder) for folder in told)
    for _, pattern in PATTERNS:
        found = {match[0] for match in re.finditer(pattern, plain)}
        assert [value for value in found & set(re.findall(pattern, scrubbed)) if not PLACEHOLDER.fullmatch(value)] == []


def test_no_identifier_of_a_snapshot_is_left_in_the_scrubbed_one(told):
    plain, scrubbed = (scan(replayed(folder)) for folder in told)
    before = {value for value in known_in_snapshot(plain) if not PLACEHOLDER.fullmatch(value)}
    assert len(before) >= 14
    assert before & set(known_in_snapshot(scrubbed)) == set()


def test_a_scrubbed_machine_is_built_as_it_was(told):
    plain, scrubbed = (scan(replayed(folder)).inventory for folder in told)
    assert scrubbed.identity.product == "PowerEdge XE9680"
    assert scrubbed.identity.chassis_serial == "To be filled by O.E.M."
    assert scrubbed.rdma_devices[0].firmware_version == "28.39.1002"
    assert scrubbed.gpus[0].vbios_version == "96.00.74.00.01"
    assert list(scrubbed.pci_devices) == list(plain.pci_devices)
    assert [disk.model for disk in scrubbed.disks] == [disk.model for disk in plain.disks]
    assert "255.255.255.0" in scrubbed.os.command_line
    assert "driver=1.2.3" in scrubbed.os.command_line


def test_what_belonged_together_still_does(told):
    scrubbed = scan(replayed(told[1])).inventory
    link, device, disk = scrubbed.links[0], scrubbed.rdma_devices[0], scrubbed.disks[0]
    digits = link.mac.replace(":", "")
    assert link.name == f"enx{digits}" == device.ports[0].links[0]
    assert device.node_guid.replace(":", "") == f"{digits[:6]}0300{digits[6:]}"
    assert f"fe80::{int(digits[:4], 16) ^ 0x200:x}" in " ".join(link.addresses)
    assert disk.serial.encode().hex() in disk.wwn
    assert f"BOOTIF=01-{link.mac.replace(':', '-')}" in scrubbed.os.command_line
    assert f"hostname={scrubbed.identity.hostname}." in scrubbed.os.command_line
    assert f"serial={scrubbed.identity.product_serial}" in scrubbed.os.command_line
    address = next(address for address in link.addresses if "." in address).partition("/")[0]
    assert f"ip={address}::{address.rpartition('.')[0]}." in scrubbed.os.command_line


def test_the_same_salt_gives_the_same_machine_and_another_salt_another(tmp_path):
    host = machine(tmp_path / "host", FILES, LINKS, ANSWERS)
    one, same, other = (capture(host, scrub=True, salt=salt).files for salt in ("a", "a", "b"))
    assert one == same
    assert one["etc/machine-id"] != other["etc/machine-id"]


def test_without_a_salt_no_two_scrubbings_are_alike(tmp_path):
    host = machine(tmp_path / "host", FILES, LINKS, ANSWERS)
    one, other = (capture(host, scrub=True).files for _ in range(2))
    assert one["etc/machine-id"] != other["etc/machine-id"]


def test_this_host_is_scrubbed_and_still_replays(tmp_path):
    write(capture(live(), scrub=False), tmp_path / "plain")
    write(capture(replayed(tmp_path / "plain"), scrub=True), tmp_path / "scrubbed")
    known = known_in_snapshot(scan(replayed(tmp_path / "plain")))
    left = tree(tmp_path / "scrubbed")
    assert [value for value in known if len(value) >= 8 and value.lower() in left and not same(value)] == []
    plain, scrubbed = (scan(replayed(tmp_path / name)).inventory for name in ("plain", "scrubbed"))
    assert list(scrubbed.pci_devices) == list(plain.pci_devices)


def same(value):
    """Whether there is nothing to hide: loopback, zeros, placeholders."""
    return any(stand_in(kind, value, "salt") == value for kind in ("ip", "serial"))


def test_a_host_that_is_called_like_a_part_of_itself_still_replays(tmp_path):
    files = {"proc/sys/kernel/hostname": "node0", "sys/devices/system/node/node0/cpulist": "0-3"}
    taken = capture(machine(tmp_path / "host", files, answers={"uname": {"hostname": "node0"}}), scrub=True)
    write(taken, tmp_path / "machine")
    inventory = scan(replayed(tmp_path / "machine")).inventory
    assert inventory.numa_nodes[0].cpus == "0-3"
    assert inventory.identity.hostname not in {"", "node0"}
    assert "node0" not in json.loads(taken.files["answers/uname.json"]).values()


def test_bytes_that_are_not_utf_8_come_through(tmp_path):
    files = {"proc/cmdline": b"\xff\xfe mac=a0:88:c2:97:b1:ee\n"}
    data = capture(machine(tmp_path, files, answers={"uname": {}}), scrub=True).files["proc/cmdline"]
    assert data.startswith(b"\xff\xfe mac=")
    assert b"97:b1:ee" not in data


@pytest.mark.parametrize(
    ("kind", "value", "shape"),
    [
        ("mac", "a0:88:c2:97:b1:ee", r"([0-9a-f]{2}:){5}[0-9a-f]{2}"),
        ("mac", "A0-88-C2-97-B1-EE", r"([0-9A-F]{2}-){5}[0-9A-F]{2}"),
        ("guid", "a088:c203:0097:b1ee", r"([0-9a-f]{4}:){2}[0-9a-f]{4}:[0-9a-f]{4}"),
        ("uuid", "GPU-8f3c2b1a-1234-5678-9abc-def012345678", r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        ("uuid", "3d1219c7c4c5404aaa1f6d2a48adfda4", r"[0-9a-f]{32}"),
        ("ip", "10.1.2.3/24", r"10\.\d+\.\d+\.\d+/24"),
        ("ip", "2001:db8::1/64", r"fd[0-9a-f:]+::1/64"),
        ("hostname", "gpu-03.example.com", r"h\w+\.h\w+\.h\w+"),
        ("serial", "S6EWNA0R-12", r"[A-Z]\d[A-Z]{4}\d[A-Z]-\d\d"),
        ("wwn", "eui.0025385b71b0a1f2", r"eui\.[0-9a-f]{16}"),
        ("wwn", "naa.5000C500A1B2C3D4", r"naa\.[0-9A-F]{16}"),
    ],
)
def test_a_stand_in_has_the_shape_of_what_it_stands_for(kind, value, shape):
    other = stand_in(kind, value, "salt")
    assert re.fullmatch(shape, other)
    assert other != value
    assert other == stand_in(kind, value, "salt") != stand_in(kind, value, "pepper")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("mac", "00:00:00:00:00:00"),
        ("mac", "ff:ff:ff:ff:ff:ff"),
        ("guid", "0000:0000:0000:0000"),
        ("uuid", "00000000-0000-0000-0000-000000000000"),
        ("ip", "127.0.0.1/8"),
        ("ip", "::1/128"),
        ("ip", "0.0.0.0"),  # noqa: S104 - not to be bound to
        ("ip", "not an address"),
        ("hostname", "localhost"),
        ("serial", "To be filled by O.E.M."),
        ("serial", "N/A"),
        ("serial", ""),
    ],
)
def test_what_tells_nothing_stays(kind, value):
    assert stand_in(kind, value, "salt") == value


def test_a_kind_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="no stand-ins of kind colour"):
        stand_in("colour", "red", "salt")


def test_no_two_hardware_addresses_of_a_maker_fall_together():
    macs = [
        f"a0:88:c2:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}" for number in range(0, 1 << 24, 4099)
    ]
    others = [stand_in("mac", mac, "salt") for mac in macs]
    assert len(set(others)) == len(macs)
    assert {other[:8] for other in others} == {others[0][:8]}


def test_neighbouring_hardware_addresses_stay_neighbours():
    one, two = (int(stand_in("mac", f"a0:88:c2:97:b1:e{end}", "salt").replace(":", ""), 16) for end in "01")
    assert two - one == 1


def test_a_value_too_plain_to_look_for_is_left_alone_in_other_text():
    scrubber = Scrubber({"7": "serial", "memory": "serial", "12345": "serial"}, "salt")
    assert scrubber.text("7 of memory 12345") == "7 of memory 12345"


def test_a_disguise_is_another_individual_of_the_same_model():
    model = scan(replayed(MACHINES / "h100"))
    before = Snapshot()
    before.CopyFrom(model)
    one, other = (disguise(model, salt) for salt in ("one", "other"))
    assert model == before
    values = [set(known_in_snapshot(snapshot)) for snapshot in (model, one, other)]
    assert all({v for v in a & b if not PLACEHOLDER.fullmatch(v)} == set() for a, b in pairwise(values))
    assert len(values[1]) == len(values[0])
    assert one.inventory.topology == model.inventory.topology
    assert list(one.inventory.pci_devices) == list(model.inventory.pci_devices)
    assert {gpu.uuid for gpu in one.inventory.gpus} == set(one.vitals.gpus)
    assert one == disguise(model, "one")
