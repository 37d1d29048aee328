"""An outbox that delivers, on a fleet that is served: for tests of what goes out."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from provisioner.config import Config, Mqtt
from provisioner.outbox import Outbox, Sink, Standing, configured
from provisioner.world import Change, Noted
from tests.served import Served, served


@contextlib.asynccontextmanager
async def delivering(here: Served, sinks: Sequence[Sink], *, dies: bool = False) -> AsyncIterator[Outbox]:
    """Its tasks run for as long as the block does. One that dies never comes to note how far it was."""
    outbox = await Outbox.opened(here.fleet, sinks)
    works = [outbox.keep_delivering(sink) for sink in sinks] if dies else [work for _, work in outbox.works()]
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield outbox
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if not dies:
            await outbox.note()


def sinks(here: Served, **tables: Any) -> list[Sink]:
    """Of `[mqtt]` and `[[webhook]]` tables."""
    return configured(Config(**tables), here.fleet, "1.2.3")


async def until(outbox: Outbox, true: Callable[[Standing], bool], still_s: float = 30) -> None:
    """TimeoutError where no place has moved for so long. How long all of it takes is the machine's affair."""
    loop, places = asyncio.get_running_loop(), list[int]()
    async with asyncio.timeout(still_s) as limit:
        while True:
            standing = await asyncio.to_thread(outbox.standing)
            if all(true(one) for one in standing):
                return
            if places != (places := [one.revision for one in standing]):
                limit.reschedule(loop.time() + still_s)
            await asyncio.sleep(0.01)


async def settled(outbox: Outbox) -> None:
    """Until everything that there is was delivered."""
    await until(outbox, lambda one: one.working and not one.backlog)


async def troubled(outbox: Outbox) -> None:
    """Until an attempt has failed, of each sink."""
    await until(outbox, lambda one: not one.working)


def noted(number: int, kind: str = "machine.changed") -> Noted:
    return Noted(kind, "m-0001", "gpu-01", f"event {number}", "provisioner", 1_800_000_000.0 + number)


def because_of(payloads: Sequence[bytes]) -> list[str]:
    return [json.loads(payload)["data"]["because"] for payload in payloads]


@contextlib.asynccontextmanager
async def fleet(folder: Path, *changes: Change) -> AsyncIterator[Served]:
    async with asyncio.timeout(50), served(folder, changes) as here:
        yield here


def plain(port: int) -> Mqtt:
    """A broker on loopback, without TLS."""
    return Mqtt(host="127.0.0.1", port=port, tls=False)
