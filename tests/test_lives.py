"""A life that is over: what its machine's stream submits counts no more, however close it came."""

import asyncio
import contextlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner.config import Config
from provisioner.errors import BedplateError
from provisioner.fleet import Fleet, Settings
from provisioner.lives import OVER, Life, Lives
from provisioner.store import Store
from provisioner.world import (
    Accepted,
    Asked,
    Change,
    Forgotten,
    Noted,
    Revoked,
    TokenMade,
    TokenRevoked,
    TokenUsed,
    VitalsKept,
    World,
)


def _asked(incarnation: int = 1) -> Asked:
    return Asked("m-1", incarnation, b"k" * 32, b"", "gpu-1", "", "", "t-1", "", 1.0)


def _world(*changes: Change) -> World:
    return World(1, 0.0).after(enumerate(changes, 1))


def test_a_life_of_which_something_was_refused_goes_on_in_another_stream_only():
    lives = Lives(_world(_asked()))
    assert lives.goes_on(Life("m-1", 1))
    assert not lives.goes_on(Life("m-1", 1, refused=True))


@pytest.mark.parametrize(
    ("meanwhile", "incarnation", "follows"),
    [([], 2, True), ([], 1, False), ([_asked(2)], 2, False), ([_asked(2)], 3, True), ([Revoked("m-1", 2.0)], 2, False)],
)
def test_who_was_let_in_before_another_came_in_its_place_is_not_let_in(meanwhile, incarnation, follows):
    lives = Lives(_world(_asked(), Accepted("m-1", 1.0)))
    lives.add(meanwhile)
    assert lives.follow([_asked(incarnation)]) is follows


@pytest.mark.parametrize(("again", "follows"), [(True, False), (False, True)])
@pytest.mark.parametrize("before", [[], [Forgotten("m-1", 2.0)]])
def test_who_was_looked_at_as_a_machine_that_is_forgotten_by_then_is_not_let_in_as_that_one(before, again, follows):
    lives = Lives(_world(_asked(), Accepted("m-1", 1.0), *before))
    lives.add([] if before else [Forgotten("m-1", 2.0)])
    assert lives.follow([replace(_asked(2), again=again)]) is follows


@pytest.mark.parametrize("revoked", ["in the world", "earlier in the batch"])
def test_nobody_comes_in_by_a_token_that_a_person_has_revoked_by_then(revoked):
    made, over = (TokenMade(name, b"", 1.0, 2.0, 1, False, "ada") for name in ("t-1", "t-2"))  # noqa: FBT003
    end = TokenRevoked("t-2", 1.5)
    lives = Lives(_world(made, over, *([end] if revoked == "in the world" else [])))
    lives.add([end] if revoked == "earlier in the batch" else [])
    assert lives.follow([_asked(), TokenUsed("t-1", b"k", "m-1", 3.0)]), "it was looked at before it expired"
    assert not lives.follow([_asked(), TokenUsed("t-2", b"k", "m-1", 3.0)])


@pytest.mark.parametrize(
    ("before", "meanwhile", "incarnation"),
    [
        ([], [], 0),
        ([_asked()], [], 1),
        ([_asked(), Forgotten("m-1", 2.0)], [], 0),
        ([_asked(), Accepted("m-1", 2.0)], [Revoked("m-1", 3.0)], 2),
        ([_asked(), Revoked("m-1", 3.0)], [Revoked("m-1", 4.0)], 2),
        ([_asked(), Revoked("m-1", 3.0)], [_asked(3)], 3),
        ([_asked()], [_asked(2), Revoked("m-1", 4.0)], 3),
        ([_asked()], [Forgotten("m-1", 2.0)], 0),
        ([], [_asked()], 1),
    ],
)
def test_the_life_that_a_machine_is_in_is_that_of_the_world_and_of_what_comes_before(
    before: list[Change], meanwhile: list[Change], incarnation: int
) -> None:
    lives = Lives(_world(*before))
    lives.add(meanwhile)
    assert [number for number in range(1, 5) if lives.goes_on(Life("m-1", number))] == [incarnation] * bool(incarnation)
    after = _world(*before, *meanwhile).machines.get("m-1")
    assert (after.incarnation if after and after.forgotten_at is None else 0) == incarnation


def test_what_was_under_way_when_another_took_the_machine_s_place_is_refused_whole(tmp_path: Path) -> None:
    async def work(fleet: Fleet) -> None:
        vitals = VitalsKept("m-1", b"r" * 16, 1, b"", b"", 0, 3.0)
        noted = Noted("machine.changed", "m-1", "gpu-1", "its inventory changed", "machine m-1", 3.0)
        await fleet.write([_asked(), Accepted("m-1", 2.0)])
        fleet.submit([_asked(2), Accepted("m-1", 3.0)])  # in the same batch
        late = fleet.submit([noted, vitals], of=Life("m-1", 1))
        rightly = fleet.submit([vitals], of=Life("m-1", 2))
        with pytest.raises(BedplateError, match=re.escape(OVER)):
            await late
        assert len(await rightly) == 1
        assert fleet.world.machines["m-1"].incarnation == 2
        assert fleet.world.events_revision == 0

    with contextlib.closing(Store.open(tmp_path / "store.db")) as store:
        store.begin_epoch()
        fleet = Fleet(store, store.load(0.0), Settings(Config(), "1.0", b""), lambda: 5.0)

        async def writing() -> None:
            writer = asyncio.create_task(fleet.keep_writing())
            try:
                await work(fleet)
            finally:
                writer.cancel()
                await asyncio.wait([writer])

        asyncio.run(writing())
