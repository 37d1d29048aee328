"""The turnstile by hand: by whose name a call is counted, and what is said to whoever is too fast."""

import asyncio
import contextlib
import re

import grpc
import pytest
from google.rpc import error_details_pb2

from provisioner.access import NOBODY, Caller, RefusedError
from provisioner.config import Config
from provisioner.turnstile import (
    READ_AT_ONCE,
    READ_AT_ONCE_OF_A_MACHINE,
    REFLECTIONS,
    UNDER_WAY_OF_A_MACHINE,
    UNREAD_OF_AN_ADDRESS,
    UNREAD_OF_STRANGERS,
    Turnstile,
    address_of,
)

ALICE, BOB = Caller("alice", "viewer"), Caller("bob", "viewer")
MACHINE = Caller("m-aaaaaaaa", "machine", "m-aaaaaaaa", 1)
ANOTHER = Caller("m-bbbbbbbb", "machine", "m-bbbbbbbb", 1)
LIST, WATCH, ENROL = (
    "/bedplate.v1.Fleet/ListMachines",
    "/bedplate.v1.Fleet/WatchMachines",
    "/bedplate.v1.Enrolment/Enrol",
)
SESSION, RENEW = "/bedplate.v1.Uplink/Session", "/bedplate.v1.Uplink/Renew"
HEALTH = "/grpc.health.v1.Health/Check"
REFLECT = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
HERE = "ipv4:10.0.0.7:41234"


def _turnstile(**settings: float) -> Turnstile:
    return Turnstile(Config(**settings), lambda: 100.0)  # type: ignore[arg-type]  # time stands still


async def _call(
    gate: Turnstile, method: str, who: Caller, peer: str = HERE, *, stays: bool = False
) -> RefusedError | None:
    try:
        async with gate.passing(method, who, peer, stays=stays):
            return None
    except RefusedError as refused:
        return refused


async def _calls(gate: Turnstile, count: int, method: str, who: Caller, peer: str = HERE) -> RefusedError:
    """So many pass; the next one is refused, and why."""
    for _ in range(count):
        assert await _call(gate, method, who, peer) is None
    refused = await _call(gate, method, who, peer)
    assert refused is not None
    return refused


def _told(refused: RefusedError) -> tuple[str, str]:
    """Its reason and its line; the time in the line is the one in the details."""
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    (info,) = refused.details
    assert isinstance(info, error_details_pb2.RetryInfo)
    seconds = re.search(r"come back in (\d+) s$", refused.line)
    assert seconds
    assert abs(info.retry_delay.ToMilliseconds() / 1000 - int(seconds[1])) <= 0.5
    return refused.reason, refused.line.partition("; come back")[0]


def test_a_person_is_counted_by_name_and_told_when_to_come_back() -> None:
    async def main() -> None:
        gate = _turnstile(calls_per_s=0.1)
        refused = await _calls(gate, 1, LIST, ALICE)
        line = "cannot call ListMachines: alice (viewer) makes more than 0.1 calls a second"
        assert _told(refused) == ("CALLER_TOO_FAST", line)
        assert await _call(gate, LIST, ALICE, "ipv4:10.0.0.8:1") is not None, "from wherever"
        assert await _call(gate, LIST, BOB) is None

    asyncio.run(main())


def test_strangers_are_counted_by_address_and_then_together() -> None:
    async def main() -> None:
        gate = _turnstile(enrol_calls_per_s=0.3, enrol_calls_per_s_address=0.1)
        refused = await _calls(gate, 1, ENROL, NOBODY)
        assert _told(refused) == ("ADDRESS_TOO_FAST", "cannot call Enrol: too many calls come from 10.0.0.7")
        for address in ("10.0.0.8", "10.0.0.9"):
            assert await _call(gate, ENROL, NOBODY, f"ipv4:{address}:1") is None
        refused = await _call(gate, ENROL, NOBODY, "ipv4:10.0.0.10:1")
        assert refused
        assert _told(refused) == ("STRANGERS_TOO_FAST", "cannot call Enrol: too many newcomers call at once")

    asyncio.run(main())


def test_a_call_that_is_a_little_early_waits_for_its_turn() -> None:
    async def main() -> None:
        gate = _turnstile(calls_per_s=100.0)
        loop = asyncio.get_running_loop()
        for _ in range(1000):
            assert await _call(gate, LIST, ALICE) is None
        began = loop.time()
        assert await _call(gate, LIST, ALICE) is None
        assert loop.time() - began >= 0.009

    asyncio.run(main())


def test_a_machine_opens_so_many_streams_and_renews_so_often() -> None:
    async def main() -> None:
        gate = _turnstile()
        assert _told(await _calls(gate, 10, RENEW, MACHINE))[0] == "MACHINE_TOO_FAST"
        for _ in range(20):
            assert await _call(gate, SESSION, MACHINE, stays=True) is None
        refused = await _call(gate, SESSION, MACHINE, stays=True)
        assert refused
        assert _told(refused) == ("MACHINE_TOO_FAST", "cannot call Session: machine m-aaaaaaaa does so too often")

    asyncio.run(main())


def test_what_a_machine_asks_else_costs_it_no_renewal_and_has_a_rate_as_a_person_s_calls_have() -> None:
    async def main() -> None:
        gate = _turnstile(calls_per_s=0.1)
        refused = await _calls(gate, 1, HEALTH, MACHINE)
        line = "cannot call Check: machine m-aaaaaaaa makes more than 0.1 calls a second"
        assert _told(refused) == ("CALLER_TOO_FAST", line)
        assert await _call(gate, HEALTH, ALICE) is None
        assert _told(await _calls(gate, 10, RENEW, MACHINE))[0] == "MACHINE_TOO_FAST"

    asyncio.run(main())


def test_a_machine_has_four_streams_open_at_a_time_and_another_s_take_none_of_them() -> None:
    async def main() -> None:
        gate, other = _turnstile(), Caller("m-bbbbbbbb", "machine", "m-bbbbbbbb", 1)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(4):
                await stack.enter_async_context(gate.passing(SESSION, MACHINE, HERE, stays=True))
            refused = await _call(gate, SESSION, MACHINE, stays=True)
            assert refused
            line = "cannot call Session: machine m-aaaaaaaa opens too many streams at once"
            assert _told(refused) == ("PLACES", line)
            assert await _call(gate, SESSION, other, stays=True) is None
            assert await _call(gate, RENEW, MACHINE) is None, "a call that is over soon takes no such place"
        assert await _call(gate, SESSION, MACHINE, stays=True) is None

    asyncio.run(main())


def test_what_stays_open_has_its_places_and_gives_them_back() -> None:
    async def main() -> None:
        gate = _turnstile(watches=2)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(gate.passing(WATCH, ALICE, HERE, stays=True))
            refused = await _call(gate, WATCH, ALICE, stays=True)
            assert refused
            line = "cannot call WatchMachines: alice (viewer) has 2 streams open, and may have no more"
            assert _told(refused) == ("PLACES", line)
            assert await _call(gate, WATCH, BOB, stays=True) is None
        assert await _call(gate, WATCH, ALICE, stays=True) is None

    asyncio.run(main())


def test_of_one_person_s_calls_four_are_worked_at_and_another_s_do_not_wait_for_them() -> None:
    async def main() -> None:
        gate, at_work = _turnstile(), 0
        done = asyncio.Event()

        async def works() -> None:
            nonlocal at_work
            async with gate.passing(LIST, ALICE, HERE, stays=False), gate.turn(ALICE, stays=False):
                at_work += 1
                await done.wait()

        tasks = [asyncio.create_task(works()) for _ in range(50)]
        await asyncio.sleep(0)
        assert await _call(gate, LIST, BOB) is None
        assert at_work == 4
        done.set()
        await asyncio.gather(*tasks)
        assert at_work == 50

    asyncio.run(main())


def test_of_one_name_so_many_requests_are_read_at_once_and_those_that_wait_take_no_turn_and_no_other_s() -> None:
    async def main() -> None:
        for who, other, most in ((ALICE, BOB, READ_AT_ONCE), (MACHINE, ANOTHER, READ_AT_ONCE_OF_A_MACHINE)):
            gate, read = _turnstile(), 0
            whole = asyncio.Event()

            async def reads(gate: Turnstile, who: Caller, whole: asyncio.Event) -> None:
                nonlocal read
                async with gate.reading(who, HERE):
                    read += 1
                    await whole.wait()

            tasks = [asyncio.create_task(reads(gate, who, whole)) for _ in range(50)]
            await asyncio.sleep(0)
            async with gate.turn(who, stays=False), gate.reading(other, HERE):
                assert read == most
            whole.set()
            await asyncio.gather(*tasks)
            assert read == 50

    asyncio.run(main())


def test_of_strangers_so_many_requests_are_unread_by_address_and_in_all_and_further_ones_are_to_come_back() -> None:
    async def refused(gate: Turnstile, peer: str) -> tuple[str, str]:
        with pytest.raises(RefusedError) as error:
            async with gate.reading(NOBODY, peer):
                pass
        return _told(error.value)

    async def main() -> None:
        gate, full = _turnstile(), UNREAD_OF_STRANGERS // UNREAD_OF_AN_ADDRESS
        line = "cannot read the request: {} of {} have not come whole yet"
        async with contextlib.AsyncExitStack() as stack:
            for number in range(UNREAD_OF_STRANGERS):
                peer = f"ipv4:10.0.0.{number // UNREAD_OF_AN_ADDRESS}:1"
                await stack.enter_async_context(gate.reading(NOBODY, peer))
            assert await refused(gate, "ipv4:10.0.0.0:2") == ("PLACES", line.format(UNREAD_OF_AN_ADDRESS, "10.0.0.0"))
            for host in (full, full + 1):
                told = await refused(gate, f"ipv4:10.0.0.{host}:2")
                assert told == ("PLACES", line.format(UNREAD_OF_STRANGERS, "newcomers"))
            async with gate.reading(ALICE, HERE):
                pass
        assert (len(gate._unread), len(gate._unread_of_all)) == (0, 0)

    asyncio.run(main())


def test_a_machine_has_few_calls_under_way_and_anybody_few_streams_on_which_both_speak() -> None:
    async def main() -> None:
        gate = _turnstile()
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(UNDER_WAY_OF_A_MACHINE):
                await stack.enter_async_context(gate.passing(HEALTH, MACHINE, HERE, stays=False))
            refused = await _call(gate, HEALTH, MACHINE)
            assert refused
            assert _told(refused) == (
                "PLACES",
                "cannot call Check: machine m-aaaaaaaa has 16 calls under way, and may have no more",
            )
            for _ in range(REFLECTIONS):
                await stack.enter_async_context(gate.passing(REFLECT, ALICE, HERE, stays=True))
            refused = await _call(gate, REFLECT, ALICE, stays=True)
            assert refused
            line = "cannot call ServerReflectionInfo: alice (viewer) has 4 streams open, and may have no more"
            assert _told(refused) == ("PLACES", line)
            assert await _call(gate, WATCH, ALICE, stays=True) is None

    asyncio.run(main())


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.7:41234", "10.0.0.7"),
        ("ipv6:%5B2001:db8:1:2:3::4%5D:41234", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2:ffff::9]:5", "2001:db8:1:2::/64"),
        ("ipv6:%5B::ffff:10.0.0.7%5D:41234", "10.0.0.7"),
        ("ipv6:[fe80::1%25eth0]:1", "fe80::/64"),
        ("unix:", "unix:"),
    ],
)
def test_an_address_is_what_one_host_has_all_of(peer: str, address: str) -> None:
    assert address_of(peer) == address
