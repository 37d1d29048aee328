"""The tests' machine, each test a fresh one: restored from one that was saved while it ran, with both units enrolled.

Where a machine cannot be had, one test says why in one line and fails; the others are left out.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm import image, site
from tests.vm.machine import Machine, machine

HERE = Path(__file__).resolve().parent
FIRST = "test_a_virtual_machine_can_be_had_here"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.vm)
        item.add_marker(pytest.mark.slow)
        item.add_marker(pytest.mark.timeout(900))
    if ours == items:
        items[:] = _dealt(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    if ours and image.missing():
        left_out = [item for item in ours if item.name != FIRST]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _dealt(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """In shares, as `--dist worksteal` hands them out: the shorter first.

    The longest begin, each in a share of its own; what is over at once comes next to those that wait for minutes, for
    nobody takes the next one from its worker.
    """
    longest = [item for item in items if item.get_closest_marker("longest")]
    short = [item for item in items if "bench" not in getattr(item, "fixturenames", ())]
    rest = [item for item in items if item not in longest and item not in short]
    beside = max(0, workers - len(longest))
    order = [*longest, *rest[:beside], *short, *rest[beside:]]
    return [item for share in sorted((order[n::workers] for n in range(workers)), key=len) for item in share]


@pytest.fixture
def bench() -> Iterator[Machine]:
    with machine(image.image(), site.enrolled()) as made:
        yield made
