"""The probes of devices: the PCI tree, network interfaces, RDMA, disks."""

import pytest
from trees import machine

from nodeagent.host import live
from nodeagent.pci import address_in, chain, gigatransfers
from nodeagent.probes import disks, link_vitals, links, pci, pci_links, rdma, rdma_ports

GPU = "sys/devices/pci0000:4e/0000:4e:01.0/0000:4f:00.0/0000:53:00.0"
NIC = "sys/devices/pci0000:4e/0000:4e:01.0/0000:50:00.0"
VIRTIO = "sys/devices/pci0000:00/0000:00:03.0/virtio2"


def on_bus(*paths):
    return {f"sys/bus/pci/devices/{path.rpartition('/')[2]}": f"../../../../{path}" for path in paths}


def test_a_pci_device_comes_with_the_bridges_above_it_and_its_link_at_best(tmp_path):
    said = {"vendor": "0x10de", "device": "0x2330", "subsystem_vendor": "0x10de", "subsystem_device": "0x16c1"}
    said |= {"class": "0x030200", "revision": "0xa1", "numa_node": "1"}
    said |= {"max_link_speed": "32.0 GT/s PCIe", "max_link_width": "16"}
    links_ = {**on_bus(GPU), f"{GPU}/driver": "../../../../../bus/pci/drivers/nvidia"}
    (device,) = pci.probe(machine(tmp_path, {f"{GPU}/{k}": v for k, v in said.items()}, links_)).inventory.pci_devices
    assert device.address == "0000:53:00.0"
    assert list(device.chain) == ["pci0000:4e", "0000:4e:01.0", "0000:4f:00.0"]
    assert (device.vendor_id, device.device_id, device.subsystem_device_id) == (0x10DE, 0x2330, 0x16C1)
    assert (getattr(device, "class"), device.revision, device.driver) == (0x030200, 0xA1, "nvidia")
    assert (device.numa_node, device.max_gigatransfers, device.max_width) == (1, 32.0, 16)
    assert not device.HasField("physical_function")


def test_what_a_pci_device_does_not_know_is_absent(tmp_path):
    said = {"vendor": "garbage", "numa_node": "-1", "max_link_speed": "Unknown", "max_link_width": "255"}
    host = machine(tmp_path, {f"{GPU}/{k}": v for k, v in said.items()}, on_bus(GPU))
    (device,) = pci.probe(host).inventory.pci_devices
    assert [field.name for field, _ in device.ListFields()] == ["address", "chain"]
    assert dict(pci_links.probe(host).vitals.pci_links) == {}


def test_a_virtual_function_names_its_physical_one(tmp_path):
    virtual = NIC.replace("0000:50:00.0", "0000:50:00.2")
    files = {f"{NIC}/vendor": "0x15b3", f"{virtual}/vendor": "0x15b3"}
    host = machine(tmp_path, files, {**on_bus(NIC, virtual), f"{virtual}/physfn": "../0000:50:00.0"})
    found = {device.address: device.physical_function for device in pci.probe(host).inventory.pci_devices}
    assert found == {"0000:50:00.0": "", "0000:50:00.2": "0000:50:00.0"}


def test_a_pci_link_now_is_what_it_runs_at_now(tmp_path):
    files = {f"{GPU}/current_link_speed": "2.5 GT/s PCIe", f"{GPU}/current_link_width": "8"}
    now = pci_links.probe(machine(tmp_path, files, on_bus(GPU))).vitals.pci_links["0000:53:00.0"]
    assert (now.gigatransfers, now.width) == (2.5, 8)


def test_a_pci_path_is_read_through_nested_host_bridges():
    path = "sys/devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0"
    assert chain(path) == ["pci0000:00", "0000:00:0e.0", "pci10000:e0", "10000:e0:06.0"]
    assert address_in(f"{path}/nvme/nvme0") == "10000:e1:00.0"
    assert address_in("sys/devices/virtual/net/lo") is None
    assert [gigatransfers(text) for text in ("32.0 GT/s PCIe", "5 GT/s", "Unknown", None)] == [32.0, 5.0, None, None]


def net(name, device):
    return {f"sys/class/net/{name}": f"../../{device.removeprefix('sys/')}/net/{name}"}


def test_a_network_interface_has_its_name_of_the_kernel_and_its_place_of_sysfs(tmp_path):
    told = [
        {"name": "lo", "kind": None},
        {"name": "eth0", "mac": "02:00:00:00:00:01", "permanent_mac": "0c:42:a1:00:00:01", "mtu": 9000}
        | {"kind": None, "addresses": ["fe80::1/64", "10.0.0.2/24"], "default_route": True, "controller": "bond0"},
        {"name": "bond0", "kind": "bond", "mac": "02:00:00:00:00:01", "addresses": []},
        {"name": "vethab12", "kind": "veth", "mac": "02:00:00:00:00:99"},
    ]
    files = {f"{VIRTIO}/net/eth0/operstate": "up", f"{VIRTIO}/features": "1"}
    where = {f"{VIRTIO}/net/eth0/device": "../../../virtio2", f"{VIRTIO}/driver": "../../../../bus/virtio/virtio_net"}
    host = machine(tmp_path, files, {**where, **net("eth0", VIRTIO)}, {"links": told})
    bond, eth = links.probe(host).inventory.links
    assert (eth.name, eth.mac, eth.permanent_mac) == ("eth0", "02:00:00:00:00:01", "0c:42:a1:00:00:01")
    assert (eth.driver, eth.pci_address, eth.mtu, eth.controller) == ("virtio_net", "0000:00:03.0", 9000, "bond0")
    assert (list(eth.addresses), eth.default_route, eth.HasField("kind")) == (
        ["10.0.0.2/24", "fe80::1/64"],
        True,
        False,
    )
    assert (bond.name, bond.kind, bond.HasField("pci_address"), bond.HasField("driver")) == (
        "bond0",
        "bond",
        False,
        False,
    )


def test_the_dials_of_an_interface_are_those_of_hardware_and_bonds(tmp_path):
    at = f"{VIRTIO}/net/eth0"
    said = {"operstate": "up", "carrier": "1", "speed": "400000", "carrier_up_count": "3", "carrier_down_count": "2"}
    said |= {"statistics/rx_errors": "7", "statistics/tx_errors": "0"}
    bond = "sys/devices/virtual/net"
    files = {f"{at}/{name}": text for name, text in said.items()}
    files |= {f"{bond}/bond0/bonding/mode": "4", f"{bond}/bond0/speed": "-1", f"{bond}/veth1/operstate": "up"}
    where = {f"{at}/device": "../../../virtio2", **net("eth0", VIRTIO)}
    where |= {f"sys/class/net/{name}": f"../../devices/virtual/net/{name}" for name in ("bond0", "veth1")}
    found = link_vitals.probe(machine(tmp_path, files, where)).vitals.links
    eth = found["eth0"]
    assert sorted(found) == ["bond0", "eth0"]
    assert (eth.operational_state, eth.carrier, eth.gigabits) == ("up", True, 400)
    assert (eth.carrier_up_count, eth.carrier_down_count, eth.receive_errors, eth.transmit_errors) == (3, 2, 7, 0)
    assert not found["bond0"].HasField("gigabits")


def test_the_kernel_of_this_host_tells_its_interfaces():
    told = {link["name"]: link for link in live().ask("links")}
    assert "127.0.0.1/8" in told["lo"]["addresses"]
    assert told["lo"]["mac"] == "00:00:00:00:00:00"


HCA = "sys/class/infiniband/mlx5_0"


def hca(folder, files, links_=None):
    port = f"{NIC}/infiniband/mlx5_0"
    tree = {f"{port}/{path}": content for path, content in files.items()}
    where = {HCA: f"../../{port.removeprefix('sys/')}", f"{port}/device": "../../../0000:50:00.0", **(links_ or {})}
    return machine(folder, tree, where)


def test_an_rdma_device_comes_with_its_guids_and_its_ports(tmp_path):
    said = {"node_guid": "a088:c203:0097:b1ee", "sys_image_guid": "a088:c203:0097:b1ee", "fw_ver": "28.39.1002"}
    said |= {"hca_type": "MT4129", "board_id": "MT_0000000838", "ports/1/link_layer": "InfiniBand"}
    said |= {"ports/10/link_layer": "Ethernet", "ports/2/link_layer": "Ethernet"}
    (device,) = rdma.probe(hca(tmp_path, said)).inventory.rdma_devices
    assert (device.name, device.pci_address, device.node_guid) == ("mlx5_0", "0000:50:00.0", "a088:c203:0097:b1ee")
    assert (device.firmware_version, device.model, device.board_id) == ("28.39.1002", "MT4129", "MT_0000000838")
    assert [(port.number, port.link_layer) for port in device.ports] == [
        (1, "InfiniBand"),
        (2, "Ethernet"),
        (10, "Ethernet"),
    ]


def test_the_interfaces_of_a_port_are_those_with_its_number_and_those_of_its_addresses(tmp_path):
    said = {"ports/1/link_layer": "Ethernet", "ports/2/link_layer": "Ethernet", "ports/1/gid_attrs/ndevs/0": "bond0"}
    files = {"../../net/eth0/dev_port": "0", "../../net/eth1/dev_port": "1"}
    (device,) = rdma.probe(hca(tmp_path, {**said, **files})).inventory.rdma_devices
    assert [list(port.links) for port in device.ports] == [["bond0", "eth0"], ["eth1"]]


def test_a_software_device_has_no_place_and_names_its_parent(tmp_path):
    at = "sys/devices/virtual/infiniband/rxe0"
    files = {f"{at}/ports/1/state": "4: ACTIVE", f"{at}/ports/1/link_layer": "Ethernet", f"{at}/parent": "eth0"}
    host = machine(tmp_path, files, {"sys/class/infiniband/rxe0": "../../devices/virtual/infiniband/rxe0"})
    (device,) = rdma.probe(host).inventory.rdma_devices
    assert not device.HasField("pci_address")
    assert list(device.ports[0].links) == ["eth0"]
    assert dict(rdma_ports.probe(host).vitals.rdma_ports["rxe0/1"].counters) == {}


def test_a_port_says_its_state_its_rate_and_what_tells_of_trouble(tmp_path):
    said = {"state": "4: ACTIVE", "phys_state": "5: LinkUp", "rate": "400 Gb/sec (4X NDR)"}
    said |= {"counters/symbol_error": "3", "counters/port_xmit_data": "99", "hw_counters/out_of_sequence": "5"}
    said |= {"counters/link_downed": "garbage"}
    now = rdma_ports.probe(hca(tmp_path, {f"ports/1/{k}": v for k, v in said.items()})).vitals.rdma_ports["mlx5_0/1"]
    assert (now.state, now.physical_state, now.gigabits, now.width_and_rate) == ("ACTIVE", "LinkUp", 400, "4X NDR")
    assert dict(now.counters) == {"symbol_error": 3, "out_of_sequence": 5}


@pytest.mark.parametrize("rate", ["", "garbage", "Gb/sec", "400"])
def test_a_rate_that_makes_no_sense_is_absent(tmp_path, rate):
    now = rdma_ports.probe(hca(tmp_path, {"ports/1/rate": rate, "ports/1/state": ":"})).vitals.rdma_ports["mlx5_0/1"]
    assert now.ListFields() == []


def test_disks_are_whole_and_hardware(tmp_path):
    nvme = f"{GPU}/nvme/nvme0"
    files = {
        f"{nvme}/nvme0n1/size": "7501476528",
        f"{nvme}/nvme0n1/wwid": "eui.0025385b71b0a1f2",
        f"{nvme}/nvme0n1/queue/rotational": "0",
        f"{nvme}/nvme0n1/removable": "0",
        f"{nvme}/model": "SAMSUNG MZWLR3T8HBLS-00007              ",
        f"{nvme}/serial": "S6EWNA0R123456      ",
        f"{nvme}/nvme0c0n1/hidden": "1",
    }
    virtual = {f"sys/devices/virtual/block/{name}/size": "8" for name in ("loop0", "ram1", "zram0", "dm-0", "md127")}
    names = {"sys/block/nvme0n1": f"../devices/{nvme.removeprefix('sys/devices/')}/nvme0n1"}
    names |= {"sys/block/nvme0c0n1": f"../devices/{nvme.removeprefix('sys/devices/')}/nvme0c0n1"}
    names |= {f"sys/block/{path.split('/')[-2]}": f"../{path.removeprefix('sys/')[:-5]}" for path in virtual}
    host = machine(tmp_path, {**files, **virtual}, {**names, f"{nvme}/nvme0n1/device": "../../nvme0"})
    (disk,) = disks.probe(host).inventory.disks
    assert (disk.name, disk.model, disk.serial) == ("nvme0n1", "SAMSUNG MZWLR3T8HBLS-00007", "S6EWNA0R123456")
    assert (disk.wwn, disk.size_bytes, disk.pci_address) == ("eui.0025385b71b0a1f2", 7501476528 * 512, "0000:53:00.0")
    assert (disk.HasField("rotational"), disk.rotational, disk.removable) == (True, False, False)


def test_a_scsi_disk_has_its_serial_on_a_page_of_its_own(tmp_path):
    files = {"sys/block/sda/size": "8", "sys/block/sda/device/vpd_pg80": b"\x00\x80\x00\x08WD-12345"}
    (disk,) = disks.probe(machine(tmp_path, files)).inventory.disks
    assert disk.serial == "WD-12345"
