"""The NVML worker and its client: the real process and a real library, which misbehaves on demand."""

import json
import os
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from nvml.fake import H100, fake, machine

from nodeagent.errors import Unanswered
from nodeagent.nvml.client import Client
from nodeagent.nvml.presence import normal
from nodeagent.root import Root

EIGHT = [f"0000:{bus}:00.0" for bus in ("53", "64", "75", "86", "97", "a8", "b9", "ca")]


@contextmanager
def client(tmp_path, profile=H100, *, addresses=EIGHT, old=False, **limits):
    """A client of a machine with these GPUs on the bus, and its library."""
    library = fake(tmp_path / "library", profile, old=old)
    root = Root(machine(tmp_path / "machine", addresses))
    asker = Client(root, library.library, **limits)
    try:
        yield asker, library
    finally:
        asker.close()


def unanswered(ask):
    with pytest.raises(Unanswered) as caught:
        ask()
    return caught.value.kind, caught.value.detail


def silent(answer):
    """Which GPUs did not answer, and why."""
    return {gpu["pci_address"]: gpu["unanswered"] for gpu in answer["gpus"] if "unanswered" in gpu}


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def wait_until_gone(pid, within_s=10.0):
    deadline = time.monotonic() + within_s
    while not gone(pid) and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    return gone(pid)


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


def test_closing_ends_the_worker_within_a_second_and_leaves_nothing(tmp_path):
    with client(tmp_path) as (asker, _):
        asker.inventory()
        pid = asker.pid()
        began = time.monotonic()
        asker.close()
        assert time.monotonic() - began < 1.0
        assert gone(pid)
        assert unanswered(asker.inventory)[0] == "ABSENT"


def test_the_worker_leaves_when_its_client_is_no_more(tmp_path):
    with client(tmp_path) as (asker, _):
        asker.inventory()
        worker = asker._worker
        worker.stdin.close()
        assert worker.wait(10) == 0


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


def test_a_gpu_without_a_library_is_told_as_absent(tmp_path):
    asker = Client(Root(machine(tmp_path, EIGHT)), tmp_path / "nowhere" / "libnvidia-ml.so.1")
    try:
        kind, detail = unanswered(asker.inventory)
    finally:
        asker.close()
    assert kind == "ABSENT"
    assert detail.startswith("cannot load the NVIDIA driver's library: ")
    assert "No such file" in detail


def test_a_library_that_is_installed_later_is_found_by_the_same_worker(tmp_path):
    with client(tmp_path) as (asker, library):
        hidden = library.library.with_name("hidden")
        library.library.rename(hidden)
        assert unanswered(asker.inventory)[0] == "ABSENT"
        pid = asker.pid()
        hidden.rename(library.library)
        assert len(asker.inventory()["gpus"]) == 8
        assert asker.pid() == pid


def test_a_file_that_is_no_library_is_told_as_such(tmp_path):
    with client(tmp_path) as (asker, library):
        library.library.write_text("not a library")
        kind, detail = unanswered(asker.inventory)
    assert kind == "FAILED"
    assert "cannot load the NVIDIA driver's library" in detail


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (9, "ABSENT", "its kernel module is not loaded"),
        (4, "NO_PERMISSION", "the driver does not permit it"),
        (17, "NO_PERMISSION", "the operating system forbids it"),
        (999, "FAILED", "Unknown Error (NVML error 999)"),
    ],
)
def test_a_library_that_does_not_open_says_why(tmp_path, code, kind, words):
    with client(tmp_path, f"{H100}fault nvmlInitWithFlags * {code}\n") as (asker, library):
        assert unanswered(asker.inventory) == (kind, f"cannot ask the NVIDIA driver: {words}")
        library.says(H100)
        assert silent(asker.inventory()) == {}


def test_a_lost_gpu_is_named_and_the_others_answer(tmp_path):
    with client(tmp_path) as (asker, library):
        asker.inventory()
        library.says(f"{H100}fault * 3 15\n")
        lost = {
            "0000:86:00.0": {"kind": "LOST", "detail": "cannot read GPU 0000:86:00.0: it fell off the bus"},
        }
        for answer in (asker.vitals(), asker.inventory()):
            assert silent(answer) == lost
            assert sum("uuid" in gpu for gpu in answer["gpus"]) == 7
        library.says(H100)
        assert silent(asker.inventory()) == {}


def test_a_gpu_that_the_driver_does_not_list_is_lost(tmp_path):
    with client(tmp_path, addresses=[*EIGHT, "0000:db:00.0"]) as (asker, _):
        assert silent(asker.inventory()) == {
            "0000:db:00.0": {"kind": "LOST", "detail": "cannot read GPU 0000:db:00.0: the driver does not list it"}
        }


def test_a_gpu_that_hangs_does_not_hold_up_the_others_and_comes_back(tmp_path):
    with client(tmp_path, deadline_s=1.0) as (asker, library):
        asker.inventory()
        pid = asker.pid()
        library.says(f"{H100}fault nvmlDeviceGetName 5 hang\n")
        answer = asker.inventory()
        assert silent(answer) == {
            "0000:a8:00.0": {
                "kind": "TIMEOUT",
                "detail": "cannot read GPU 0000:a8:00.0: its driver does not return",
            }
        }
        assert sum("uuid" in gpu for gpu in answer["gpus"]) == 7
        began = time.monotonic()
        assert list(silent(asker.inventory())) == ["0000:a8:00.0"]
        assert time.monotonic() - began < 0.7, "a GPU that is known to hang is waited for once"
        library.says(H100)
        deadline = time.monotonic() + 10
        while silent(asker.inventory()) and time.monotonic() < deadline:
            threading.Event().wait(0.02)
        assert silent(asker.inventory()) == {}
        assert asker.pid() == pid, "patience, not a new worker"


def test_a_worker_inside_a_call_beyond_all_patience_is_replaced(tmp_path):
    with client(tmp_path, deadline_s=1.0, patience_s=0.2) as (asker, library):
        asker.inventory()
        pid = asker.pid()
        library.says(f"{H100}fault nvmlDeviceGetName 5 hang\n")
        assert list(silent(asker.inventory())) == ["0000:a8:00.0"]
        assert asker.pid() is None
        assert list(silent(asker.inventory())) == ["0000:a8:00.0"]
        assert wait_until_gone(pid), "closed input, then time, then SIGTERM"


def test_a_library_that_hangs_while_it_opens_is_a_timeout_and_is_waited_for(tmp_path):
    with client(tmp_path, f"{H100}fault nvmlInitWithFlags * hang\n", deadline_s=0.5) as (asker, library):
        assert unanswered(asker.inventory) == (
            "TIMEOUT",
            "cannot ask the NVIDIA driver: its library does not return",
        )
        pid = asker.pid()
        library.says(H100)
        assert len(asker.inventory()["gpus"]) == 8
        assert asker.pid() == pid


def test_a_worker_that_stops_is_a_timeout_and_a_new_one_answers(tmp_path):
    with client(tmp_path, deadline_s=1.0, patience_s=0.1) as (asker, _):
        asker.inventory()
        pid = asker.pid()
        os.kill(pid, signal.SIGSTOP)
        assert unanswered(asker.inventory) == ("TIMEOUT", "cannot ask the NVIDIA driver: no answer within 1 s")
        assert len(asker.inventory()["gpus"]) == 8
        assert asker.pid() != pid
        began = time.monotonic()
        asker.close()
        assert time.monotonic() - began < 1.0
        assert gone(pid)


def test_closing_does_not_wait_for_a_hanging_driver(tmp_path):
    with client(tmp_path, deadline_s=0.5) as (asker, library):
        asker.inventory()
        pid = asker.pid()
        library.says(f"{H100}fault * * hang\n")
        assert unanswered(asker.vitals)[0] == "TIMEOUT"
        began = time.monotonic()
        asker.close()
        assert time.monotonic() - began < 1.0
        assert gone(pid)


def test_closing_while_a_question_is_open_answers_it(tmp_path):
    with client(tmp_path) as (asker, library):
        asker.inventory()
        library.says(f"{H100}fault * * hang\n")
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(unanswered(asker.vitals)))
        waiting.start()
        threading.Event().wait(0.1)
        asker.close()
        waiting.join(3)
        assert [kind for kind, _ in answers] == ["FAILED"]


def test_a_crash_of_the_library_kills_the_worker_alone(tmp_path):
    with client(tmp_path) as (asker, library):
        asker.inventory()
        first = asker.pid()
        library.says(f"{H100}fault nvmlDeviceGetSerial 2 crash\n")
        why = ("FAILED", "cannot ask the NVIDIA driver: its library ended the worker (signal 11)")
        assert unanswered(asker.inventory) == why
        assert gone(first)
        assert len(asker.vitals()["gpus"]) == 8, "the next worker starts at once"
        assert unanswered(asker.inventory) == why


def test_workers_that_crash_one_after_another_are_started_ever_more_seldom(tmp_path):
    with client(tmp_path, f"{H100}fault nvmlInitWithFlags * crash\n") as (asker, library):
        first = unanswered(asker.inventory)
        assert unanswered(asker.inventory) == first
        library.says(H100)
        assert unanswered(asker.inventory) == first, "a pause, and the same answer meanwhile"
        assert asker.pid() is None
        asker._not_before = 0.0
        assert len(asker.inventory()["gpus"]) == 8


def test_a_library_that_was_replaced_under_a_worker_is_loaded_by_a_new_one(tmp_path):
    with client(tmp_path) as (asker, library):
        asker.inventory()
        pid = asker.pid()
        library.says(H100.replace("580.105.08", "590.48.01"))
        assert asker.inventory()["driver"]["library_version"] == "590.48.01"
        assert asker.pid() != pid


def test_a_library_that_differs_from_the_kernel_module_wants_a_reboot(tmp_path):
    with client(tmp_path, H100.replace("module 580.105.08", "module 570.172.08")) as (asker, _):
        why = ("FAILED", "cannot ask the NVIDIA driver: the driver library and the kernel module differ; reboot")
        assert unanswered(asker.inventory) == why
        pid = asker.pid()
        assert unanswered(asker.inventory) == why
        assert asker.pid() == pid, "one new worker, not one for each question"


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


def test_fields_that_fail_are_named_with_their_reason_and_the_rest_is_there(tmp_path):
    faults = "fault nvmlDeviceGetSerial 0 4\nfault nvmlDeviceGetVbiosVersion 0 4\nfault nvmlDeviceGetName 0 999\n"
    with client(tmp_path, H100 + faults) as (asker, _):
        gpu = asker.inventory()["gpus"][0]
    assert gpu["problems"] == [
        {"kind": "FAILED", "detail": "cannot read name: Unknown Error (NVML error 999)"},
        {"kind": "NO_PERMISSION", "detail": "cannot read serial, vbios_version: the driver does not permit it"},
    ]
    assert gpu["board_part_number"] == "692-2G520-0200-000"


def test_a_name_that_is_not_text_is_a_problem_of_that_field(tmp_path):
    with client(tmp_path, H100.replace("name NVIDIA H100 80GB HBM3", "name (not-utf-8)")) as (asker, _):
        gpu = asker.inventory()["gpus"][0]
    assert gpu["problems"] == [{"kind": "FAILED", "detail": "cannot read name: it is not text"}]
    assert gpu["serial"] == "1650000000001"


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
