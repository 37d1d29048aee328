"""The worker's client in a test: a machine, a library, and what came of the questions."""

import os
import threading
import time
from contextlib import contextmanager

import pytest
from nvml.fake import H100, fake, machine

from nodeagent.errors import Unanswered
from nodeagent.nvml.client import Client
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
