"""The NVML worker's client with a worker that says anything, as one does whose library writes where it should not."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nvml.asked import unanswered
from nvml.fake import machine

from nodeagent.nvml.client import Client
from nodeagent.root import Root
from tests.running import until

pytestmark = pytest.mark.slow
GPU = "0000:53:00.0"
GOOD = json.dumps({"answer": {"gpus": [{"pci_address": GPU}]}, "stuck_s": 0.0})
NO_ANSWER = "cannot ask the NVIDIA driver: its worker said what is no answer"


@contextlib.contextmanager
def asker(folder: Path, script: str) -> Iterator[Client]:
    """The worker is this script, which may be another for the next worker."""
    said = folder / "worker.sh"
    said.write_text(script)
    made = Client(Root(machine(folder / "machine", [GPU])), worker=("sh", str(said)), deadline_s=0.5, patience_s=0.1)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(
    "said",
    [
        "garbage",
        "[]",
        "7",
        "{}",
        '{"stuck_s": 0}',
        '{"answer": [], "stuck_s": 0}',
        '{"answer": {"gpus": [7]}, "stuck_s": 0}',
        '{"answer": {"gpus": [{}]}, "stuck_s": "long"}',
        '{"unanswered": {"kind": 7, "detail": 7}, "stuck_s": 0}',
        "[" * 3000,
    ],
)
def test_what_is_no_answer_is_told_as_such_and_the_next_worker_is_asked(tmp_path: Path, said: str) -> None:
    with asker(tmp_path, f"read line; echo '{said}'; read more") as client:
        assert unanswered(client.inventory) == ("FAILED", NO_ANSWER)
        (tmp_path / "worker.sh").write_text(f"read line; echo '{GOOD}'; read more")
        assert client.inventory() == {"gpus": [{"pci_address": GPU}]}


def test_a_worker_that_says_more_than_it_was_asked_cannot_answer_the_next_question_with_it(tmp_path: Path) -> None:
    stale = GOOD.replace(GPU, "0000:99:00.0")
    more = f"echo '{stale}'; touch {tmp_path}/said"
    with asker(tmp_path, f"read line; echo '{GOOD}'; read go < {tmp_path}/go; {more}; read more") as client:
        os.mkfifo(tmp_path / "go")
        assert client.inventory() == {"gpus": [{"pci_address": GPU}]}
        (tmp_path / "go").write_text("go\n")
        until((tmp_path / "said").exists)
        assert unanswered(client.inventory) == ("FAILED", NO_ANSWER)


def test_a_worker_that_does_not_stop_to_talk_is_bounded_in_memory_and_time(tmp_path: Path) -> None:
    with asker(tmp_path, "read line; exec cat /dev/zero") as client:
        began = time.monotonic()
        assert unanswered(client.inventory) == ("FAILED", NO_ANSWER)
        assert time.monotonic() - began < 5.0  # far below the deadline of a worker that starts


def test_a_worker_that_never_gets_well_is_asked_ever_more_seldom(tmp_path: Path) -> None:
    with asker(tmp_path, f"echo >> {tmp_path}/starts; read line; echo garbage; read more") as client:
        assert {unanswered(client.inventory) for _ in range(20)} == {("FAILED", NO_ANSWER)}
        assert len((tmp_path / "starts").read_text().splitlines()) == 2
