"""While somebody does their worst, a healthy agent and a viewer are answered; and afterwards nothing is left of it."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bedplate.v1.fleet_pb2 import GetStatusRequest, ListEventsRequest, ListMachinesRequest
from bedplate.v1.uplink_pb2 import Delta, Hello, SessionRequest
from provisioner.conduct import Conduct
from provisioner.serve import Running
from provisioner.session import WINDOW, acknowledged_after
from tests import attacks
from tests.attacks import EVIL, Attack
from tests.crowd import Crowd, crowded, founded, known, names

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
GOOD = "m-aaaaaaaa"
ROUNDS = 5  # of the healthy, while the attack goes on
LIMIT_S = 60.0
Shown = Callable[[Conduct], bool]


class Healthy:
    """An agent that keeps to the rules, and a person who looks."""

    def __init__(self, crowd: Crowd) -> None:
        self.call = crowd.machine(GOOD).Session()
        self.viewer = crowd.person("vera", "viewer")
        self.sequence = 0

    async def begin(self) -> None:
        await self.call.write(SessionRequest(hello=Hello(run_id=b"g" * 16)))
        assert (await self.call.read()).HasField("welcome")

    async def round(self) -> None:
        """So many deltas that they are acknowledged at once are, and the list is answered."""
        await self.says()
        await self.asks()

    async def says(self) -> None:
        for _ in range(acknowledged_after(WINDOW)):
            self.sequence += 1
            await self.call.write(SessionRequest(delta=Delta(sequence=self.sequence, whole=True)))
        while (await self.call.read()).ack.sequence < self.sequence:
            pass

    async def asks(self) -> None:
        answer = await self.viewer.ListMachines(ListMachinesRequest())
        assert {machine.machine_id for machine in answer.machines} >= {GOOD, EVIL}

    async def looks(self, conduct: Conduct) -> None:
        """A person sees what was counted, and events that are few."""
        status = await self.viewer.GetStatus(GetStatusRequest())
        assert (dict(status.refused), dict(status.cut_off)) == (dict(conduct.refused), dict(conduct.cut_off))
        assert dict(status.broken_off) == dict(conduct.broken_off)
        assert conduct.lines(GOOD, time.time()) == []
        told = await self.viewer.ListEvents(ListEventsRequest(machine=EVIL))
        kinds = [event.kind for event in told.events]
        assert kinds.count("machine.problem.appeared") <= 3
        assert kinds.count("machine.problem.flapping") <= 1


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _foreign() -> Iterator["asyncio.Task[object]"]:
    """Tasks for a call, of the provisioner or of gRPC for it."""
    known = {"writer", "tick", "prune", "enrolment"}
    return (task for task in asyncio.all_tasks() if task.get_name() not in known and not task.done())


def _enough(_: Conduct) -> bool:
    return True


async def _assault(crowd: Crowd, attack: Attack, shown: Shown) -> Running:
    async with crowded(crowd) as running:
        healthy = Healthy(crowd)
        await healthy.begin()
        await healthy.round()
        await asyncio.sleep(0)
        tasks, descriptors = len(list(_foreign())), _descriptors()
        assault = asyncio.create_task(attack(crowd), name="assault")
        rounds = 0
        async with asyncio.timeout(LIMIT_S):
            while rounds < ROUNDS or not shown(running.fleet.conduct):
                await asyncio.sleep(0.1)  # a turn for the assault
                await (healthy.round() if rounds < ROUNDS else healthy.asks())  # more deltas are faster than it may
                rounds += 1
        assert not assault.done(), f"the assault gave up: {assault}"
        assault.cancel()
        await asyncio.wait([assault])
        mine, crowd.channels[2:] = crowd.channels[2:], []
        for channel in mine:
            await channel.close()
        async with asyncio.timeout(LIMIT_S):
            while len(list(_foreign())) > tasks or _descriptors() > descriptors + 8:  # noqa: ASYNC110 - they end without a word
                await asyncio.sleep(0.05)
        async with asyncio.timeout(LIMIT_S):
            await healthy.round()
            await healthy.looks(running.fleet.conduct)
        return running


def _suffered(folder: Path, attack: Attack, shown: Shown = _enough, **settings: float) -> Conduct:
    """Until it has shown."""
    crowd = founded(folder, known([GOOD, EVIL]), keepalive_s=1, **settings)
    return asyncio.run(_assault(crowd, attack, shown)).fleet.conduct


@pytest.mark.parametrize(
    "attack",
    [
        attacks.settings_without_end,
        attacks.pings_without_end,
        attacks.a_stream_that_is_never_read,
        attacks.good_messages_as_fast_as_it_can,
        attacks.streams_in_a_tight_loop,
    ],
)
def test_others_notice_nothing_of(attack: Attack, tmp_path: Path) -> None:
    _suffered(tmp_path, attack)


def _without_a_call(count: int) -> Shown:
    return lambda conduct: sum(those.begun - those.called for those in conduct.arrivals.values()) >= count


def _broken_off(method: str) -> Shown:
    return lambda conduct: conduct.broken_off[method] > 1


def _refused(reason: str) -> Shown:
    return lambda conduct: conduct.refused[reason] > 1


@pytest.mark.parametrize(
    ("attack", "shown"),
    [
        (attacks.garbage_instead_of_tls, _without_a_call(10)),
        (attacks.plaintext_instead_of_tls, _without_a_call(10)),
        (attacks.handshakes_that_never_end, _without_a_call(300)),
        (attacks.idle_connections, _without_a_call(200)),
        (attacks.garbage_after_tls, _without_a_call(10)),
        (attacks.calls_that_are_reset_at_once, _broken_off("Enrolment.Enrol")),
        (attacks.calls_that_are_begun_and_never_said, _broken_off("Enrolment.Enrol")),
        (attacks.requests_of_a_stranger_that_never_come_whole, _refused("REQUEST_TOO_SLOW")),
        (attacks.requests_of_a_person_that_never_come_whole, _refused("REQUEST_TOO_SLOW")),
        (attacks.requests_of_an_older_life_that_never_come_whole, _refused("OLDER_INCARNATION")),
        (attacks.a_hundred_megabytes, _broken_off("Uplink.Session")),
    ],
)
def test_others_notice_nothing_and_it_is_counted_of(attack: Attack, shown: Shown, tmp_path: Path) -> None:
    assert shown(_suffered(tmp_path, attack, shown))


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (attacks.bytes_that_are_no_message, "DECODE"),
        (attacks.deltas_out_of_order, "ORDER"),
        (attacks.the_same_delta_without_end, "WORTHLESS"),
        (attacks.inventories_that_nobody_asked_for, "WORTHLESS"),
    ],
)
def test_whoever_breaks_the_rules_is_cut_off_and_counted_and_told_of_once(
    attack: Attack, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fast = {"machine_messages_per_s": 1000.0, "machine_bytes_per_s": 1e9}  # so that it is not slowed down before that
    conduct = _suffered(tmp_path, attack, lambda conduct: conduct.cut_off[reason] > 1, **fast)
    assert "for what it sent" in conduct.lines(EVIL, time.time())[0]
    broken = [one for one in caplog.records if "broke the conversation" in one.getMessage()]
    assert 1 <= len(broken) <= 3
    assert [one.bedplate for one in broken] == [[("MACHINE_ID_BEDPLATE", EVIL), ("REASON", reason)]] * len(broken)
    assert [one for one in caplog.records if one.levelno >= logging.ERROR] == []


def test_one_that_sends_too_fast_is_read_more_slowly_and_not_cut_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    conduct = _suffered(tmp_path, attacks.good_messages_as_fast_as_it_can, lambda conduct: conduct.slowed_s > 0)
    assert conduct.cut_off == {}
    assert "read more slowly" in conduct.lines(EVIL, time.time())[0]
    (slowed,) = [one for one in caplog.records if "read more slowly" in one.getMessage()]
    assert slowed.bedplate == [("MACHINE_ID_BEDPLATE", EVIL)]


def test_one_that_opens_streams_in_a_loop_is_told_when_to_come_back(tmp_path: Path) -> None:
    _suffered(tmp_path, attacks.streams_in_a_tight_loop, lambda conduct: conduct.refused["MACHINE_TOO_FAST"] > 0)


def test_a_person_that_lists_without_end_waits_behind_nobody_but_itself(tmp_path: Path) -> None:
    crowd = founded(tmp_path, known([*names(2), *(f"m-zz{name[4:]}" for name in names(3000))]), keepalive_s=1)
    asyncio.run(_assault(crowd, attacks.lists_without_end, _enough))


def test_strangers_that_ask_without_end_are_told_when_to_come_back(tmp_path: Path) -> None:
    few = {"enrol_calls_per_s": 5.0, "enrol_calls_per_s_address": 5.0}
    _suffered(tmp_path, attacks.enrolments_without_end, lambda conduct: conduct.refused["ADDRESS_TOO_FAST"] > 0, **few)
