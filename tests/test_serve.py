"""The provisioner as a whole: tasks that break are noticed, and stopping takes no longer than it may."""

import asyncio
import time
from pathlib import Path

import pytest

from provisioner import credentials
from provisioner.config import Config
from provisioner.errors import BedplateError
from provisioner.serve import Tasks, prune, serving
from provisioner.store import Policy, Store
from provisioner.world import Answered
from tests.running import free_ports


async def _breaks() -> None:
    raise KeyError("m-1")


async def _stays() -> None:
    await asyncio.Event().wait()


def test_a_task_that_breaks_is_an_error_for_whoever_waits_for_the_end() -> None:
    async def main() -> None:
        tasks = Tasks()
        end = tasks.start("tick", _stays())
        tasks.start("writer", _breaks())
        try:
            await asyncio.wait_for(tasks.until(asyncio.Event()), 1)
        finally:
            await end()

    with pytest.raises(BedplateError, match=r"^cannot go on: the writer broke: KeyError\('m-1'\)$"):
        asyncio.run(main())


def test_a_task_that_ends_by_itself_is_broken_too() -> None:
    async def main() -> None:
        tasks = Tasks()
        tasks.start("writer", asyncio.sleep(0))
        await asyncio.wait_for(tasks.until(asyncio.Event()), 1)

    with pytest.raises(BedplateError, match="the writer ended"):
        asyncio.run(main())


def test_a_store_that_cannot_be_pruned_now_is_pruned_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        store = Store.open(tmp_path / "bedplate.db")
        store.begin_epoch()
        store.write([Answered("alice", "r-1", "Forget", b"s" * 32, b"", 1.0)])
        other = Store.open(tmp_path / "bedplate.db")
        other.begin_epoch()
        task = asyncio.create_task(prune(store, time.time, Policy(), first_s=0.0, every_s=0.01))
        await asyncio.sleep(0.2)
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])
        store.close()
        other.close()

    asyncio.run(main())
    assert any("another provisioner has taken it over" in one.getMessage() for one in caplog.records)


def test_it_stops_at_once_and_what_was_submitted_is_done(tmp_path: Path) -> None:
    main_port, door = free_ports(2)
    config = Config(state=str(tmp_path), listen=f"127.0.0.1:{main_port}", enrol_listen=f"127.0.0.1:{door}")
    credentials.init(tmp_path, now=time.time())

    async def main() -> float:
        async with serving(config, lambda _: None) as running:
            done = running.fleet.submit([])
            began = time.monotonic()
        assert done.done()
        return time.monotonic() - began

    assert asyncio.run(main()) < 2
