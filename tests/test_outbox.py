"""The outbox: every sink has its own place, nobody holds up anybody, and what is lost is said."""

import asyncio
import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.errors import BedplateError
from provisioner.metrics import FleetCollector
from provisioner.outbox import Feed, Outbox, Standing
from provisioner.store import Policy, Store
from provisioner.world import Noted
from tests.outgoing import delivering, noted, settled, troubled, until
from tests.served import Served, asked, served


@dataclass
class Shelf:
    """A sink that puts events on a shelf, for as long as it is open."""

    name: str
    from_oldest: bool = False
    open: bool = True
    had: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    async def run(self, feed: Feed) -> None:
        while True:
            batch = await feed.next()
            self.batches.append(len(batch))
            for event in batch:
                if not self.open:
                    raise BedplateError(f"cannot reach {self.name}: it is shut")
                self.had.append(event.because)
                feed.confirm(event.revision)


async def _write(here: Served, first: int, last: int) -> list[str]:
    events = [noted(number) for number in range(first, last + 1)]
    await here.write(*events)
    return [event.because for event in events]


def test_a_sink_that_is_shut_holds_up_no_other_and_gets_everything_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "provisioner")
    quick, slow = Shelf("quick"), Shelf("slow", open=False)

    async def main() -> list[str]:
        async with served(tmp_path, [asked(1)]) as here, delivering(here, [quick, slow]) as outbox:
            said = await _write(here, 1, 1000)
            await until(outbox, lambda one: one.name == "slow" or not one.backlog)
            assert slow.had == []
            slow.open = True
            await settled(outbox)
            return said

    assert asyncio.run(main()) == quick.had == slow.had
    assert max(quick.batches) <= 100, "memory is bounded by the batch"
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("slow: ")]
    assert lines == [
        "slow: cannot reach slow: it is shut; events wait for it, and it is tried again",
        "slow: events go out again",
    ]


def test_one_that_is_new_begins_with_the_next_event_or_where_it_is_told_so_with_the_oldest(tmp_path: Path) -> None:
    new, old = Shelf("new"), Shelf("old", from_oldest=True)

    async def main() -> None:
        async with served(tmp_path, [asked(1), noted(1), noted(2)]) as here, delivering(here, [new, old]) as outbox:
            await _write(here, 3, 3)
            await settled(outbox)

    asyncio.run(main())
    assert new.had == ["event 3"]
    assert old.had == ["event 1", "event 2", "event 3"]


def test_one_that_is_taken_out_is_forgotten(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "provisioner")
    shelf = Shelf("shelf", open=False)

    async def main() -> None:
        async with served(tmp_path, [asked(1)]) as here:
            async with delivering(here, [shelf]) as outbox:
                await _write(here, 1, 1)
                await troubled(outbox)
            await Outbox.opened(here.fleet, [])
            assert here.fleet.store.sinks() == []
            shelf.open = True
            async with delivering(here, [shelf]) as outbox:
                await _write(here, 2, 2)
                await settled(outbox)

    asyncio.run(main())
    assert shelf.had == ["event 2"]
    assert "shelf is not configured any more: what it has not had is not kept for it" in caplog.text


def test_one_that_breaks_is_tried_again_and_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Shelf):
        async def run(self, feed: Feed) -> None:
            if self.open:
                self.open = False
                raise KeyError("a bug")
            self.open = True
            await super().run(feed)

    shelf = Broken("shelf")

    async def main() -> None:
        async with served(tmp_path, [asked(1)]) as here, delivering(here, [shelf]) as outbox:
            await _write(here, 1, 1)
            await settled(outbox)

    asyncio.run(main())
    assert shelf.had == ["event 1"]
    assert "shelf broke" in caplog.text


@dataclass
class Dying:
    """A sink whose provisioner dies after so many events; it forgets nothing that it had."""

    name: str
    had: list[str]
    life: int
    from_oldest: bool = True
    dead: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, feed: Feed) -> None:
        while True:
            for event in await feed.next():
                if not self.life:
                    self.dead.set()
                    await asyncio.Event().wait()
                self.had.append(event.because)
                self.life -= 1
                feed.confirm(event.revision)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(lives=st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=6))
def test_whenever_it_dies_every_event_arrives_in_order_and_none_is_passed_over(lives: list[tuple[int, bool]]) -> None:
    async def main(folder: Path) -> None:
        async with asyncio.timeout(30), served(folder, [asked(1), *(noted(number) for number in range(9))]) as here:
            for life, suddenly in lives:
                sink = Dying("sink", had, life)
                async with delivering(here, [sink], dies=suddenly) as outbox:
                    done = [asyncio.create_task(sink.dead.wait()), asyncio.create_task(settled(outbox))]
                    await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.cancel()
                    await asyncio.wait(done)
            async with delivering(here, [Dying("sink", had, 100)]) as outbox:
                await settled(outbox)

    had: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
    seen: list[str] = []
    for because in had:
        if because not in seen:
            assert because == f"event {len(seen)}", "what is new is what comes next"
            seen.append(because)
    assert len(seen) == 9


def _old(number: int, at: float) -> Noted:
    return Noted("machine.changed", "m-0001", "gpu-01", f"event {number}", "x", at)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.open(tmp_path / "bedplate.db")
    made.begin_epoch()
    made.write([asked(1)])
    made.keep_sinks({"quick": False, "slow": False})
    made.write([_old(number, float(number)) for number in range(1, 11)])  # revisions 2 to 11, at 1 to 10
    made.delivered({"quick": 11, "slow": 4})
    return made


def test_what_a_sink_has_not_had_outlives_the_others(store: Store) -> None:
    pruned = store.prune(100.0, Policy(event_s=90.0, undelivered_s=90.0))
    assert (pruned.events, pruned.lost) == (3, {})
    assert [event.revision for event in store.events()] == list(range(5, 12))
    assert store.oldest_event_revision() == 5
    assert store.events_behind(4) == 7
    store.close()


def test_what_must_be_dropped_in_the_end_is_counted(store: Store) -> None:
    pruned = store.prune(187.0, Policy(event_s=90.0, undelivered_s=90.0))
    assert (pruned.events, pruned.lost) == (6, {"slow": 3})
    assert [(sink.name, sink.revision, sink.lost) for sink in store.sinks()] == [("quick", 11, 0), ("slow", 7, 3)]
    assert store.prune(189.0, Policy(event_s=90.0, undelivered_s=90.0)).lost == {"slow": 2}
    assert store.sinks()[1].lost == 5
    store.close()


def test_without_sinks_events_are_dropped_as_ever(store: Store) -> None:
    store.keep_sinks({})
    assert store.prune(187.0, Policy(event_s=90.0)).events == 10
    store.close()


def test_a_place_never_goes_back(store: Store) -> None:
    store.delivered({"quick": 3, "slow": 6})
    assert [sink.revision for sink in store.sinks()] == [11, 6]
    store.close()


def test_a_provisioner_that_was_overtaken_moves_no_place(store: Store, tmp_path: Path) -> None:
    other = Store.open(tmp_path / "bedplate.db")
    other.begin_epoch()
    with pytest.raises(BedplateError, match="another provisioner has taken it over"):
        store.delivered({"slow": 11})
    assert other.fleet == store.fleet
    other.close()
    store.close()


def test_what_waits_and_what_was_lost_is_in_the_metrics(tmp_path: Path) -> None:
    standing = [Standing("mqtt", 7, 3, 2, False, "cannot reach broker b:1: Connection refused")]  # noqa: FBT003 - a row

    async def main() -> dict[str, float]:
        async with served(tmp_path) as here:
            found = FleetCollector(here.fleet, 60.0, lambda: 0, lambda: standing).collect()
            samples = [one for metric in found for one in metric.samples if one.name.startswith("bedplate_sink")]
        assert {one.labels["sink"] for one in samples} == {"mqtt"}
        return {one.name.removeprefix("bedplate_sink_"): one.value for one in samples}

    assert asyncio.run(main()) == {"working": 0, "backlog": 3, "revision": 7, "lost": 2}
