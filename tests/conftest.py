"""Property tests: the same examples for everybody in continuous integration, fresh ones wherever a person works.

Rule: no deadline for one example, for a busy machine is not a broken program.

The header of a run says which release this version is held against.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import release

settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.register_profile("person", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "person")

MEMORY = Path("/dev/shm")


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder where to sync costs nothing, for tests that open a store hundreds of times."""
    with tempfile.TemporaryDirectory(prefix="bp", dir=MEMORY if MEMORY.is_dir() else None) as name:
        yield Path(name)


def pytest_report_header() -> str:
    return f"compatibility: {release.about()}"
