"""Which ends of a machine's stream are counted as broken off: those of which neither end had said a word."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from bedplate.v1.uplink_pb2 import Goodbye, Hello
from provisioner.world import Revoked
from tests.edge import RUN, Edge, edge

A, B = "m-aaaaaaaa", "m-bbbbbbbb"


def _run(folder: Path, work: Callable[[Edge], Awaitable[None]]) -> None:
    async def main() -> None:
        async with edge(folder) as place:
            await work(place)

    asyncio.run(main())


async def _all_over(place: Edge) -> None:
    async with asyncio.timeout(3):
        while place.uplink.streams:  # noqa: ASYNC110 - it is many things
            await asyncio.sleep(0.01)


def _broken_off(place: Edge) -> int:
    return place.fleet.conduct.broken_off["Uplink.Session"]


def test_a_stream_that_its_machine_ends_without_a_goodbye_is_counted_and_no_other_is(tmp_path: Path) -> None:
    async def work(place: Edge) -> None:
        said = await place.meet(B)
        await said.say(goodbye=Goodbye(because="enough"))
        assert await said.end() == ""
        bad = await place.meet(B)
        await bad.say(hello=Hello(run_id=RUN))
        assert "hello after the hello" in await bad.end()
        await _all_over(place)
        assert _broken_off(place) == 0
        for count, end in enumerate(("cancel", "done_writing", "nothing"), 1):
            peer = await place.meet(A)
            if end == "cancel":
                peer.call.cancel()
            elif end == "done_writing":
                await peer.call.done_writing()
            else:
                older, peer = peer, await place.meet(A)
                assert "a younger stream" in await older.end()
                await place.fleet.write([Revoked(A, 5.0)])
                await place.uplink.cut_off(A, "it was revoked")
                assert await peer.end() == "it was revoked"
            await _all_over(place)
            assert _broken_off(place) == count, end
        (told,) = [line for line in place.fleet.conduct.lines(A, place.fleet.now()) if "broke off" in line]
        assert "its stream broke off 3 times without a goodbye" in told
        assert not [line for line in place.fleet.conduct.lines(B, place.fleet.now()) if "broke off" in line]

    _run(tmp_path, work)


def test_a_stream_that_a_younger_one_had_counted_already_is_not_counted_again_at_its_end(tmp_path: Path) -> None:
    async def work(place: Edge) -> None:
        peer = await place.meet(A)
        place.uplink.conversations[A].lose()  # as a younger one does where gRPC ends the older at that moment
        peer.call.cancel()
        await _all_over(place)
        assert _broken_off(place) == 1

    _run(tmp_path, work)


def test_a_provisioner_that_stops_counts_no_stream_as_broken_off(tmp_path: Path) -> None:
    async def work(place: Edge) -> None:
        peers = [await place.meet(name) for name in (A, B)]
        stopped = asyncio.create_task(place.uplink.stop())
        assert [await peer.end() for peer in peers] == ["the provisioner is stopping"] * 2
        await stopped
        assert _broken_off(place) == 0

    _run(tmp_path, work)
