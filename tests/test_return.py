"""Two thousand machines that all come back at once: the provisioner died, and is there again."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bedplate.v1.fleet_pb2 import PHASE_PRESENT, ListMachinesRequest
from nodeagent.uplink import Uplink
from tests.agents import Counting, agent, running, seen, settled
from tests.crowd import Crowd, founded, known, names
from tests.running import Program, started

MACHINES = 2000
LIMIT_S = 120.0


def _agent(crowd: Crowd, number: int, name: str) -> tuple[Uplink, Counting]:
    return agent(number, name, crowd.config.listen, (*crowd.certificate(name), crowd.ca.roots_pem))


async def _until(true: Callable[[], bool], program: Program) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not true():
        assert program.process.poll() is None, program.text()
        assert time.monotonic() < deadline, program.text()
        await asyncio.sleep(0.1)


async def _listed(crowd: Crowd) -> list[Any]:
    viewer, machines, token = crowd.person("vera", "viewer"), list[Any](), ""
    while True:
        page = await viewer.ListMachines(ListMachinesRequest(page_size=500, page_token=token))
        machines += page.machines
        token = page.next_page_token
        if not token:
            return machines


@pytest.mark.slow
@pytest.mark.timeout(360)
def test_all_are_back_after_the_provisioner_was_killed_and_nothing_is_lost_or_sent_twice(tmp_path: Path) -> None:
    crowd = founded(tmp_path / "state", known(names(MACHINES)))
    agents = [_agent(crowd, number, name) for number, name in enumerate(names(MACHINES))]
    uplinks, sessions = [uplink for uplink, _ in agents], [session for _, session in agents]

    async def observe(problems: int) -> None:
        for number, uplink in enumerate(uplinks):
            await uplink.observe(*seen(number, problems))

    async def main() -> None:
        async with running(uplinks):
            with started("provisioner", *crowd.command(), folder=tmp_path) as program:
                program.wait_for("READY=1")
                await observe(1)
                await _until(lambda: settled(sessions), program)
                assert {one.inventories for one in sessions} == {1}
                program.process.kill()
                program.process.wait()
            await observe(2)  # while nobody hears it
            with started("provisioner", *crowd.command(), folder=tmp_path) as program:
                program.wait_for("READY=1")
                await _until(lambda: settled(sessions), program)
                assert {one.inventories for one in sessions} == {1}, "no inventory is sent again"
                machines = await _listed(crowd)
                assert {(one.phase, one.problem_count) for one in machines} == {(PHASE_PRESENT, 2)}
                assert len(machines) == MACHINES
                await crowd.close()

    asyncio.run(main())
