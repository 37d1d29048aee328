"""A message of 100 MB is refused before it is taken in, whoever sends it; it is counted, and others notice nothing."""

import asyncio
import contextlib
import json
import time
from pathlib import Path

import grpc
import psutil
import pytest

from bedplate.v1.fleet_pb2 import ListMachinesRequest
from bedplate.v1.fleet_pb2_grpc import FleetStub
from bedplate.v1.uplink_pb2 import Delta, Goodbye, Hello, SessionRequest
from bedplate.v1.uplink_pb2_grpc import UplinkStub
from provisioner import credentials
from provisioner.pki import Authority
from provisioner.session import WINDOW, acknowledged_after
from provisioner.store import Store
from tests import doors
from tests.crowd import known
from tests.running import Site, site, until

MB = 1 << 20
BODY = bytes(100 * MB)
GOOD, EVIL = "m-aaaaaaaa", "m-aaaaaaab"
HELLO = SessionRequest(hello=Hello(run_id=b"r" * 16))
AT_ONCE = acknowledged_after(WINDOW)
WHO = ("a person", "a machine", "a stranger")


@pytest.mark.slow
def test_a_hundred_megabytes_are_refused_from_everybody_and_are_not_taken_into_memory(tmp_path: Path) -> None:
    place = _place(tmp_path)
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        ca = credentials.load(tmp_path / "provisioner")
        process = psutil.Process(provisioner.pid)
        asyncio.run(_refused(place, ca))  # what is allocated once is allocated
        before = process.memory_info().rss
        asyncio.run(_refused(place, ca))
        assert process.memory_info().rss - before < 20 * MB
        assert _broken_off(place) == {"Fleet.ListMachines": 2, "Uplink.Renew": 2, "Enrolment.Enrol": 2}
        said = place.bedplate("status").stdout
        assert "Broken off   2 Enrolment.Enrol, 2 Fleet.ListMachines, 2 Uplink.Renew; docs/operations.md says" in said
        assert "No call" not in said, "each was a call"
        assert "Refused" not in said


@pytest.mark.slow
def test_a_machine_whose_stream_says_a_hundred_megabytes_is_explained_and_no_other_stream_or_call_notices(
    tmp_path: Path,
) -> None:
    place = _place(tmp_path)
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        asyncio.run(_beside_others(place, credentials.load(tmp_path / "provisioner")))
        until(lambda: _broken_off(place) == {"Uplink.Session": 3})
        assert "Cut off" not in place.bedplate("status").stdout
        assert "its stream broke off 3 times without a goodbye, last" in place.bedplate("explain", EVIL).stdout
        assert "broke off" not in place.bedplate("explain", GOOD).stdout


def _place(folder: Path) -> Site:
    """At which both machines are known."""
    place = site(folder)
    with contextlib.closing(Store.open(folder / "provisioner" / "bedplate.db")) as store:
        store.begin_epoch()
        store.load(time.time())
        store.write(list(known([GOOD, EVIL])))
    return place


def _broken_off(place: Site) -> dict[str, int]:
    answer = json.loads(place.bedplate("status", "-o", "json").stdout)
    return {method: int(count) for method, count in answer["broken_off"].items()}


async def _beside_others(place: Site, ca: Authority) -> None:
    """What the good one says is acknowledged and a call is answered while the other sends; it says goodbye at last."""
    main, person = f"{place.host}:{place.port}", doors.person(ca, "olga", "viewer", now=time.time())
    async with (
        doors.dial(main, ca, doors.machine(ca, GOOD, 1)) as one,
        doors.dial(main, ca, doors.machine(ca, EVIL, 1)) as other,
        doors.dial(main, ca, person) as people,
        asyncio.timeout(40),
    ):
        good = UplinkStub(one).Session()
        await good.write(HELLO)
        assert (await good.read()).HasField("welcome")
        for round_ in range(3):
            sending = asyncio.create_task(_sends_too_much(other))
            sequence = (round_ + 1) * AT_ONCE
            for number in range(sequence - AT_ONCE, sequence):
                await good.write(SessionRequest(delta=Delta(sequence=number + 1, whole=True)))
            assert len((await FleetStub(people).ListMachines(ListMachinesRequest())).machines) == 2
            while (await good.read()).ack.sequence < sequence:
                pass
            assert await sending is grpc.StatusCode.RESOURCE_EXHAUSTED
        await good.write(SessionRequest(goodbye=Goodbye(because="that is all")))
        assert await good.read() is grpc.aio.EOF


async def _sends_too_much(channel: grpc.aio.Channel) -> grpc.StatusCode:
    """After its hello. How the stream ended."""
    call = channel.stream_stream("/bedplate.v1.Uplink/Session")()
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.write(HELLO.SerializeToString())
        await call.read()
        await call.write(BODY)
        while await call.read() is not grpc.aio.EOF:
            pass
    return await call.code()


async def _refused(place: Site, ca: Authority) -> None:
    main, door = f"{place.host}:{place.port}", f"{place.host}:{place.enrol_port}"
    machine, person = doors.machine(ca, GOOD, 1), doors.person(ca, "olga", "admin", now=time.time())
    sent = (
        (main, person, "/bedplate.v1.Fleet/ListMachines"),
        (main, machine, "/bedplate.v1.Uplink/Renew"),
        (door, (None, None), "/bedplate.v1.Enrolment/Enrol"),
    )
    for who, (address, pair, method) in zip(WHO, sent, strict=True):
        async with doors.dial(address, ca, pair) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(method)(BODY, timeout=20)
            told = (refused.value.code(), "larger than max" in (refused.value.details() or ""))
            assert told == (grpc.StatusCode.RESOURCE_EXHAUSTED, True), who
