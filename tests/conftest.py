"""Property tests: the same examples for everybody in continuous integration, fresh ones wherever a person works.

Rule 1: no deadline for one example, for a busy machine is not a broken program.
Rule 2: a run that was started in the background ignores SIGINT, and so would all programs that it starts: what ends by
        Ctrl-C ends by it here too.

The header of a run says which release this version is held against.
"""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import release

settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.register_profile("person", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "person")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

MEMORY = Path("/dev/shm")


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder where to sync costs nothing, for tests that open a store hundreds of times."""
    with tempfile.TemporaryDirectory(prefix="bp", dir=MEMORY if MEMORY.is_dir() else None) as name:
        yield Path(name)


def pytest_report_header() -> str:
    return f"compatibility: {release.about()}"
