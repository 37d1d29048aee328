"""The NVML worker and its client with a library that is absent, lost, hangs, crashes or was replaced."""

import os
import signal
import threading
import time

import pytest
from nvml.asked import EIGHT, client, gone, silent, unanswered, wait_until_gone
from nvml.fake import H100, machine

from nodeagent.nvml.client import Client
from nodeagent.root import Root

pytestmark = pytest.mark.slow


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
