"""The batch writer: durable first, then known; and nobody waits for long."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import event

from provisioner.config import Config
from provisioner.errors import BedplateError
from provisioner.fleet import Fleet, Outcome, Settings
from provisioner.lives import Life, OverError
from provisioner.store import Store, StoreError
from provisioner.world import Accepted, Asked, Change, InventoryKept, Met, Noted, Parted, Revoked, TokenMade


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "store.db")
    yield opened
    opened.close()


@pytest.fixture
def fails(store: Store) -> list[int]:
    """The next transactions that fail, one for each entry."""
    ahead: list[int] = []

    @event.listens_for(store._writing, "commit")
    def _commits(_: object) -> None:
        if ahead:
            ahead.pop()
            raise sqlite3.OperationalError("database or disk is full")

    return ahead


def _fleet(store: Store) -> Fleet:
    store.begin_epoch()
    return Fleet(store, store.load(0.0), Settings(Config(), "1.0", b""), time.time)


def _asked(number: int) -> Asked:
    return Asked(f"m-{number}", 1, bytes([number]) * 32, b"", f"gpu-{number}", "", "", "t-1", "", 1.0)


async def _writing(fleet: Fleet, work: Callable[[], Awaitable[None]]) -> None:
    writer = asyncio.create_task(fleet.keep_writing())
    try:
        await work()
    finally:
        writer.cancel()
        await asyncio.wait([writer])


def test_what_was_written_is_in_the_world_and_in_the_store(store: Store) -> None:
    fleet = _fleet(store)

    async def work() -> None:
        await fleet.write([_asked(1), Accepted("m-1", 2.0)])

    asyncio.run(_writing(fleet, work))
    assert fleet.world.machines["m-1"].accepted_at == 2.0
    assert store.load(0.0).machines == fleet.world.machines


def test_what_arrives_together_is_written_together(store: Store) -> None:
    fleet = _fleet(store)
    revisions: list[int] = []

    async def work() -> None:
        for batch in await asyncio.gather(*(fleet.write([_asked(number)]) for number in range(100))):
            revisions.extend(batch)

    asyncio.run(_writing(fleet, work))
    assert revisions == sorted(revisions)
    assert len(fleet.world.machines) == 100


def test_somebody_who_waits_for_a_change_is_told(store: Store) -> None:
    fleet = _fleet(store)

    async def work() -> None:
        waiter = asyncio.create_task(fleet.wait_past(fleet.world.revision))
        await fleet.write([_asked(1)])
        await asyncio.wait_for(waiter, 1.0)

    asyncio.run(_writing(fleet, work))


def test_what_the_store_refuses_is_an_error_for_its_writer_and_for_nobody_else(store: Store) -> None:
    fleet = _fleet(store)
    unknown = InventoryKept("m-1", b"?" * 32, None, "", "", "", 0, "", 0, "", "", 2.0)

    async def work() -> None:
        await fleet.write([_asked(1)])
        refused, kept = await asyncio.gather(fleet.write([unknown]), fleet.write([_asked(2)]), return_exceptions=True)
        assert isinstance(refused, BedplateError)
        assert isinstance(kept, list)

    asyncio.run(_writing(fleet, work))
    assert set(fleet.world.machines) == {"m-1", "m-2"}
    assert fleet.world.machines["m-1"].inventory_digest == b""


def test_one_who_goes_away_takes_nothing_back(store: Store) -> None:
    fleet = _fleet(store)

    async def work() -> None:
        changes: list[Change] = [_asked(1), Noted("machine.asked", "m-1", "", "", "", 1.0)]
        writing = asyncio.create_task(fleet.write(changes))
        await asyncio.sleep(0)
        writing.cancel()
        await fleet.write([_asked(2)])

    asyncio.run(_writing(fleet, work))
    assert set(fleet.world.machines) == {"m-1", "m-2"}


def test_one_bad_change_among_many_is_found_in_few_transactions(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    fleet = _fleet(store)
    tries: list[int] = []

    @event.listens_for(store._writing, "begin")
    def _begins(_: object) -> None:
        tries.append(1)

    async def work() -> None:
        bad = fleet.submit(
            [Accepted("m-nobody", 2.0), TokenMade("t-1", b"secret", 1.0, 2.0, 1, review=False, created_by="alice")]
        )
        good = [fleet.submit([_asked(number)]) for number in range(200)]
        with pytest.raises(BedplateError):
            await bad
        await asyncio.gather(*good)

    asyncio.run(_writing(fleet, work))
    assert len(fleet.world.machines) == 200
    assert len(tries) < 20
    assert "secret" not in caplog.text


def test_what_a_stream_says_behind_what_was_refused_does_not_come_to_be(store: Store, fails: list[int]) -> None:
    """A delta would lie on vitals that are not there."""
    fleet, life, other = _fleet(store), Life("m-1", 1), Life("m-2", 1)

    async def work() -> None:
        await fleet.write([_asked(1), _asked(2)])
        fails.append(1)
        first = fleet.submit([Accepted("m-1", 2.0)], of=life)
        await asyncio.sleep(0)  # it is being written
        behind = fleet.submit([Noted("machine.changed", "m-1", "", "", "", 3.0)], of=life)
        beside = fleet.submit([Accepted("m-2", 3.0)], of=other)
        with pytest.raises(StoreError):
            await first
        with pytest.raises(OverError):
            await behind
        await beside

    asyncio.run(_writing(fleet, work))
    assert fails == []
    assert (fleet.world.machines["m-1"].accepted_at, fleet.world.machines["m-2"].accepted_at) == (None, 3.0)
    assert store.events() == []


def test_what_a_stream_says_behind_an_end_that_is_refused_is_refused_too_and_not_left_out(
    store: Store, fails: list[int]
) -> None:
    fleet, life = _fleet(store), Life("m-1", 1)

    async def work() -> None:
        await fleet.write([_asked(1), Accepted("m-1", 2.0)])
        fails.append(1)
        ended = fleet.submit([Revoked("m-1", 3.0)])
        said, behind = (fleet.submit([Noted("machine.changed", "m-1", "", "", "", 4.0)], of=life) for _ in range(2))
        for refused in (ended, said):
            with pytest.raises(StoreError):
                await refused
        with pytest.raises(OverError):
            await behind
        with pytest.raises(OverError):
            await fleet.submit([Noted("machine.changed", "m-1", "", "", "", 5.0)], of=life)

    asyncio.run(_writing(fleet, work))
    assert not fleet.world.machines["m-1"].revoked
    assert store.events() == []


def test_of_one_batch_too_nothing_comes_to_be_that_lies_on_a_bad_change(store: Store) -> None:
    fleet, life = _fleet(store), Life("m-1", 1)

    async def work() -> None:
        await fleet.write([_asked(1)])
        bad = fleet.submit([Accepted("m-nobody", 2.0)], of=life)
        behind = fleet.submit([Accepted("m-1", 2.0)], of=life)
        good = fleet.submit([_asked(2)])
        outcomes = await asyncio.gather(bad, behind, good, return_exceptions=True)
        assert isinstance(outcomes[0], BedplateError)
        assert isinstance(outcomes[1], OverError)

    asyncio.run(_writing(fleet, work))
    assert fleet.world.machines["m-1"].accepted_at is None
    assert "m-2" in fleet.world.machines


def test_a_store_that_takes_nothing_refuses_all_at_once_and_says_so_once(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = _fleet(store)
    thief = Store.open(store.path)
    thief.begin_epoch()
    thief.close()

    async def work() -> None:
        for _ in range(2):
            outcomes = await asyncio.gather(
                *(fleet.write([_asked(number)]) for number in range(200)), return_exceptions=True
            )
            assert all(isinstance(outcome, StoreError) for outcome in outcomes)

    asyncio.run(_writing(fleet, work))
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_tick_that_fails_is_not_the_last_one(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    fleet, beats = _fleet(store), list[int]()

    async def say(_: str) -> None:
        raise KeyError("m-1")

    async def main() -> None:
        ticking = asyncio.create_task(fleet.keep_ticking(say, lambda: beats.append(1), every_s=0.001))
        async with asyncio.timeout(2):
            while len(beats) < 5:  # noqa: ASYNC110 - a tick is not an event
                await asyncio.sleep(0.001)
        assert not ticking.done()
        ticking.cancel()
        await asyncio.wait([ticking])

    asyncio.run(main())
    assert "the tick failed" in caplog.text


def test_who_fell_silent_is_in_the_fields_of_the_line_that_says_how_many(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    fleet, said = _fleet(store), list[str]()
    caplog.set_level(logging.INFO, "provisioner")

    async def say(sentence: str) -> None:
        said.append(sentence)

    async def work() -> None:
        for number in range(3):
            await fleet.write([_asked(number), Accepted(f"m-{number}", 2.0)])
        for name in ("m-1", "m-2"):
            await fleet.write([Met(name, "s", 1, b"", "1.0", "", "", 0.0, 3.0), Parted(name, "s", "gone", 4.0)])
        await fleet.tick(say)
        await fleet.tick(say)

    asyncio.run(_writing(fleet, work))
    told = [(one.getMessage(), [value for _, value in one.bedplate]) for one in caplog.records]
    assert told == [("1 accepted, 2 silent; 2 fell silent just now", ["m-1", "m-2"]), ("1 accepted, 2 silent", [])]
    assert said == [sentence for sentence, _ in told]


def test_a_write_that_is_refused_for_what_it_says_is_found_by_its_machine(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = _fleet(store)

    async def work() -> None:
        await fleet.write([_asked(1)])
        with pytest.raises(StoreError):
            await fleet.write([InventoryKept("m-1", b"?" * 32, None, "", "", "", 0, "", 0, "", "", 2.0)])

    asyncio.run(_writing(fleet, work))
    assert [one.bedplate for one in caplog.records] == [[("MACHINE_ID_BEDPLATE", "m-1")]]


def test_the_writer_outlives_whoever_cannot_bear_what_it_hears(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    fleet = _fleet(store)
    heard: list[Outcome] = []

    def stumble(outcome: Outcome) -> None:
        heard.append(outcome)
        raise ValueError("it stumbled")

    async def work() -> None:
        fleet.report([_asked(1)], stumble)
        assert await fleet.write([_asked(2)]) == [2]
        assert await fleet.write([Accepted("m-1", 2.0)]) == [3]

    asyncio.run(_writing(fleet, work))
    assert heard == [[1]]
    assert [record.getMessage() for record in caplog.records] == ["what came of a write was not understood"]
