"""GPUs in a snapshot: what the driver says of them, and what the bus knows better."""

import json
import time
from contextlib import contextmanager

import pytest
from nvml.fake import H100, fake, machine

from bedplate.v1.snapshot_pb2 import NvLink, Problem
from nodeagent.errors import Unanswered
from nodeagent.host import Host
from nodeagent.nvml.client import Client
from nodeagent.probes import EVERYTHING, Frame, gpu_vitals, gpus, nvidia_driver, registry
from nodeagent.root import Root

EIGHT = [f"0000:{bus}:00.0" for bus in ("53", "64", "75", "86", "97", "a8", "b9", "ca")]


def host(folder, answers=None):
    """A host that was captured: its files, and what its doors said."""

    def ask(name):
        if answers is None or name not in answers:
            raise Unanswered("ABSENT", f"cannot ask {name}")
        return json.loads(json.dumps(answers[name]))

    return Host(Root(folder), ask, time.time_ns)


@contextmanager
def live(tmp_path, profile=H100, addresses=EIGHT, **limits):
    """A host whose doors are a real worker with a real library."""
    library = fake(tmp_path / "library", profile)
    root = Root(machine(tmp_path / "machine", addresses))
    client = Client(root, library.library, **limits)
    doors = client.doors()

    def ask(name):
        if name not in doors:
            raise Unanswered("ABSENT", f"cannot ask {name}")
        return doors[name]()

    try:
        yield Host(root, ask, time.time_ns), library
    finally:
        client.close()


def told(snapshot):
    return {(problem.part, Problem.Kind.Name(problem.kind), problem.detail) for problem in snapshot.problems}


def test_the_gpus_of_an_hgx_board_are_in_the_inventory_and_their_dials_in_the_vitals(tmp_path):
    with live(tmp_path) as (it, _):
        inventory = gpus.probe(it).inventory
        vitals = gpu_vitals.probe(it).vitals
    assert [gpu.pci_address for gpu in inventory.gpus] == EIGHT
    assert inventory.nvidia_driver.library_version == "580.105.08"
    first = inventory.gpus[0]
    assert (first.name, first.module_id, first.minor, first.mig) == ("NVIDIA H100 80GB HBM3", 7, 0, False)
    assert not first.HasField("fabric_cluster_uuid"), "a fabric without a cluster belongs to one machine"
    assert {link.remote for link in first.nvlinks} == {NvLink.REMOTE_SWITCH}
    assert not any(link.HasField("remote_pci_address") for link in first.nvlinks)
    assert sorted(vitals.gpus) == [gpu.uuid for gpu in inventory.gpus]
    assert vitals.gpus[first.uuid].watts == 68.92


def test_a_machine_without_gpus_has_none_and_no_problem(tmp_path):
    it = host(tmp_path, {"nvml": {"gpus": []}, "nvml-vitals": {"gpus": []}})
    for probe in (gpus, gpu_vitals, nvidia_driver):
        snapshot = probe.probe(it)
        assert not snapshot.inventory.gpus
        assert not snapshot.inventory.HasField("nvidia_driver")
        assert not snapshot.vitals.gpus
        assert not snapshot.problems


def test_a_gpu_on_the_bus_that_the_driver_does_not_list_is_lost(tmp_path):
    machine(tmp_path, EIGHT[:1])
    assert told(gpus.probe(host(tmp_path, {"nvml": {"gpus": []}}))) == {
        (
            "0000:53:00.0",
            "KIND_LOST",
            "cannot read GPU 0000:53:00.0: it is on the PCI bus, and the driver does not list it",
        )
    }


def test_a_gpu_that_left_the_bus_while_the_driver_holds_it_is_lost(tmp_path):
    (tmp_path / "proc/driver/nvidia/gpus/0000:53:00.0").mkdir(parents=True)
    assert told(gpus.probe(host(tmp_path, {"nvml": {"gpus": []}}))) == {
        (
            "0000:53:00.0",
            "KIND_LOST",
            "cannot read GPU 0000:53:00.0: the driver holds it, and it is no longer on the PCI bus",
        )
    }


def test_a_gpu_that_is_given_to_a_guest_is_named_with_the_driver_that_holds_it(tmp_path):
    machine(tmp_path, EIGHT[:1], driver=False)
    (tmp_path / "sys/bus/pci/devices" / EIGHT[0] / "driver").symlink_to("../../../../bus/pci/drivers/vfio-pci")
    assert told(gpus.probe(host(tmp_path, {"nvml": {"gpus": []}}))) == {
        ("0000:53:00.0", "KIND_ABSENT", "cannot read GPU 0000:53:00.0: vfio-pci holds it, not NVIDIA's driver")
    }


def test_network_cards_bridges_switches_and_virtual_functions_are_no_gpus(tmp_path):
    machine(tmp_path, ["0000:01:00.0", "0000:02:00.0", "0000:03:00.0"], driver=False)
    devices = tmp_path / "sys/bus/pci/devices"
    (devices / "0000:01:00.0/class").write_text("0x068000\n")
    (devices / "0000:02:00.0/vendor").write_text("0x15b3\n")
    (devices / "0000:03:00.0/physfn").symlink_to("../0000:02:00.0")
    assert told(gpus.probe(host(tmp_path, {"nvml": {"gpus": []}}))) == set()


def test_a_lost_gpu_is_a_problem_that_names_its_address_and_the_others_stay(tmp_path):
    with live(tmp_path) as (it, library):
        library.says(f"{H100}fault * 3 15\n")
        snapshot = gpus.probe(it)
        dials = gpu_vitals.probe(it)
    lost = {("0000:86:00.0", "KIND_LOST", "cannot read GPU 0000:86:00.0: it fell off the bus")}
    assert told(snapshot) == lost
    assert len(snapshot.inventory.gpus) == 7
    assert len(dials.vitals.gpus) == 7
    assert told(dials) == set(), "dials are read of the GPUs that the inventory has"


def test_a_field_that_may_not_be_read_is_a_problem_and_absent(tmp_path):
    with live(tmp_path, f"{H100}fault nvmlDeviceGetSerial 0 4\n") as (it, _):
        snapshot = gpus.probe(it)
    assert told(snapshot) == {
        ("0000:53:00.0", "KIND_NO_PERMISSION", "cannot read serial: the driver does not permit it")
    }
    assert not snapshot.inventory.gpus[0].HasField("serial")
    assert snapshot.inventory.gpus[1].serial == "1650000000002"


def test_what_is_not_supported_is_absent_and_not_zero(tmp_path):
    bare = "library 470.1\nmodule 470.1\ncuda 11040\ngpu 0000:53:00.0\nuuid GPU-1\n"
    with live(tmp_path, bare, EIGHT[:1]) as (it, _):
        gpu = gpus.probe(it).inventory.gpus[0]
        dials = gpu_vitals.probe(it).vitals.gpus["GPU-1"]
    assert [field.name for field, _ in gpu.ListFields()] == ["uuid", "pci_address"]
    assert not dials.ListFields()


def test_a_driver_that_hangs_costs_no_other_probe_its_answer(tmp_path):
    with live(tmp_path, f"{H100}fault * * hang\n", deadline_s=0.5) as (it, _):
        (tmp_path / "machine/proc/driver/nvidia/version").write_text("NVRM version: NVIDIA UNIX  580.105.08\n")
        probes = [probe for probe in registry() if probe.name in {"gpus", "gpu_vitals", "nvidia_driver", "pci"}]
        vitals, inventory, driver, pci = Frame(it, probes).look(0.0, EVERYTHING)
    assert [problem.kind for problem in (*inventory.problems, *vitals.problems)] == [Problem.KIND_TIMEOUT] * 2
    first = "cannot ask the NVIDIA driver: its library does not return"
    assert first in {problem.detail for problem in (*inventory.problems, *vitals.problems)}
    assert driver.part.inventory.nvidia_driver.module_version == "580.105.08"
    assert len(pci.part.inventory.pci_devices) == 8


@pytest.mark.parametrize(
    ("text", "version", "is_open"),
    [
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.105.08  Release Build\nGCC version:",
            "580.105.08",
            True,
        ),
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  450.248.02  Fri Jul  7 02:34:56 UTC 2023",
            "450.248.02",
            False,
        ),
        ("NVRM version: something else", "", False),
    ],
)
def test_the_kernel_module_tells_its_version_and_whether_it_is_open(tmp_path, text, version, is_open):
    machine(tmp_path, EIGHT[:1])
    (tmp_path / "proc/driver/nvidia/version").write_text(text)
    driver = nvidia_driver.probe(host(tmp_path)).inventory.nvidia_driver
    assert (driver.module_version, driver.open_module) == (version, is_open)
