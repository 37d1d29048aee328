"""The NVML worker and its client: the real process and a library that knows eight H100."""

import json
import threading
from pathlib import Path

import pytest
from nvml.asked import EIGHT, client, silent
from nvml.fake import H100, machine

from nodeagent.nvml.client import Client
from nodeagent.nvml.presence import normal
from nodeagent.root import Root


def test_eight_gpus_answer_with_all_that_their_driver_knows(tmp_path):
    with client(tmp_path) as (asker, _):
        answer = asker.inventory()
    assert answer["driver"] == {"library_version": "580.105.08", "cuda_version": "13.0"}
    assert [gpu["pci_address"] for gpu in answer["gpus"]] == EIGHT
    gpu = answer["gpus"][3]
    links = gpu.pop("nvlinks")
    assert gpu == {
        "pci_address": "0000:86:00.0",
        "uuid": "GPU-00000003-0000-0000-0000-000000000003",
        "name": "NVIDIA H100 80GB HBM3",
        "serial": "1650000000004",
        "architecture": "Hopper",
        "compute_capability": "9.0",
        "memory_bytes": 81559 << 20,
        "vbios_version": "96.00.99.00.01",
        "board_part_number": "965-2G520-A800-000",
        "module_id": 8,
        "minor": 3,
        "ecc": True,
        "mig": False,
    }
    assert len(links) == 18
    assert links[17] == {"number": 17, "active": True, "version": 6, "remote": "switch"}


def test_the_dials_of_eight_gpus_are_one_question(tmp_path):
    with client(tmp_path) as (asker, _):
        asker.inventory()
        gpus = asker.vitals()["gpus"]
    assert [gpu["pci_address"] for gpu in gpus] == EIGHT
    assert gpus[0] == {
        "pci_address": "0000:53:00.0",
        "uuid": "GPU-00000000-0000-0000-0000-000000000000",
        "celsius": 29.0,
        "watts": 68.92,
        "memory_used_bytes": 0,
        "utilization_percent": 0.0,
        "ecc_corrected_volatile": 0,
        "ecc_uncorrected_volatile": 0,
        "row_remap_pending": False,
        "row_remap_failed": False,
        "recovery_action": "none",
        "clocks_event_reasons": 1,
        "pcie_replays": 150,
        "fabric_state": "completed",
        "nvlinks_active": 18,
    }


def test_the_dials_follow_the_hardware(tmp_path):
    with client(tmp_path) as (asker, library):
        asker.inventory()
        worn = H100.replace("recovery 0", "recovery 4").replace("row_remap_pending 0", "row_remap_pending 1")
        library.says(worn + "celsius 91\nnvlink_down 7\necc_uncorrected 2\n")
        gpus = asker.vitals()["gpus"]
    assert [gpu["recovery_action"] for gpu in gpus] == ["drain-and-reset"] * 8
    assert gpus[7]["row_remap_pending"] is True
    assert [gpu["nvlinks_active"] for gpu in gpus] == [18] * 7 + [17]


def test_two_questions_in_a_row_go_to_the_same_worker(tmp_path):
    with client(tmp_path) as (asker, _):
        asker.inventory()
        first = asker.pid()
        asker.vitals()
        asker.inventory()
        assert first is not None
        assert asker.pid() == first


def test_a_machine_without_a_gpu_gets_no_worker_and_no_problem(tmp_path):
    asker = Client(Root(machine(tmp_path, [])))
    assert asker.inventory() == {"gpus": []}
    assert asker.vitals() == {"gpus": []}
    assert asker.pid() is None


def test_a_gpu_that_another_driver_holds_is_not_asked_for(tmp_path):
    bus = machine(tmp_path, EIGHT[:1], driver=False) / "sys/bus/pci/devices" / EIGHT[0]
    (bus / "driver").symlink_to("../../../../bus/pci/drivers/vfio-pci")
    asker = Client(Root(tmp_path))
    assert asker.inventory() == {"gpus": []}
    assert asker.pid() is None


def test_what_a_gpu_does_not_support_is_left_out(tmp_path):
    bare = "library 470.1\nmodule 470.1\ncuda 11040\ngpu 0000:53:00.0\nuuid GPU-1\nname Tesla T4\n"
    with client(tmp_path, bare, addresses=EIGHT[:1]) as (asker, _):
        assert asker.inventory()["gpus"] == [{"pci_address": "0000:53:00.0", "uuid": "GPU-1", "name": "Tesla T4"}]
        assert asker.vitals()["gpus"] == [{"pci_address": "0000:53:00.0", "uuid": "GPU-1"}]


def test_an_old_library_is_asked_in_the_old_way(tmp_path):
    with client(tmp_path, old=True) as (asker, _):
        gpu = asker.inventory()["gpus"][0]
        dials = asker.vitals()["gpus"][0]
    assert gpu["memory_bytes"] == 81559 << 20
    assert len(gpu["nvlinks"]) == 18
    assert (dials["celsius"], dials["watts"], dials["clocks_event_reasons"]) == (29.0, 68.92, 1)
    assert "recovery_action" not in dials


def test_an_older_version_of_the_fabric_structure_is_tried_where_the_newer_is_refused(tmp_path):
    fabric = "fabric_version 2\nfabric_cluster 0xab\nfabric_clique 32766\n"
    older = H100.replace("fabric_cluster 0\n", "").replace("fabric_clique 0\n", fabric)
    with client(tmp_path, older) as (asker, _):
        gpu = asker.inventory()["gpus"][0]
    assert gpu["fabric_cluster_uuid"] == "abababab-abab-abab-abab-abababababab"
    assert gpu["fabric_clique_id"] == 32766


def test_gpus_are_found_by_number_where_the_bus_shows_none(tmp_path):
    with client(tmp_path, addresses=[]) as (asker, library):
        assert [gpu["pci_address"] for gpu in asker.inventory()["gpus"]] == EIGHT
        library.says(f"{H100}fault nvmlDeviceGetHandleByIndex_v2 2 999\n")
        assert list(silent(asker.inventory())) == ["number 2"]
        assert len(asker.vitals()["gpus"]) == 8


def test_a_gpu_that_joined_after_the_library_was_opened_is_asked_too(tmp_path):
    with client(tmp_path) as (asker, library):
        asker.inventory()
        machine(tmp_path / "machine", ["0000:db:00.0"])
        library.says(f"{H100}\ngpu 0000:db:00.0\nuuid GPU-9\n")
        assert len(asker.inventory()["gpus"]) == 9


def test_many_threads_may_ask_and_each_gets_its_answer(tmp_path):
    with client(tmp_path) as (asker, _):
        asker.inventory()
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(json.dumps(asker.vitals()))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert len(answers) == 6
    assert len(set(answers)) == 1


def test_the_worker_takes_little_memory(tmp_path):
    with client(tmp_path) as (asker, _):
        asker.inventory()
        asker.vitals()
        lines = Path(f"/proc/{asker.pid()}/smaps_rollup").read_text().splitlines()
    kibibytes = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    assert kibibytes <= 40 * 1024


@pytest.mark.parametrize(
    ("written", "kernel"),
    [
        ("00000000:A8:00.0", "0000:a8:00.0"),
        ("0000:53:00.0", "0000:53:00.0"),
        ("00010000:01:00.0", "10000:01:00.0"),
        ("00000000:C1:00", "0000:c1:00.0"),
        ("fffffff:ffff:ff.f", None),
        ("", None),
    ],
)
def test_an_address_is_written_as_the_kernel_writes_it(written, kernel):
    assert normal(written) == kernel
