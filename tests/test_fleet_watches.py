"""Watches: who resumes misses nothing, who is slow gets the newest state, and what cannot be resumed is said."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from bedplate.v1 import fleet_pb2 as pb
from provisioner.access import RefusedError
from provisioner.service import watching
from provisioner.store import Policy
from provisioner.world import Accepted, Change, Forgotten, Met, Noted, Parted, SilenceNoted, VitalsKept
from tests.served import Served, asked, present, served

Work = Callable[[Served], Awaitable[None]]


def _run(folder: Path, work: Work, *changes: Change) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20), served(folder, changes) as here:
            await work(here)

    asyncio.run(whole())


async def _next(watch: Any, count: int) -> list[Any]:
    return [await anext(watch) for _ in range(count)]


async def _quiet(watch: AsyncIterator[Any]) -> bool:
    """Nothing comes. The watch is of no use afterwards."""
    try:
        await asyncio.wait_for(anext(watch), 0.3)
    except TimeoutError:
        return True
    return False


def test_a_watch_of_machines_sends_what_there_is_and_then_what_changes(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        watch = aiter(here.stub().WatchMachines(pb.WatchMachinesRequest()))
        first = await _next(watch, 3)
        assert [told.machine.machine_id for told in first] == ["m-0001", "m-0002", "m-0003"]
        await here.write(Accepted("m-0002", 5.0))
        (told,) = await _next(watch, 1)
        assert (told.machine.machine_id, told.machine.phase, told.gone) == ("m-0002", pb.PHASE_ACCEPTED, False)
        assert told.revision == here.fleet.world.revision

    _run(tmp_path, work, asked(1), asked(2), asked(3))


def test_who_resumes_from_any_message_misses_nothing(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        request = pb.WatchMachinesRequest()
        watch = watching.machines(here.fleet, request)
        told = await _next(watch, 2)
        await here.write(Accepted("m-0001", 5.0), Accepted("m-0004", 5.0), Forgotten("m-0003", 6.0))
        rest = watching.machines(here.fleet, pb.WatchMachinesRequest(from_revision=told[-1].revision))
        again = await _next(rest, 4)
        assert [(one.machine.machine_id, one.gone) for one in again] == [
            ("m-0005", False),
            ("m-0001", False),
            ("m-0004", False),
            ("m-0003", True),
        ]

    _run(tmp_path, work, *(asked(number) for number in range(1, 6)))


def test_a_slow_reader_gets_the_newest_state_once_and_no_queue_grows(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        watch = watching.machines(here.fleet, pb.WatchMachinesRequest())
        await _next(watch, 2)
        for number in range(50):
            await here.write(SilenceNoted("m-0001", silent=number % 2 == 0, at=float(number)))
        await here.write(Accepted("m-0001", 99.0))
        (told,) = await _next(watch, 1)
        assert told.machine.phase == pb.PHASE_ACCEPTED
        assert await _quiet(watch)

    _run(tmp_path, work, asked(1), asked(2))


def test_events_and_quiet_vitals_wake_no_watcher_of_machines(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        watch = watching.machines(here.fleet, pb.WatchMachinesRequest(from_revision=here.fleet.world.revision))
        noted = Noted("machine.changed", "m-0001", "", "", "", 1.0)
        await here.write(noted, VitalsKept("m-0001", b"r" * 16, 1, b"", b"", 0, 1.0))
        assert await _quiet(watch)

    _run(tmp_path, work, asked(1))


def test_what_a_filter_lets_through_no_more_is_gone_and_what_it_never_did_is_not_told(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        watch = aiter(here.stub().WatchMachines(pb.WatchMachinesRequest(filter="phase=pending")))
        assert [told.machine.machine_id for told in await _next(watch, 2)] == ["m-0001", "m-0002"]
        await here.write(SilenceNoted("m-0003", silent=False, at=1.0), Accepted("m-0001", 2.0))
        (told,) = await _next(watch, 1)
        assert (told.machine.machine_id, told.gone) == ("m-0001", True)
        await here.write(Forgotten("m-0002", 3.0))
        (told,) = await _next(watch, 1)
        assert (told.machine.machine_id, told.gone) == ("m-0002", True)

    _run(tmp_path, work, asked(1), asked(2), *present(3))


def test_a_machine_that_falls_silent_by_time_alone_is_told(tmp_path: Path) -> None:
    async def say(_: str) -> None: ...

    async def work(here: Served) -> None:
        watch = aiter(here.stub().WatchMachines(pb.WatchMachinesRequest()))
        (told,) = await _next(watch, 1)
        assert told.machine.phase == pb.PHASE_PRESENT
        here.clock.now += 61
        await here.fleet.tick(say)
        (told,) = await _next(watch, 1)
        assert told.machine.phase == pb.PHASE_SILENT
        assert told.machine.because.startswith("silent for 1 min: its stream ended at 07:59:55 UTC (connection reset)")

    _run(tmp_path, work, *present(1), Parted("m-0001", "s-1", "connection reset", 1_799_999_995.0))


def test_a_watch_of_machines_from_a_revision_that_is_yet_to_come_is_refused(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        for call in (
            here.stub().WatchMachines(pb.WatchMachinesRequest(from_revision=999)),
            here.stub().WatchEvents(pb.WatchEventsRequest(from_revision=999)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await anext(aiter(call))
            assert error.value.code() is grpc.StatusCode.OUT_OF_RANGE
            assert "this fleet is at 1" in (error.value.details() or "")

    _run(tmp_path, work, asked(1))


def _noted(number: int, machine: int = 1) -> Noted:
    return Noted(f"machine.{number}", f"m-{machine:04}", "", "", "provisioner", float(number))


def test_a_watch_of_events_begins_with_the_oldest_and_goes_on_with_the_newest(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        watch = aiter(here.stub().WatchEvents(pb.WatchEventsRequest()))
        assert [told.event.kind for told in await _next(watch, 2)] == ["machine.1", "machine.2"]
        await here.write(_noted(3), _noted(4))
        (third,) = await _next(watch, 1)
        rest = aiter(here.stub().WatchEvents(pb.WatchEventsRequest(from_revision=third.event.revision)))
        assert [(await _next(one, 1))[0].event.kind for one in (watch, rest)] == ["machine.4", "machine.4"]

    _run(tmp_path, work, asked(1), _noted(1), _noted(2))


def test_a_watch_of_events_of_one_machine_from_now_on_tells_nothing_else(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        watch = aiter(here.stub().WatchEvents(pb.WatchEventsRequest(machine="gpu-02", only_new=True)))
        later = asyncio.create_task(_next(watch, 1))
        while not later.done():
            await here.write(_noted(2, machine=1), _noted(3, machine=2))
            await asyncio.sleep(0.01)
        assert [told.event.kind for told in later.result()] == ["machine.3"]

    _run(tmp_path, work, asked(1), asked(2), _noted(1, machine=2))


def test_more_events_than_one_batch_all_arrive_in_order(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        watch = aiter(here.stub().WatchEvents(pb.WatchEventsRequest()))
        kinds = [told.event.kind for told in await _next(watch, 450)]
        assert kinds == [f"machine.{number}" for number in range(450)]

    _run(tmp_path, work, asked(1), *(_noted(number) for number in range(450)))


def test_who_resumes_from_before_what_is_kept_is_told_and_who_begins_at_0_is_not(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        here.fleet.store.prune(100.0, Policy(event_s=97.5))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await anext(aiter(here.stub().WatchEvents(pb.WatchEventsRequest(from_revision=1))))
        assert error.value.code() is grpc.StatusCode.OUT_OF_RANGE
        assert "events are kept from revision 4 on" in (error.value.details() or "")
        (told,) = await _next(aiter(here.stub().WatchEvents(pb.WatchEventsRequest())), 1)
        assert told.event.kind == "machine.3"
        (told,) = await _next(aiter(here.stub().WatchEvents(pb.WatchEventsRequest(from_revision=3))), 1)
        assert told.event.kind == "machine.3"

    _run(tmp_path, work, asked(1), _noted(1), _noted(2), _noted(3))


def test_a_reader_that_fell_behind_what_is_kept_is_cut_off_with_where_to_resume(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        watch = watching.events(here.fleet, pb.WatchEventsRequest())
        await _next(watch, 2)
        await here.write(_noted(3), _noted(4))
        here.fleet.store.prune(100.0, Policy(event_s=96.5))
        with pytest.raises(RefusedError, match="begin again from 0") as error:
            await anext(watch)
        assert error.value.code is grpc.StatusCode.OUT_OF_RANGE

    _run(tmp_path, work, asked(1), _noted(1), _noted(2))


def test_a_watcher_that_goes_leaves_nothing_behind(tmp_path: Path) -> None:
    async def work(here: Served) -> None:
        before = len(asyncio.all_tasks())
        calls = [here.stub().WatchMachines(pb.WatchMachinesRequest()) for _ in range(5)]
        for call in calls:
            await anext(aiter(call))
            call.cancel()
        for channel in here.channels:
            await channel.close()
        while len(asyncio.all_tasks()) > before:  # noqa: ASYNC110 - tasks end without a word
            await asyncio.sleep(0.01)

    _run(tmp_path, work, *present(1), Met("m-0001", "s-2", 1, b"r" * 16, "", "", "", 0.0, 1.0))
