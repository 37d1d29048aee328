"""Two thousand machines that all come back at once: the provisioner died, and is there again."""

import asyncio
import contextlib
import hashlib
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bedplate.v1.fleet_pb2 import PHASE_PRESENT, ListMachinesRequest
from bedplate.v1.snapshot_pb2 import Inventory, Problem, Snapshot
from bedplate.v1.uplink_pb2 import SessionResponse
from nodeagent.identity import Identity
from nodeagent.session import Session, State
from nodeagent.uplink import Uplink
from tests.crowd import Crowd, founded, known, names
from tests.running import Program, started

MACHINES = 2000
LIMIT_S = 120.0


class Counting:
    """An agent's session, and how many inventories it was asked for."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.inventories = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def receive(self, message: SessionResponse, now: float) -> Any:
        messages = self.session.receive(message, now)
        self.inventories += sum(one.HasField("inventory") for one in messages)
        return messages


def _agent(crowd: Crowd, number: int, name: str) -> tuple[Uplink, Counting]:
    """The real edge and the real session, without the probes."""
    key, certificate = crowd.certificate(name)
    roots = crowd.ca.roots_pem.decode()
    identity = Identity(
        name, 1, 0.0, 0.0, 0.0, "t-1", (crowd.config.listen,), certificate.decode(), key.decode(), roots
    )
    session = Counting(Session(number.to_bytes(16, "big"), "0.1.0", random.Random(number)))  # noqa: S311 - jitter
    return Uplink(session, lambda: identity, said=_quiet), session  # type: ignore[arg-type]  # it passes all on


def _quiet(_: str) -> None:
    """Two thousand sentences are no help."""


def _seen(number: int, problems: int) -> tuple[Snapshot, bytes, bytes]:
    inventory = Inventory()
    inventory.identity.hostname = f"gpu-{number}"
    snapshot = Snapshot(inventory=inventory, problems=[Problem(probe=f"probe-{one}") for one in range(problems)])
    body = inventory.SerializeToString()
    return snapshot, body, hashlib.sha256(body).digest()


async def _until(true: Callable[[], bool], program: Program) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not true():
        assert program.process.poll() is None, program.text()
        assert time.monotonic() < deadline, program.text()
        await asyncio.sleep(0.1)


def _settled(sessions: Sequence[Counting]) -> bool:
    """Each has a stream, and all that it said is acknowledged: stored."""
    return all(one.state is State.OPEN and one.sequence == one.acknowledged > 0 for one in sessions)


async def _listed(crowd: Crowd) -> list[Any]:
    viewer, machines, token = crowd.person("vera", "viewer"), list[Any](), ""
    while True:
        page = await viewer.ListMachines(ListMachinesRequest(page_size=500, page_token=token))
        machines += page.machines
        token = page.next_page_token
        if not token:
            return machines


@contextlib.asynccontextmanager
async def _running(uplinks: Sequence[Uplink]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(uplink.run()) for uplink in uplinks]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@pytest.mark.slow
@pytest.mark.timeout(360)
def test_all_are_back_after_the_provisioner_was_killed_and_nothing_is_lost_or_sent_twice(tmp_path: Path) -> None:
    crowd = founded(tmp_path / "state", known(names(MACHINES)))
    agents = [_agent(crowd, number, name) for number, name in enumerate(names(MACHINES))]
    uplinks, sessions = [uplink for uplink, _ in agents], [session for _, session in agents]

    async def observe(problems: int) -> None:
        for number, uplink in enumerate(uplinks):
            await uplink.observe(*_seen(number, problems))

    async def main() -> None:
        async with _running(uplinks):
            with started("provisioner", *crowd.command(), folder=tmp_path) as program:
                program.wait_for("READY=1")
                await observe(1)
                await _until(lambda: _settled(sessions), program)
                assert {one.inventories for one in sessions} == {1}
                program.process.kill()
                program.process.wait()
            await observe(2)  # while nobody hears it
            with started("provisioner", *crowd.command(), folder=tmp_path) as program:
                program.wait_for("READY=1")
                await _until(lambda: _settled(sessions), program)
                assert {one.inventories for one in sessions} == {1}, "no inventory is sent again"
                machines = await _listed(crowd)
                assert {(one.phase, one.problem_count) for one in machines} == {(PHASE_PRESENT, 2)}
                assert len(machines) == MACHINES
                await crowd.close()

    asyncio.run(main())
