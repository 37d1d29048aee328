"""Readers of a watch that stop to read: cut off with a revision to resume from, and nothing is kept for them."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from bedplate.v1 import fleet_pb2 as pb
from provisioner.pki import PersonIdentity, Role
from provisioner.world import Asked, Change, Noted
from tests.crowd import Crowd, founded
from tests.running import BIN, started
from tests.served import Served, asked, details, served

pytestmark = pytest.mark.slow

SMALL = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]  # a window of 64 KiB that does not grow
MACHINES = 300


def _large(number: int) -> Asked:
    return replace(asked(number), product=f"{number:04}" * 1000)


def _long(number: int) -> Noted:
    return Noted("machine.asked", f"m-{number:04}", "", f"{number:04}" * 1000, "provisioner", 1_799_999_900.0)


@dataclass(frozen=True, slots=True)
class Watch:
    """Of what, and what in it is large."""

    method: str
    request: type[pb.WatchMachinesRequest] | type[pb.WatchEventsRequest]
    large: Callable[[int], Change]
    told: Callable[[Any], tuple[str, int]]  # whom it is about, and the revision


WATCHES = (
    Watch(
        "WatchMachines",
        pb.WatchMachinesRequest,
        _large,
        lambda one: (one.machine.machine_id, one.revision),
    ),
    Watch(
        "WatchEvents",
        pb.WatchEventsRequest,
        _long,
        lambda one: (one.event.machine_id, one.event.revision),
    ),
)


async def _until(true: Callable[[], bool], limit_s: float = 20.0) -> None:
    async with asyncio.timeout(limit_s):
        while not true():  # noqa: ASYNC110 - counted by somebody else
            await asyncio.sleep(0.02)


def _stalled(here: Served, count: int = 1) -> Callable[[], bool]:
    return lambda: here.fleet.conduct.refused["READER_TOO_SLOW"] == count


async def _rest(call: Any) -> tuple[list[Any], grpc.aio.AioRpcError]:
    """What still comes, and how it ends."""
    found = []
    try:
        while (told := await call.read()) is not grpc.aio.EOF:
            found.append(told)
    except grpc.aio.AioRpcError as error:
        return found, error
    raise AssertionError("it ended without a word")


@pytest.mark.parametrize("watch", WATCHES, ids=lambda watch: watch.method)
def test_a_reader_that_stops_is_cut_off_with_a_revision_and_misses_nothing_when_it_resumes(
    tmp_path: Path, watch: Watch
) -> None:
    async def main() -> None:
        changes = [watch.large(number) for number in range(MACHINES)]
        async with served(tmp_path, changes, patience_s=0.2) as here:
            method = getattr(here.stub(options=SMALL), watch.method)
            call = method(watch.request())
            first = await call.read()
            await _until(_stalled(here))
            await here.write(watch.large(MACHINES))
            found, error = await _rest(call)
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            told = [watch.told(one) for one in (first, *found)]
            last = told[-1][1]
            assert (error.details() or "").endswith(f"took nothing for 0.2 s; begin again from revision {last}")
            assert details(error)["ErrorInfo"].reason == "READER_TOO_SLOW"
            assert details(error)["ErrorInfo"].metadata["revision"] == str(last)
            assert "RetryInfo" in details(error)
            assert len(told) < MACHINES
            again = method(watch.request(from_revision=last))
            while len(told) < MACHINES + 1:
                told.append(watch.told(await again.read()))
            assert [name for name, _ in told] == [f"m-{number:04}" for number in range(MACHINES + 1)]

    asyncio.run(main())


def test_readers_that_never_read_again_hold_nothing_and_others_are_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, [_large(number) for number in range(MACHINES)], patience_s=0.2) as here:
            calls = [here.stub(options=SMALL).WatchMachines(pb.WatchMachinesRequest()) for _ in range(20)]
            for call in calls:
                await call.read()
            await _until(_stalled(here, 20))
            assert [task for task in asyncio.all_tasks() if "watching" in repr(task.get_coro())] == []
            viewer = here.stub("vera", "viewer").WatchMachines(pb.WatchMachinesRequest())
            for _ in range(MACHINES):
                await viewer.read()
            viewer.cancel()
            for channel in here.channels:
                await channel.close()
            await _until(lambda: not [one for one in asyncio.all_tasks() if "_handle_rpc" in repr(one.get_coro())])

    asyncio.run(main())


def test_one_that_reads_slowly_but_does_is_not_cut_off(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, [_large(number) for number in range(MACHINES)], patience_s=2.0) as here:
            call = here.stub(options=SMALL).WatchMachines(pb.WatchMachinesRequest())
            for _ in range(MACHINES):
                await call.read()
                await asyncio.sleep(0.01)
            assert here.fleet.conduct.refused == {}

    asyncio.run(main())


@pytest.mark.slow
def test_a_hundred_readers_that_stopped_cost_no_memory_by_what_they_miss(tmp_path: Path) -> None:
    """If it were kept for them, it would be 3 MB for each."""
    crowd = founded(tmp_path / "state", [_large(number) for number in range(750)])
    with started("provisioner", *crowd.command(), folder=tmp_path) as program:
        program.wait_for("READY=1")
        before = psutil.Process(program.pid).memory_info().rss
        grown = asyncio.run(_stopped(crowd, program.pid, 100)) - before
    assert grown < 100 * (512 << 10), f"{grown >> 20} MiB for 100 readers"


async def _stopped(crowd: Crowd, pid: int, count: int) -> int:
    calls = [crowd.person(options=SMALL).WatchMachines(pb.WatchMachinesRequest()) for _ in range(count // 2)]
    calls += [crowd.person("bob", options=SMALL).WatchMachines(pb.WatchMachinesRequest()) for _ in range(count // 2)]
    for call in calls:
        await call.read()
    viewer = crowd.person("vera", "viewer").WatchMachines(pb.WatchMachinesRequest())
    for _ in range(750):  # whoever began before it was told all that it takes
        await viewer.read()
    rss: int = psutil.Process(pid).memory_info().rss
    await crowd.close()
    return rss


async def _environment(here: Served, folder: Path) -> dict[str, str]:
    """Of a person who has a context for it."""
    chain, key = here.ca.issue_person(PersonIdentity("vera", Role.VIEWER), now=time.time())
    for name, pem in {"ca": here.ca.roots_pem, "cert": chain, "key": key}.items():
        (folder / f"{name}.pem").write_bytes(pem)
        (folder / f"{name}.pem").chmod(0o600)
    environment = {**os.environ, "XDG_CONFIG_HOME": str(folder / "xdg")}
    command = ("context", "add", "test", "--address", here.address, "--credentials", str(folder), "--use")
    added = await asyncio.create_subprocess_exec(str(BIN / "bedplate"), *command, env=environment)
    assert await added.wait() == 0
    return environment


@pytest.mark.slow
def test_the_program_for_people_resumes_by_itself(tmp_path: Path) -> None:
    """`bedplate watch` whose terminal was held for a while."""

    async def main() -> None:
        machines = [_large(number) for number in range(5 * MACHINES)]
        async with served(tmp_path, machines, patience_s=0.5) as here:
            environment = await _environment(here, tmp_path)
            watch = await asyncio.create_subprocess_exec(
                str(BIN / "bedplate"),
                "watch",
                "-o",
                "json",
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                limit=1 << 20,
            )
            assert watch.stdout
            assert watch.stderr
            await watch.stdout.readline()
            os.kill(watch.pid, signal.SIGSTOP)
            await _until(_stalled(here))
            os.kill(watch.pid, signal.SIGCONT)
            for _ in range(5 * MACHINES - 1):
                await watch.stdout.readline()
            watch.send_signal(signal.SIGINT)
            said = (await watch.communicate())[1].decode()
            assert "its reader took nothing for 0.5 s" in said
            assert "going on from revision" in said

    asyncio.run(main())
