"""The tests' machine: restored from one that was saved while it ran, with both units enrolled.

A test that leaves it as it was hands it on to the next of its worker, which finds the emulator warm; after any other
test, or one that failed on the way, the next has a fresh one.

Where a machine cannot be had, one test says why in one line and fails; the others are left out.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
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
    """In the shares that `--dist worksteal` makes of them, one for each worker.

    The longest wait for a minute, each on a worker of its own; next to it comes what is over at once, for nobody takes
    the next one from its worker, and then what is for whoever is done to take. The other workers have the rest by
    turns, first what leaves the machine as it was, which goes from hand to hand.
    """
    longest = [item for item in items if item.get_closest_marker("longest")]
    short = [item for item in items if "bench" not in getattr(item, "fixturenames", ())]
    spoils = [item for item in items if item.get_closest_marker("spoils")]
    rest = [item for item in items if item not in (*longest, *short, *spoils)] + spoils
    others = workers - len(longest)
    if others < 1:
        return [*longest, *rest, *short]
    sizes = [(len(items) + nth) // workers for nth in range(workers)]
    now, later = rest[: sum(sizes[:others])], rest[sum(sizes[:others]) :]
    shares = sorted((now[nth::others] for nth in range(others)), key=len)
    shares += [[one, *short[nth :: len(longest)], *later[nth :: len(longest)]] for nth, one in enumerate(longest)]
    return [item for share in shares for item in share]


@dataclass
class Rack:
    """Where the machine stands between two tests."""

    power: contextlib.ExitStack
    kept: Machine | None = None


@pytest.fixture(scope="session")
def rack() -> Iterator[Rack]:
    with contextlib.ExitStack() as power:
        yield Rack(power)


@pytest.fixture
def bench(rack: Rack) -> Machine:
    if not rack.kept or not site.as_it_was(rack.kept):
        rack.power.close()
        rack.kept = rack.power.enter_context(machine(image.image(), site.enrolled()))
    return rack.kept
