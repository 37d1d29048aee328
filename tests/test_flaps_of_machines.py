"""A machine that goes to and fro as a whole, by its boot, its inventory or its presence, is told of a few times, then
as a flap with a count, and then once more: how it stands.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from provisioner.decision import Todo
from provisioner.explain import explain
from provisioner.flaps import WINDOW_S, Flaps, Swing
from provisioner.retained import state
from provisioner.vigil import noteworthy, plan
from provisioner.world import Change, Facts, InventoryKept, Met, Noted, Parted, SilenceNoted, World, machine_after

SILENT_AFTER_S = 60.0
CHANGED, FLAPPING, SILENT, PRESENT = (f"machine.{word}" for word in ("changed", "flapping", "silent", "present"))
FACTS = Facts(
    "m-1",
    1,
    b"k",
    asked_at=0.0,
    accepted_at=0.0,
    certified_at=0.0,
    hostname="gpu-01",
    last_heard_at=0.0,
    boot_id="boot-0",
    inventory_digest=b"0" * 32,
    gpu_count=8,
)


@dataclass
class Site:
    """One machine, the events of it, and a store that takes everything, or nothing."""

    facts: Facts = FACTS
    told: list[Noted] = field(default_factory=list)
    flaps: Flaps = field(default_factory=Flaps)
    full: bool = False

    def damped(self, found: Sequence[Change | Swing], /) -> list[Change]:
        return self.flaps.damped(found)

    async def write(self, changes: Sequence[Change], /) -> list[int]:
        for change in () if self.full else changes:
            if isinstance(change, Noted):
                self.told.append(change)
            elif isinstance(change, Met | InventoryKept | Parted | SilenceNoted):
                self.facts = machine_after(self.facts, change, 0)
        return []

    def hear(self, change: Met | InventoryKept) -> None:
        asyncio.run(self.write([*self.damped(noteworthy(self.facts, [change])), change]))

    def boots(self, boot: str, now: float) -> None:
        self.hear(Met("m-1", "s", 1, b"r" * 16, "1.0", boot, "10.0.0.7", 0.0, at=now))

    def has(self, gpus: int, now: float) -> None:
        digest = b"%032d" % gpus
        self.hear(InventoryKept("m-1", digest, b"", "gpu-01", "", "", gpus, "H100", 0, "", "", at=now))

    def goes(self, now: float) -> None:
        asyncio.run(self.write([Parted("m-1", "s", "its stream broke without a goodbye", now)]))

    def tick(self, now: float) -> None:
        """As `fleet` has it."""
        settled = self.flaps.settled(now, {"m-1": self.facts})
        asyncio.run(self.write(settled))
        if not self.full:
            self.flaps.forget(now)
        decision = plan(World(epoch=1, started_at=0.0, machines={"m-1": self.facts}), now, SILENT_AFTER_S)
        if isinstance(decision, Todo):
            asyncio.run(decision.steps[0].take(self))

    def edge(self, times: int, now: float) -> float:
        """It is silent, and back after a second, so many times. Returns when it was back."""
        for _ in range(times):
            self.goes(now)
            self.tick(now + SILENT_AFTER_S)
            now += SILENT_AFTER_S + 1
            self.boots("boot-0", now)
            self.tick(now)
        return now

    def kinds(self) -> list[str]:
        return [one.kind for one in self.told]


@pytest.fixture
def site() -> Site:
    return Site()


def test_a_thousand_boots_are_three_events_a_flap_and_one_that_says_which_it_is_in(site: Site) -> None:
    for number in range(1, 1001):
        site.boots(f"boot-{number}", number * 10.0)
        site.tick(number * 10.0)
    assert site.kinds() == [CHANGED, CHANGED, CHANGED, FLAPPING]
    flap = site.told[-1]
    assert (flap.because, flap.count) == (
        "rebooted, or took turns with a copy of its disk, 4 times within 10 min",
        4,
    )
    site.tick(10000.0 + WINDOW_S - 1)
    assert len(site.told) == 4
    site.tick(10000.0 + WINDOW_S)
    last = site.told[-1]
    assert (last.kind, last.because, last.count) == (CHANGED, "boot boot-1000 now, after 1000 changes", 1000)
    assert (last.machine_id, last.hostname, last.actor) == ("m-1", "gpu-01", "provisioner")
    site.tick(1e6)
    assert len(site.told) == 5


def test_a_thousand_inventories_are_five_events_and_the_last_says_what_is_in_it(site: Site) -> None:
    for number in range(1000):
        site.has(7 + number % 2, 10.0 + number)
    site.boots("boot-0", 1010.0)
    site.tick(1009.0 + WINDOW_S)
    assert site.kinds() == [CHANGED, CHANGED, CHANGED, FLAPPING, CHANGED]
    assert site.told[3].because == "its inventory changed 4 times within 10 min"
    last = site.told[-1]
    assert last.because == "its inventory is host name gpu-01, GPUs 8, GPU model H100 now, after 1000 changes"
    assert last.count == 1000


def test_a_thousand_silences_and_returns_are_five_events_and_all_of_them_are_facts(site: Site) -> None:
    site.boots("boot-0", 1.0)
    now = site.edge(500, 2.0)
    assert site.kinds() == [SILENT, PRESENT, SILENT, FLAPPING]
    assert site.told[-1].because == "fell silent or came back 4 times within 10 min"
    assert not site.facts.silent_noted
    site.tick(now + WINDOW_S)
    last = site.told[-1]
    assert (last.kind, last.because, last.count) == (PRESENT, "present now, after 1000 changes", 1000)
    assert len(site.told) == 5


def test_one_that_flaps_and_then_stays_silent_is_a_silent_machine_at_once_and_is_told_of_within_the_window(
    site: Site,
) -> None:
    site.boots("boot-0", 1.0)
    now = site.edge(20, 2.0)
    site.goes(now)
    site.tick(now + SILENT_AFTER_S)
    assert site.kinds()[-1] == FLAPPING
    world = World(epoch=1, started_at=0.0, machines={"m-1": site.facts})
    assert json.loads(state(site.facts, world))["phase"] == "silent", "who looks knows it at once"
    assert explain(site.facts, world, now + SILENT_AFTER_S, SILENT_AFTER_S).because.startswith("silent for 1 min")
    site.tick(now + SILENT_AFTER_S + WINDOW_S)
    last = site.told[-1]
    assert (last.kind, last.because, last.count) == (SILENT, "silent now, after 41 changes", 41)


def test_after_the_last_word_the_next_change_is_told_at_once_again(site: Site) -> None:
    site.boots("boot-0", 1.0)
    now = site.edge(10, 2.0) + WINDOW_S
    site.tick(now)
    del site.told[:]
    site.edge(1, now)
    assert site.kinds() == [SILENT, PRESENT]
    assert site.told[0].because.startswith("silent for 1 min: its stream ended at ")


def test_one_reboot_one_change_one_silence_and_one_return_are_told_as_they_happen(site: Site) -> None:
    site.boots("boot-1", 10.0)
    site.has(7, 11.0)
    site.edge(1, 12.0)
    assert [(one.kind, one.count) for one in site.told] == [
        (CHANGED, 0),
        (CHANGED, 0),
        (SILENT, 0),
        (PRESENT, 0),
        (CHANGED, 0),  # the boot that it is back in
    ]


def test_one_aspect_that_flaps_hides_no_other(site: Site) -> None:
    for number in range(50):
        site.boots(f"boot-{number}", number * 1.0)
    site.has(7, 50.0)
    assert site.told[-1].because == "its inventory changed: GPUs 8 -> 7, GPU model none -> H100"


def test_what_changes_seldom_never_flaps_and_nothing_is_kept_of_it(site: Site) -> None:
    for number in range(1, 20):
        site.boots(f"boot-{number}", number * WINDOW_S / 3)
        site.tick(number * WINDOW_S / 3)
    assert site.kinds() == [CHANGED] * 19
    site.tick(1e6)
    assert site.flaps == Flaps()


def test_what_the_store_refused_is_told_when_it_takes_it_and_is_counted_once(site: Site) -> None:
    site.full = True
    for now in range(70, 80):
        site.tick(float(now))
    assert (site.told, site.facts.silent_noted) == ([], False)
    site.full = False
    site.tick(80.0)
    assert (site.kinds(), site.facts.silent_noted) == ([SILENT], True)


def test_nothing_is_said_of_a_life_that_is_over_and_the_next_one_is_told_anew(site: Site) -> None:
    for number in range(1, 10):
        site.boots(f"boot-{number}", number * 1.0)
    assert site.kinds()[-1] == FLAPPING
    site.facts = replace(site.facts, incarnation=2)
    site.tick(10.0 + WINDOW_S)
    assert site.kinds()[-1] == FLAPPING
    site.boots("boot-10", 11.0)
    assert site.kinds()[-1] == CHANGED
