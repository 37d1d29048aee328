"""Agents without probes: the real edge and the real session, thousands in a process."""

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

from bedplate.v1.snapshot_pb2 import Problem, Snapshot
from bedplate.v1.uplink_pb2 import SessionResponse
from nodeagent.identity import Identity
from nodeagent.session import Session, State
from nodeagent.uplink import Uplink


class Counting:
    """An agent's session, how many inventories it was asked for, and how often it told all its vitals."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.inventories = 0
        self.wholes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def receive(self, message: SessionResponse, now: float) -> Any:
        messages = self.session.receive(message, now)
        self.inventories += sum(one.HasField("inventory") for one in messages)
        self.wholes += sum(one.delta.whole for one in messages)
        return messages


def agent(number: int, name: str, address: str, certificate: tuple[bytes, bytes, bytes]) -> tuple[Uplink, Counting]:
    """`certificate`: its key, that, and the roots, PEM."""
    key, chain, roots = (one.decode() for one in certificate)
    identity = Identity(name, 1, 0.0, 0.0, 0.0, "t-1", (address,), chain, key, roots)
    session = Counting(Session(number.to_bytes(16, "big"), "0.1.0", random.Random(number)))  # noqa: S311 - jitter
    return Uplink(session, lambda: identity, said=_quiet), session  # type: ignore[arg-type]  # it passes all on


def _quiet(_: str) -> None:
    """Two thousand sentences are no help."""


def seen(number: int, problems: int, shown: Snapshot | None = None) -> tuple[Snapshot, bytes, bytes]:
    """A snapshot with so many problems, its inventory's bytes and their digest; nobody else has this inventory."""
    snapshot = Snapshot()
    if shown:
        snapshot.CopyFrom(shown)
    snapshot.inventory.identity.hostname = f"gpu-{number}"
    snapshot.problems.extend(Problem(probe=f"probe-{one}") for one in range(problems))
    body = snapshot.inventory.SerializeToString()
    return snapshot, body, hashlib.sha256(body).digest()


def settled(sessions: Sequence[Counting]) -> bool:
    """Each has a stream, and all that it said is acknowledged: stored."""
    return all(one.state is State.OPEN and one.sequence == one.acknowledged > 0 for one in sessions)


@contextlib.asynccontextmanager
async def running(uplinks: Sequence[Uplink]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(uplink.run()) for uplink in uplinks]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
