"""The provisioner as it runs: the doors are made here, handed in, and closed again in the reverse order.

Rule 1: ready means ready: the store is open, both ports listen, the writer runs.
Rule 2: on SIGTERM everybody is told, what was submitted is written, and it ends within 5 s.
"""

import asyncio
import contextlib
import errno
import fcntl
import gc
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc

from bedplate.v1 import enrolment_pb2, fleet_pb2, uplink_pb2
from bedplate.v1.enrolment_pb2_grpc import add_EnrolmentServicer_to_server
from bedplate.v1.fleet_pb2_grpc import add_FleetServicer_to_server
from bedplate.v1.uplink_pb2_grpc import add_UplinkServicer_to_server
from provisioner import metrics, ports
from provisioner.access import Guard
from provisioner.arrivals import Arrivals
from provisioner.config import Config
from provisioner.described import describe
from provisioner.enrolment import EnrolmentServicer, Renewals
from provisioner.errors import BedplateError
from provisioner.fleet import Fleet, Settings
from provisioner.keyring import Keyring, watch
from provisioner.logs import about
from provisioner.notify import beat, notify
from provisioner.outbox import Outbox, configured
from provisioner.pki import Authority
from provisioner.roots import Roots
from provisioner.service import FleetServicer
from provisioner.store import Policy, Store
from provisioner.turnstile import Turnstile
from provisioner.uplink import UplinkServicer

DAY_S = 86400.0
GRACE_S = 1.0  # for calls under way; the uplink, the writer and this are less than 5 s together
WRITE_S = 1.5
FIRST_PRUNE_S = 300.0
PRUNE_EVERY_S = 3600.0
PRUNE_PAUSE_S = 0.1  # after each slice: the writer has most of the time
LOG = logging.getLogger("provisioner")


async def run(config: Config, say: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT. BedplateError where it cannot begin."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with _alone(config.folder):
        async with serving(config, say) as running:
            notify("READY=1")
            await running.tasks.until(stop)
            notify("STOPPING=1", "STATUS=stopping")
            say("stopping")


class Tasks:
    """Where each long-lived task is born, with a name. None of them ends by itself: one that does is noticed."""

    def __init__(self) -> None:
        self._broke: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def start(self, name: str, work: Coroutine[None, None, None]) -> Callable[[], Awaitable[None]]:
        """Returns what ends it."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)

        async def end() -> None:
            task.cancel()
            await asyncio.wait([task])

        return end

    async def until(self, stop: asyncio.Event) -> None:
        """BedplateError where a task ended before that: to begin anew is better than to go on without it."""
        waiting = asyncio.create_task(stop.wait(), name="stop")
        ends: list[asyncio.Future[Any]] = [waiting, self._broke]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._broke.done():
            raise BedplateError(f"cannot go on: {self._broke.result()}")

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            return
        error = task.exception()
        LOG.critical("the %s broke", task.get_name(), exc_info=error)
        if not self._broke.done():
            self._broke.set_result(
                f"the {task.get_name()} broke: {error!r}" if error else f"the {task.get_name()} ended"
            )


@dataclass(frozen=True, slots=True)
class Running:
    fleet: Fleet
    tasks: Tasks


@contextlib.asynccontextmanager
async def serving(config: Config, say: Callable[[str], None]) -> AsyncIterator[Running]:
    """The whole provisioner, for as long as the block runs."""
    keyring = Keyring(config.folder, _names(config), time.time)
    store = Store.open(config.folder / "bedplate.db")
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(store.close)
        fleet, tasks = _fleet(store, config, keyring), Tasks()
        stack.push_async_callback(_finish, fleet, tasks.start("writer", fleet.keep_writing()))
        roots = Roots(fleet, keyring)
        uplink = UplinkServicer(fleet, roots.renewing(Renewals(fleet, keyring).renew), renewal=roots.renew_within_s)
        roots.streams = uplink.conversations
        outbox = await Outbox.opened(fleet, configured(config, fleet, fleet.settings.version))
        if config.metrics_listen:
            collector = metrics.FleetCollector(fleet, config.silent_after_s, lambda: uplink.streams, outbox.standing)
            stack.push_async_callback(asyncio.to_thread, metrics.serve(config.metrics_listen, collector))
        conduct, gate = fleet.conduct, Turnstile(config)
        guard = Guard(lambda: fleet.world, gate, conduct.refuse, roots.trusted, conduct.break_off)
        roots.then.append(guard.calls.judge)
        people = FleetServicer(fleet, uplink.cut_off, judge=guard.calls.judge, sinks=outbox.standing)
        await _listen(stack, config, fleet, keyring, uplink, guard, people)
        stack.push_async_callback(tasks.start("roots", watch(keyring, roots.changed)))
        stack.push_async_callback(tasks.start("tick", fleet.keep_ticking(_tell, beat)))
        stack.push_async_callback(tasks.start("prune", prune(store, fleet.now, _policy(config))))
        stack.push_async_callback(_end_delivering, outbox, [tasks.start(name, work) for name, work in outbox.works()])
        say(f"serving on {config.listen}, enrolling on {config.enrol_listen}; epoch {fleet.world.epoch}")
        yield Running(fleet, tasks)


def _fleet(store: Store, config: Config, keyring: Keyring) -> Fleet:
    store.begin_epoch()
    world = store.load(time.time())
    gc.freeze()  # the world is large, lives long and has no cycles: looking for them again and again
    gc.set_threshold(100_000, 50, 100)  # was what made one answer in a hundred ten times slower than the others
    return Fleet(store, world, _settings(config, keyring.now.authority), time.time)


def _settings(config: Config, ca: Authority) -> Settings:
    return Settings(config, version("bedplate"), ca.server.sha256, ca.next_sha256)


async def _end_delivering(outbox: Outbox, ends: Sequence[Callable[[], Awaitable[None]]]) -> None:
    await asyncio.gather(*(end() for end in ends))
    await outbox.note()


async def _listen(  # noqa: PLR0913, PLR0917 - the doors
    stack: contextlib.AsyncExitStack,
    config: Config,
    fleet: Fleet,
    keyring: Keyring,
    uplink: UplinkServicer,
    guard: Guard,
    people: FleetServicer,
) -> None:
    ports.make_room(config)
    arrivals = {"listen": Arrivals(ports.IDLE_MS / 1000), "enrol_listen": Arrivals(ports.STRANGER_IDLE_MS / 1000)}
    fleet.conduct.arrivals.update(arrivals)
    at_main, at_door = (replace(guard, arrivals=those) for those in arrivals.values())
    main = grpc.aio.server(interceptors=[at_main], options=ports.main(config))
    add_UplinkServicer_to_server(uplink, main)
    add_FleetServicer_to_server(people, main)
    door = grpc.aio.server(interceptors=[at_door], options=ports.door(config))
    add_EnrolmentServicer_to_server(EnrolmentServicer(fleet, keyring, uplink.cut_off), door)
    stack.push_async_callback(_stop, uplink, (main, door))
    await describe(main, fleet_pb2.DESCRIPTOR, uplink_pb2.DESCRIPTOR)
    await describe(door, enrolment_pb2.DESCRIPTOR)
    for server, address, key_name in ((main, config.listen, "listen"), (door, config.enrol_listen, "enrol_listen")):
        _bind(server, address, keyring.served(mutual=server is main, begun=arrivals[key_name].begin), key_name)
        await server.start()


async def _stop(uplink: UplinkServicer, servers: Sequence[grpc.aio.Server]) -> None:
    await uplink.stop()
    await asyncio.gather(*(server.stop(GRACE_S) for server in servers))


def _bind(server: grpc.aio.Server, address: str, credential: grpc.ServerCredentials, key: str) -> None:
    try:
        bound = server.add_secure_port(address, credential)
    except RuntimeError:
        bound = 0
    if not bound:
        raise BedplateError(f"cannot listen on {address}: the port is taken or not ours to have; choose another {key}")


def _names(config: Config) -> list[str]:
    """What the server may be called: where it listens, what it advertises, and what the configuration adds."""
    hosts = [address.rpartition(":")[0].strip("[]") for address in (config.listen, config.enrol_listen)]
    hosts += [address.rpartition(":")[0].strip("[]") for address in (config.dial, config.enrol_dial)]
    hosts += [*config.names, "localhost", "127.0.0.1"]
    return list(dict.fromkeys(host for host in hosts if host and host not in ("0.0.0.0", "::")))  # noqa: S104


async def _tell(sentence: str) -> None:
    notify(f"STATUS={sentence}")


def _policy(config: Config) -> Policy:
    return Policy(
        inventories=config.inventories_kept,
        inventory_s=config.inventory_days * DAY_S,
        event_s=config.event_days * DAY_S,
        undelivered_s=config.event_days * DAY_S,
    )


async def prune(
    store: Store,
    clock: Callable[[], float],
    policy: Policy,
    first_s: float = FIRST_PRUNE_S,
    every_s: float = PRUNE_EVERY_S,
) -> None:
    """Runs for ever. Not at once: after a start all machines come back, and writes would wait for it."""
    await asyncio.sleep(first_s)
    while True:
        lost = Counter[str]()
        try:
            await _prune_once(store, clock(), policy, lost)
        except BedplateError as error:
            LOG.error("%s; what is old is kept for now, and it is tried again in %d min", error, every_s // 60)
        for name, count in lost.items():
            line = "%d events were dropped before %s had them: they are older than it may be away"
            LOG.error(line, count, name, extra=about(sink=name))
        await asyncio.sleep(every_s)


async def _prune_once(store: Store, now: float, policy: Policy, lost: Counter[str]) -> None:
    """In slices, and what machines report is written in between."""
    slices = await asyncio.to_thread(store.pruning, now, policy)
    while pruned := await asyncio.to_thread(next, slices, None):
        lost.update(pruned.lost)
        await asyncio.sleep(PRUNE_PAUSE_S)


async def _finish(fleet: Fleet, end_writer: Callable[[], Awaitable[None]]) -> None:
    """What was submitted is written, then the writer ends."""
    try:
        async with asyncio.timeout(WRITE_S):
            await fleet.write(())
    except (TimeoutError, BedplateError) as error:
        LOG.error("cannot write all that came last: %s", str(error) or f"it takes longer than {WRITE_S} s")
    await end_writer()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One provisioner on one state folder."""
    try:
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        advice = "; make it with provisioner init" if error.errno == errno.ENOENT else ""
        raise BedplateError(f"cannot use state folder {folder}: {error.strerror}{advice}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise BedplateError(f"cannot use state folder {folder}: another provisioner runs on it") from error
    finally:
        os.close(handle)
