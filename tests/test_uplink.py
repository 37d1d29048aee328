"""The edge of the conversations over real connections: younger streams, hostile peers, a store that refuses."""

import asyncio
import contextlib
import hashlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest

from bedplate.v1.snapshot_pb2 import Inventory, Os, Vitals
from bedplate.v1.uplink_pb2 import Delta, Goodbye, Hello, InventoryBody, SessionResponse
from nodeagent.uplink import CHANNEL_OPTIONS
from provisioner import ports
from provisioner.access import standing
from provisioner.config import Config
from provisioner.conversation import RETRY_S
from provisioner.pki import MachineIdentity
from provisioner.world import Forgotten, Revoked
from tests.edge import RUN, Edge, edge

A, B = "m-aaaaaaaa", "m-bbbbbbbb"


def _run(folder: Path, work: Callable[[Edge], Awaitable[None]], **settings: float) -> None:
    async def main() -> None:
        broken: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context))
        async with edge(folder, **settings) as place:
            await work(place)
        await asyncio.sleep(0)
        assert broken == [], "a task ended with an error that nobody took"

    asyncio.run(main())


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(3):
        while not true():  # noqa: ASYNC110 - many things, seldom
            await asyncio.sleep(0.01)


def _whole(sequence: int) -> Delta:
    return Delta(sequence=sequence, whole=True, vitals=Vitals())


def test_of_a_stream_that_is_well_one_end_alone_asks_for_the_other() -> None:
    agents_ms = dict(CHANNEL_OPTIONS)["grpc.keepalive_time_ms"]
    assert dict(ports.main(Config()))["grpc.keepalive_time_ms"] > agents_ms, "both would, and each costs as much"


def test_a_younger_stream_ends_the_older_one_and_both_are_told_apart(tmp_path: Path) -> None:
    async def work(place: Edge) -> None:
        older = await place.meet(A)
        await older.say(delta=_whole(1))
        await _until(lambda: place.fleet.world.machines[A].sequence == 1)  # on a connection of its own it may be late
        younger = place.dial(A)
        await younger.say(hello=Hello(run_id=RUN))
        welcome = (await younger.hear()).welcome
        assert welcome.stored_sequence == 1
        assert "a younger stream" in await older.end()
        await younger.say(delta=_whole(2))
        await _until(lambda: place.fleet.world.machines[A].sequence == 2)
        assert place.fleet.world.connected(place.fleet.world.machines[A])
        assert place.uplink.streams == 1

    _run(tmp_path, work)


def test_an_inventory_that_is_there_and_back_before_it_is_stored_is_two_changes(tmp_path: Path) -> None:
    bodies = [Inventory(os=Os(kernel=kernel)).SerializeToString() for kernel in ("6.1", "6.2")]
    one, other = (InventoryBody(digest=hashlib.sha256(body).digest(), inventory=body) for body in bodies)

    async def work(place: Edge) -> None:
        peer = await place.meet(A)
        for sequence, body in enumerate((one, other), 1):
            whole = _whole(sequence)
            whole.inventory_digest = body.digest
            await peer.say(delta=whole)
            while not (await peer.hear()).HasField("want_inventory"):
                pass
            await peer.say(inventory=body)
            if body is one:
                await _until(lambda: place.fleet.world.machines[A].inventory_digest == one.digest)
        await peer.say(delta=Delta(sequence=3, whole=True, inventory_digest=one.digest))
        changed = "its inventory changed: kernel "
        told = [f"{changed}6.1 -> 6.2", f"{changed}6.2 -> 6.1"]
        await _until(lambda: len(place.fleet.store.events(machine_id=A)) == len(told) + 1)
        assert [event.because for event in place.fleet.store.events(machine_id=A)][1:] == told

    _run(tmp_path, work)


def test_of_many_streams_that_begin_at_once_one_stays(tmp_path: Path) -> None:
    async def work(place: Edge) -> None:
        peers = [place.dial(A) for _ in range(5)]
        await asyncio.gather(*(peer.say(hello=Hello(run_id=RUN)) for peer in peers))
        ends = [asyncio.create_task(peer.end()) for peer in peers]
        await _until(lambda: sum(end.done() for end in ends) == 4)
        assert {end.result() for end in ends if end.done()} == {"a younger stream of the same machine took its place"}
        assert place.uplink.streams == 1
        await _until(lambda: place.fleet.world.connected(place.fleet.world.machines[A]))
        last = next(end for end in ends if not end.done())
        last.cancel()
        await asyncio.wait([last])

    _run(tmp_path, work)


def test_a_machine_that_is_forgotten_is_cut_off_at_once(tmp_path: Path) -> None:
    async def work(place: Edge) -> None:
        peer = await place.meet(A)
        await place.fleet.write([Forgotten(A, 5.0)])
        await place.uplink.cut_off(A, "it was forgotten")
        assert await peer.end() == "it was forgotten"
        await _until(lambda: place.uplink.streams == 0)

    _run(tmp_path, work)


def test_a_stream_of_the_life_that_a_machine_is_in_is_not_cut_off_for_one_that_is_over(tmp_path: Path) -> None:
    async def work(place: Edge) -> None:
        peer = await place.meet(A)
        await place.uplink.cut_off(A, "another key was let in as this machine")  # and is here by now
        await peer.say(delta=_whole(1))
        await _until(lambda: place.fleet.world.machines[A].sequence == 1)
        assert place.uplink.conversations[A].because == ""

    _run(tmp_path, work)


def test_a_stream_of_a_machine_that_is_revoked_is_cut_off_and_what_it_says_meanwhile_is_not_kept(
    tmp_path: Path,
) -> None:
    async def work(place: Edge) -> None:
        good, peer = await place.meet(B), await place.meet(A)
        await place.fleet.write([Revoked(A, 5.0)])
        await peer.say(delta=_whole(1))
        assert await peer.end() == "this machine is not known here any more, or in a younger incarnation"
        await _until(lambda: place.uplink.streams == 1)
        await _until(lambda: place.fleet.world.machines[A].session == "")  # that it parted is written soon after
        assert place.fleet.world.machines[A].sequence == 0
        refused = standing(MachineIdentity(A, 1), place.fleet.world)
        assert refused is not None
        assert refused.reason == "CERTIFICATE_REVOKED"
        await good.say(delta=_whole(1))
        await _until(lambda: place.fleet.world.machines[B].sequence == 1)

    _run(tmp_path, work)


def test_a_machine_that_is_forgotten_while_its_stream_begins_gets_none(tmp_path: Path) -> None:
    async def work(place: Edge) -> None:
        forgotten = place.fleet.submit([Forgotten(A, 5.0)])
        peer = place.dial(A)
        with contextlib.suppress(grpc.aio.AioRpcError):  # refused at the door by now
            await peer.say(hello=Hello(run_id=RUN))
        await forgotten
        await place.uplink.cut_off(A, "it was forgotten")
        async with asyncio.timeout(3):
            with contextlib.suppress(grpc.aio.AioRpcError):  # refused there, or dismissed behind it
                while isinstance(await peer.call.read(), SessionResponse):
                    pass  # the status comes only after what was sent was read
            assert await peer.call.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.OK)
        assert place.uplink.streams == 0

    _run(tmp_path, work)


def test_what_breaks_the_conversation_is_dismissed_and_others_notice_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(place: Edge) -> None:
        good, bad = await place.meet(B), await place.meet(A)
        await bad.say(hello=Hello(run_id=RUN))
        assert await bad.end() == "cannot go on: hello after the hello"
        await good.say(delta=_whole(1))
        await _until(lambda: place.fleet.world.machines[B].sequence == 1)
        await _until(lambda: place.fleet.world.machines[A].session == "")
        assert "hello after the hello" in place.fleet.world.machines[A].parted_because

    _run(tmp_path, work)
    errors = [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR]
    assert [line for line in errors if "CancelledError" not in line and "not handled" not in line] == []


def test_one_who_goes_on_after_the_goodbye_is_not_heard(tmp_path: Path) -> None:
    async def work(place: Edge) -> None:
        peer = await place.meet(A)
        await peer.say(goodbye=Goodbye(because="enough"))
        assert await peer.end() == ""
        await _until(lambda: place.fleet.world.machines[A].parted_because == "enough")

    _run(tmp_path, work)


def test_one_who_dials_and_says_nothing_is_dismissed(tmp_path: Path) -> None:
    async def work(place: Edge) -> None:
        peer = place.dial(A)
        assert await peer.end() == "cannot go on: no hello within 0.1 s"

    _run(tmp_path, work, hello_s=0.1)


def test_what_the_store_does_not_take_is_not_acknowledged_and_the_agent_is_told_when_to_come_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(place: Edge) -> None:
        peers = [await place.meet(name) for name in (A, B)]
        thief = sqlite3.connect(tmp_path / "bedplate.db", isolation_level=None)
        thief.execute("UPDATE counters SET epoch = epoch + 1")
        for peer in peers:
            await peer.say(delta=_whole(1))
        for peer in peers:
            dismissal = (await peer.hear()).dismissal
            assert "another provisioner has taken it over" in dismissal.because
            assert dismissal.retry_after_s == RETRY_S
        thief.execute("UPDATE counters SET epoch = epoch - 1")
        thief.close()
        await _until(lambda: place.uplink.streams == 0)
        again = place.dial(A)
        await again.say(hello=Hello(run_id=RUN))
        assert (await again.hear()).welcome.stored_sequence == 0
        await again.say(delta=_whole(1))
        await _until(lambda: place.fleet.world.machines[A].sequence == 1)

    _run(tmp_path, work)
    told = [one.getMessage() for one in caplog.records if one.name == "provisioner" and one.levelno >= logging.ERROR]
    assert len(told) == 1, "an error that goes on is one line"


def test_a_store_that_cannot_be_read_is_a_dismissal_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(place: Edge) -> None:
        thief = sqlite3.connect(tmp_path / "bedplate.db", isolation_level=None)
        thief.execute("ALTER TABLE vitals RENAME TO stolen")
        thief.close()
        peer = place.dial(A)
        await peer.say(hello=Hello(run_id=RUN))
        assert (await peer.end()).startswith("cannot read store")

    _run(tmp_path, work)
    assert not any("Unexpected" in one.getMessage() for one in caplog.records)


def test_a_peer_that_vanishes_while_its_facts_are_written_leaves_no_broken_task(tmp_path: Path) -> None:
    async def work(place: Edge) -> None:
        for _ in range(5):
            peer = await place.meet(A)
            for sequence in range(1, 9):
                await peer.say(delta=_whole(sequence))
            peer.call.cancel()
        await _until(lambda: place.uplink.streams == 0)
        await place.fleet.write(())
        await _until(lambda: place.fleet.world.machines[A].session == "")

    _run(tmp_path, work)


def test_a_peer_that_does_not_read_holds_nobody_up(tmp_path: Path) -> None:
    async def work(place: Edge) -> None:
        older = await place.meet(A)
        conversation = place.uplink._conversations[A]
        await conversation.writing.acquire()  # as a write that waits for the peer to read does
        began = asyncio.get_running_loop().time()
        conversation.cut("it was forgotten", 60.0)
        await _until(lambda: place.uplink.streams == 0)
        assert asyncio.get_running_loop().time() - began < 2
        await place.meet(A)
        conversation.writing.release()
        assert await older.end() == "it was forgotten"

    _run(tmp_path, work)


def test_when_it_stops_everybody_is_told_and_what_that_means_is_written(tmp_path: Path) -> None:
    async def work(place: Edge) -> None:
        peers = [await place.meet(name) for name in (A, B)]
        peers[0].call.cancel()
        await place.uplink.stop()
        assert await peers[1].end() == "the provisioner is stopping"
        await place.fleet.write(())
        assert [facts.session for facts in place.fleet.world.known] == ["", ""]

    _run(tmp_path, work)
