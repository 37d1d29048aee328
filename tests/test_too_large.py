"""A message of 100 MB is refused before it is taken in, whoever sends it, and the provisioner is none the larger."""

import asyncio
import time
from pathlib import Path

import grpc
import psutil
import pytest

from provisioner import credentials
from provisioner.pki import Authority
from tests import doors
from tests.running import Site, site

MB = 1 << 20
BODY = bytes(100 * MB)
WHO = ("a person", "a machine", "a stranger")


@pytest.mark.slow
def test_a_hundred_megabytes_are_refused_from_everybody_and_are_not_taken_into_memory(tmp_path: Path) -> None:
    place = site(tmp_path)
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        ca = credentials.load(tmp_path / "provisioner")
        process = psutil.Process(provisioner.pid)
        asyncio.run(_refused(place, ca))  # what is allocated once is allocated
        before = process.memory_info().rss
        asyncio.run(_refused(place, ca))
        assert process.memory_info().rss - before < 20 * MB
        assert place.bedplate("status").returncode == 0


async def _refused(place: Site, ca: Authority) -> None:
    main, door = f"{place.host}:{place.port}", f"{place.host}:{place.enrol_port}"
    machine, person = doors.machine(ca, "m-aaaaaaaa", 1), doors.person(ca, "olga", "admin", now=time.time())
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
