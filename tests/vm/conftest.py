"""The tests' machine, each test a fresh one: restored from one that was saved while it ran, with both units enrolled.

Where a machine cannot be had, one test says why in one line and fails; the others are left out.
"""

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
        items.sort(key=_turn)
    if ours and image.missing():
        left_out = [item for item in ours if item.name != FIRST]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _turn(item: pytest.Item) -> int:
    """The one that only waits begins; what is over at once comes next, for nobody takes that one from its worker."""
    if item.get_closest_marker("longest"):
        return 0
    return 2 if "bench" in getattr(item, "fixturenames", ()) else 1


@pytest.fixture
def bench() -> Iterator[Machine]:
    with machine(image.image(), site.enrolled()) as made:
        yield made
