"""Silence is noted once, and coming back ends it."""

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner.decision import Settled, Todo
from provisioner.flaps import Swing
from provisioner.vigil import AT_ONCE, NotePresence, on_inventory, on_meeting, plan
from provisioner.world import Accepted, Asked, Change, Facts, InventoryKept, Met, Noted, Parted, SilenceNoted, World
from tests.served import served

HEARD = Facts("m-1", 1, b"k", asked_at=0.0, accepted_at=0.0, certified_at=0.0, hostname="gpu-01", last_heard_at=100.0)
MET = Met("m-1", "s-1", 1, b"r" * 16, "1.0", "boot-1", "10.0.0.7", 0.0, at=4100.0)
BACK = "back while its silence was being written, from 10.0.0.7"
KEPT = InventoryKept("m-1", b"2" * 32, b"", "gpu-01", "", "", 7, "H100", 0, "", "", at=200.0)


def _world(*machines: Facts) -> World:
    return World(epoch=1, started_at=0.0, machines={facts.id: facts for facts in machines})


def test_a_machine_that_was_not_heard_for_too_long_is_noted() -> None:
    decision = plan(_world(HEARD), 1000.0, 60.0)
    assert isinstance(decision, Todo)
    assert [machine for machine, *_ in decision.steps[0].machines] == ["m-1"]


def test_a_silence_that_is_noted_is_not_noted_again() -> None:
    assert isinstance(plan(_world(replace(HEARD, silent_noted=True)), 1000.0, 60.0), Settled)


def test_a_machine_with_an_open_stream_is_not_silent_however_little_it_says() -> None:
    facts = replace(HEARD, session="s", session_epoch=1)
    decision = plan(_world(facts), 1e6, 60.0)
    assert (type(decision), decision.because) == (Settled, "1 present")


def test_a_machine_whose_stream_was_opened_while_its_silence_was_being_written_is_noted_as_back() -> None:
    facts = replace(HEARD, session="s", session_epoch=1, silent_noted=True, peer="10.0.0.7")
    decision = plan(_world(facts), 1000.0, 60.0)
    assert isinstance(decision, Todo)
    assert decision.steps == (NotePresence(silent=False, machines=(("m-1", 1, "gpu-01", BACK),), at=1000.0),)


def test_thousands_that_fall_silent_are_noted_some_at_a_time() -> None:
    machines = [replace(HEARD, id=f"m-{number}") for number in range(AT_ONCE + 7)]
    decision = plan(_world(*machines), 1000.0, 60.0)
    assert isinstance(decision, Todo)
    assert len(decision.steps[0].machines) == AT_ONCE
    assert decision.because.endswith("507 fell silent just now")


def test_a_forgotten_machine_is_nobody() -> None:
    assert plan(_world(replace(HEARD, forgotten_at=5.0)), 1000.0, 60.0).because == "no machines yet"


def test_a_first_stream_is_an_event() -> None:
    (event,) = on_meeting(replace(HEARD, last_heard_at=None), MET)
    assert isinstance(event, Noted)
    assert (event.kind, event.because) == ("machine.present", "heard for the first time, from 10.0.0.7")


def test_a_short_loss_is_no_event() -> None:
    assert on_meeting(replace(HEARD, boot_id="boot-1"), MET) == []


def test_coming_back_after_silence_is_an_event_and_ends_it() -> None:
    event, ended = on_meeting(replace(HEARD, silent_noted=True), MET)
    assert isinstance(event, Swing)
    assert event.noted.because == "back after 1 h 6 min of silence, from 10.0.0.7"
    assert ended == SilenceNoted("m-1", silent=False, at=4100.0)


def test_another_boot_is_an_event() -> None:
    (event,) = on_meeting(replace(HEARD, boot_id="boot-0"), MET)
    assert isinstance(event, Swing)
    assert event.noted.because == "rebooted: boot boot-1, before boot-0"


def test_a_gpu_less_is_an_event_that_says_so() -> None:
    facts = replace(HEARD, inventory_digest=b"1" * 32, gpu_count=8, gpu_model="H100")
    (event,) = on_inventory(facts, KEPT)
    assert isinstance(event, Swing)
    assert event.noted.because == "its inventory changed: GPUs 8 -> 7"


def test_the_first_inventory_is_no_change() -> None:
    assert on_inventory(HEARD, KEPT) == []


def _heard(number: int, at: float) -> list[Change]:
    """A stream that began and ended."""
    name, session = f"m-{number}", f"s-{number}-{at}"
    met = Met(name, session, 1, b"r" * 16, "1.0", "boot-1", "10.0.0.7", 0.0, at)
    return [met, SilenceNoted(name, silent=False, at=at), Parted(name, session, "it went", at)]


def test_the_same_sentence_about_another_machine_is_said_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Between two looks the one came back, and the other fell silent: whoever searches finds the line by either."""
    caplog.set_level(logging.INFO, "provisioner")

    async def main() -> None:
        async with served(tmp_path) as here:
            began, silent_after_s = here.clock.now, here.fleet.settings.silent_after_s
            for number in (1, 2):
                asked = Asked(f"m-{number}", 1, b"%d" % number, b"", "", "", "", "t-1", "", began)
                await here.write(asked, Accepted(f"m-{number}", began), *_heard(number, began + 100 * number))
            here.clock.now = began + 100 + silent_after_s + 1
            await here.fleet.tick(_unsaid)
            here.clock.now = began + 200 + silent_after_s + 1
            await here.write(*_heard(1, here.clock.now - 1))
            await here.fleet.tick(_unsaid)

    asyncio.run(main())
    fell = "1 present, 1 silent; 1 fell silent just now"
    told = [(record.getMessage(), dict(record.__dict__["bedplate"])) for record in caplog.records]
    assert [machine for sentence, machine in told if sentence == fell] == [
        {"MACHINE_ID_BEDPLATE": "m-1"},
        {"MACHINE_ID_BEDPLATE": "m-2"},
    ]


async def _unsaid(_: str) -> None:
    pass
