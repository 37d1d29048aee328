"""What a broker retains of each machine: without a clock, and only where it differs."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner import retained
from provisioner.retained import Topics, due, state
from provisioner.retries import LONGEST_ASKED_S, LONGEST_S, pause_s
from provisioner.world import Accepted, Change, Forgotten, Met, Parted, SilenceNoted, World
from tests.served import asked

MET = Met("m-0001", "s", 7, b"r" * 16, "0.1.0", "boot", "10.0.0.7", 0.0, 1000.0)
PARTED = Parted("m-0001", "s", "no keepalive", 1001.0)
ENDED = "its stream ended at 1970-01-01T00:16:41Z (no keepalive)"
LIFE: list[tuple[Change, str, str]] = [
    (asked(1), "pending", "waits for a person: its token asks for review"),
    (Accepted("m-0001", 5.0), "accepted", "let in, and not heard yet"),
    (MET, "present", "its stream is open, from 10.0.0.7"),
    (PARTED, "present", ENDED),
    (SilenceNoted("m-0001", silent=True, at=1061.0), "silent", f"{ENDED}; nothing heard since"),
]


def _world(*changes: Change) -> World:
    return World(epoch=7, started_at=0.0).after(enumerate(changes, 1))


@pytest.mark.parametrize("steps", range(1, len(LIFE) + 1))
def test_each_turn_in_a_machine_s_life_is_a_phase_and_a_sentence(steps: int) -> None:
    world = _world(*(change for change, _, _ in LIFE[:steps]))
    told = json.loads(state(world.machines["m-0001"], world))
    assert (told["phase"], told["because"]) == LIFE[steps - 1][1:]


def test_a_machine_that_was_forgotten_leaves_nothing() -> None:
    world = _world(asked(1), Forgotten("m-0001", 9.0))
    assert list(due(world, {})) == [("m-0001", b"")]


def test_what_was_published_is_not_due_again_and_what_changed_since_is() -> None:
    world = _world(asked(1), asked(2))
    published = dict(due(world, {}))
    assert list(due(world, published)) == []
    later = world.after([(3, Accepted("m-0002", 1.0))])
    assert [name for name, _ in due(later, published, world.machines_revision)] == ["m-0002"]


def test_a_stream_of_another_epoch_is_not_open() -> None:
    world = _world(asked(1), Accepted("m-0001", 5.0), MET)
    assert b"its stream ended" in state(world.machines["m-0001"], replace(world, epoch=8))


def test_topics_are_levels() -> None:
    topics = Topics("site/a")
    assert topics.event("machine.problem.appeared", "m-1") == "site/a/v1/events/m-1/machine/problem/appeared"
    assert topics.event("token.created", "") == "site/a/v1/events/fleet/token/created"
    assert topics.machine("m-1") == "site/a/v1/machines/m-1/state"
    assert retained.provisioner_state("online", 3, "1.0", "urn:x") == (
        b'{"state":"online","epoch":3,"version":"1.0","source":"urn:x"}'
    )


@given(failures=st.integers(1, 10**6), chance=st.floats(0, 1), asked_s=st.none() | st.floats(0, 1e9))
def test_a_pause_grows_and_ends(failures: int, chance: float, asked_s: float | None) -> None:
    pause = pause_s(failures, chance, asked_s)
    assert 0.25 <= pause <= max(LONGEST_S, LONGEST_ASKED_S)
    assert pause >= min(asked_s or 0, LONGEST_ASKED_S)
    assert pause_s(failures + 1, chance) >= pause_s(failures, chance)
