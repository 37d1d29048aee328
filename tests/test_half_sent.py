"""A request of which the last byte never comes is not held for long, nor many of them, whoever sends it; of whoever may
not call nothing is taken in.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

import grpc
import psutil
import pytest

from bedplate.v1.fleet_pb2 import GetStatusRequest
from provisioner import credentials
from provisioner.ports import MESSAGE, REQUEST_S
from provisioner.store import Store
from provisioner.turnstile import READ_AT_ONCE, UNREAD_OF_AN_ADDRESS
from provisioner.world import CredentialRevoked, Revoked
from tests import doors
from tests.crowd import crowded, founded, known
from tests.http2 import ENROL, WINDOW, Halves, client
from tests.running import site

MB = 1 << 20
SLACK = 25 * MB
GONE = "m-aaaaaaaa"
COUNT = 100
RENEW, LIST = "/bedplate.v1.Uplink/Renew", "/bedplate.v1.Fleet/ListMachines"


def _suffers(folder: Path, pair: str, halves: Sequence[Halves]) -> tuple[int, float, dict[str, int]]:
    """How many octets a provisioner grows by while these are held, for how long they are, and who is refused."""
    place = site(folder)
    with contextlib.closing(Store.open(folder / "provisioner" / "bedplate.db")) as store:
        store.begin_epoch()
        store.load(time.time())
        store.write([*known([GONE]), Revoked(GONE, time.time())])
    ca = credentials.load(folder / "provisioner")
    shown = {"": None, "machine": doors.machine(ca, GONE, 1), "viewer": doors.person(ca, "eve", "viewer")}[pair]

    async def held(process: psutil.Process) -> tuple[int, float]:
        address, tls = (place.host, place.port if shown else place.enrol_port), client(ca.roots_pem, shown)
        before, began = process.memory_info().rss, time.monotonic()
        most, tasks = before, [asyncio.create_task(one.hold(address, tls)) for one in halves]
        async with asyncio.timeout(REQUEST_S + 30):
            while not all(task.done() for task in tasks):
                await asyncio.wait(tasks, timeout=0.1)
                most = max(most, process.memory_info().rss)
        await asyncio.gather(*tasks)
        return most - before, time.monotonic() - began

    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        grew, took_s = asyncio.run(held(psutil.Process(provisioner.pid)))
        answer = json.loads(place.bedplate("status", "-o", "json").stdout)
        assert not answer.get("broken_off")
        return grew, took_s, {reason: int(count) for reason, count in answer["refused"].items()}


@pytest.mark.slow
def test_of_a_revoked_machine_nothing_is_taken_in_and_it_is_refused_at_once(tmp_path: Path) -> None:
    grew, took_s, refused = _suffers(tmp_path, "machine", [Halves(RENEW, COUNT, MESSAGE - 100)])
    assert refused == {"CERTIFICATE_REVOKED": COUNT}
    assert grew < SLACK
    assert took_s < REQUEST_S


@pytest.mark.slow
def test_of_a_person_a_few_requests_are_taken_in_and_all_are_cut_off_in_time(tmp_path: Path) -> None:
    grew, took_s, refused = _suffers(tmp_path, "viewer", [Halves(LIST, COUNT, MESSAGE - 100)])
    assert refused == {"REQUEST_TOO_SLOW": COUNT}
    assert grew < READ_AT_ONCE * MESSAGE + COUNT * WINDOW + SLACK
    assert took_s >= REQUEST_S - 1


@pytest.mark.slow
def test_of_strangers_so_many_are_taken_in_and_cut_off_in_time_and_the_others_are_to_come_back(tmp_path: Path) -> None:
    connections = UNREAD_OF_AN_ADDRESS // 8 + 8
    _, took_s, refused = _suffers(tmp_path, "", [Halves(ENROL, 8, 60_000) for _ in range(connections)])
    assert refused == {"REQUEST_TOO_SLOW": UNREAD_OF_AN_ADDRESS, "PLACES": 8 * 8}
    assert took_s >= REQUEST_S - 1


def test_whoever_is_taken_back_while_a_request_comes_is_refused_when_it_has_come(tmp_path: Path) -> None:
    crowd = founded(tmp_path)

    async def main() -> None:
        async with crowded(crowd) as running:
            eve = crowd.person("eve", "viewer")
            call = crowd.channels[-1].stream_unary(LIST)(timeout=20)
            await call.wait_for_connection()
            await eve.GetStatus(GetStatusRequest())  # on the same connection: that one is here too
            await running.fleet.write([CredentialRevoked("eve", "", time.time() + 60)])
            await call.write(b"")
            await call.done_writing()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert "was revoked" in (refused.value.details() or "")
            assert running.fleet.conduct.refused == {"CREDENTIAL_REVOKED": 1}
            assert running.fleet.conduct.broken_off == {}

    asyncio.run(main())
