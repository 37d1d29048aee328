"""The agent as it runs: the doors are made here, handed in, and closed again in the reverse order.

Rule 1: ready means ready: the first snapshot is there and the sockets listen. Being connected is not part of it: a
        machine whose provisioner is away is as healthy as before.
Rule 2: SIGTERM ends everything within 5 s, with a goodbye on the stream; what hangs then is left hanging, for all that
        is kept is safe at every moment. SIGHUP reads the configuration again, and what waited for its turn is tried
        at once: somebody has just put something right.
Rule 3: every long-lived task is born here, and has a name; where one dies, the agent ends and says why.
Rule 4: a tick that fails is told, and the next one comes; but only one that ended well feeds the watchdog, so that the
        service manager ends what neither ticks nor dies.
"""

import asyncio
import contextlib
import faulthandler
import logging
import os
import random
import signal
import threading
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from nodeagent import config as configuration
from nodeagent import logs
from nodeagent.agent import Agent
from nodeagent.changes import EVERYTHING as ALL_CHANGED
from nodeagent.changes import Changes
from nodeagent.config import Config
from nodeagent.enrolment import Newcomer
from nodeagent.errors import ConfigError
from nodeagent.host import Host, live, replayed
from nodeagent.identity import IDENTITY, Identity
from nodeagent.lock import alone
from nodeagent.notify import notify, watchdog_interval_s
from nodeagent.nvml.client import Client
from nodeagent.observe import Observer
from nodeagent.probes import EVERYTHING, registry
from nodeagent.root import Root
from nodeagent.service import serve
from nodeagent.session import Session
from nodeagent.uplink import Uplink

LOG = logging.getLogger("nodeagent")
STOP_S = 4.0
LAST_S = 4.7  # after SIGTERM: whatever still hangs
DEAF_S = 300.0  # where the kernel does not say what changed: how often everything is read
Tick = Callable[[frozenset[str]], Awaitable[None]]


class Daemon:
    """One agent on one state folder."""

    def __init__(self, path: Path, config: Config, environment: Mapping[str, str] = os.environ) -> None:
        self._path = path
        self.config = config
        self._stop = asyncio.Event()
        self._because = ""
        self._said = ""
        self._who: Callable[[], Identity | None] = lambda: None  # once there is an agent, who it is
        self._environment = environment
        self._flaw = ""  # of the last tick
        self._log = logs.OnChange()
        self._again: list[Callable[[], None]] = []  # what is not waited for any longer after SIGHUP

    async def run(self) -> None:
        """Until SIGTERM or SIGINT, or until a task dies. BedplateError where it cannot begin."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(alone(self.config.folder, somebody=(self.config.folder / IDENTITY).exists()))
            agent = self._agent(stack)
            await self._first(agent.tick)
            await stack.enter_async_context(serve(self.config, agent))
            if self.config.metrics_listen:
                from nodeagent import metrics  # noqa: PLC0415 - 5 MiB that only those pay who scrape

                stack.callback(metrics.serve(self.config.metrics_listen, agent))
            notify("READY=1", f"STATUS={agent.because}")
            await self._work(agent, stack)
            notify("STOPPING=1", f"STATUS=stopping: {self._because}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await agent.stop(f"the agent is stopping: {self._because}")

    def _agent(self, stack: contextlib.AsyncExitStack) -> Agent:
        host = self._host(stack)
        observer = Observer(host)
        newcomer = Newcomer(self.config.folder, lambda: configuration.token(self.config), version("bedplate"))
        session = Session(os.urandom(16), version("bedplate"), random.Random())  # noqa: S311 - jitter
        uplink = Uplink(
            session,
            lambda: newcomer.identity,
            said=self._said_by("stream"),
            refused=newcomer.refused,
            stranded=newcomer.stranded,
        )
        agent = Agent(host, observer, uplink, newcomer, newcomer.have, self._say)
        newcomer.snapshot = lambda: agent.snapshot
        self._who = lambda: newcomer.identity
        self._again += [lambda: newcomer.put_off("", 0.0), uplink.wake]
        return agent

    def _host(self, stack: contextlib.AsyncExitStack) -> Host:
        if self.config.root:
            return replayed(Path(self.config.root))
        root = Root()
        client = Client(root, Path(self.config.nvml_library) if self.config.nvml_library else None)
        stack.callback(client.close)
        return live(client.doors(), root=root)

    async def _work(self, agent: Agent, stack: contextlib.AsyncExitStack) -> None:
        changes = Changes({name for probe in registry() for name in probe.on})
        changes.listen()
        stack.callback(changes.close)
        self._again.append(lambda: changes.heard({ALL_CHANGED}))
        for fact in changes.deaf:
            LOG.warning("%s", fact)
        tasks = {
            asyncio.create_task(agent.uplink.run(), name="uplink"),
            asyncio.create_task(self.ticks(agent.tick, changes), name="tick"),
            asyncio.create_task(self._stop.wait(), name="stop"),
        }
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks - done:
            if task.get_name() != "uplink":
                task.cancel()
        for task in done:
            if task.get_name() != "stop":
                self._because = f"the task {task.get_name()} died"
                task.result()

    async def _first(self, tick: Tick) -> None:
        """Until there is a snapshot, or nobody wants one any more."""
        while not await self._tick(tick, EVERYTHING) and not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.config.tick_s):
                    await self._stop.wait()

    async def ticks(self, tick: Tick, changes: Changes) -> None:
        """A tick every tick_s, and at once when the kernel says that something changed."""
        looked_at = -DEAF_S
        while True:
            woken = await self._until_due(changes)
            if changes.deaf and asyncio.get_running_loop().time() - looked_at >= DEAF_S:
                woken = EVERYTHING
            if ALL_CHANGED in woken:
                woken, looked_at = EVERYTHING, asyncio.get_running_loop().time()
            await self._tick(tick, woken)

    async def _until_due(self, changes: Changes) -> frozenset[str]:
        """What woke us, if anything did; meanwhile the service manager hears that we live, if we do."""
        clock = asyncio.get_running_loop().time
        due, feeding_s = clock() + self.config.tick_s, watchdog_interval_s(self._environment)
        while (left_s := due - clock()) > 0:
            if feeding_s and not self._flaw:
                notify("WATCHDOG=1", environment=self._environment)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, feeding_s or left_s)):
                    return await changes.next()
        return frozenset()

    async def _tick(self, tick: Tick, woken: frozenset[str]) -> bool:
        """Whether it ended well."""
        try:
            await tick(woken)
        except Exception as error:  # whatever it is, the next tick may do better
            flaw = f"cannot end a tick: {type(error).__name__}: {error}"
            if flaw != self._flaw:
                LOG.exception("%s", flaw)
            self._flaw = flaw
        else:
            if self._flaw:
                LOG.info("a tick ended well again")
            self._flaw = ""
        return not self._flaw

    def _said_by(self, who: str) -> Callable[[str], object]:
        """A way to say things that drops what was said just before."""
        return lambda sentence: self._log.say(who, sentence)

    def _say(self, sentence: str) -> None:
        if sentence != self._said:
            self._said = sentence
            if who := self._who():
                logs.mark(MACHINE_ID_BEDPLATE=who.machine_id)
            LOG.info("%s", sentence)
            notify(f"STATUS={sentence}")

    def _asked_to_stop(self, number: int) -> None:
        if not self._stop.is_set():
            last = threading.Timer(LAST_S, _leave)
            last.daemon = True
            last.start()
        self._because = signal.Signals(number).name
        self._stop.set()

    def _reload(self) -> None:
        notify("RELOADING=1")
        try:
            config = configuration.load(self._path)
        except ConfigError as error:
            LOG.error("%s; the old configuration stays", error)
        else:
            if kept := configuration.fixed(self.config, config):
                LOG.warning("a restart is needed to take over %s", ", ".join(kept))
            self.config = config
            LOG.setLevel(config.log_level.upper())
            LOG.info("read %s again", self._path)
            for again in self._again:
                again()
        notify("READY=1")


def _leave() -> None:
    LOG.warning("cannot end in order within %g s: something hangs, and is left so", LAST_S)
    os._exit(0)


def main(path: Path) -> int:
    """The agent in the foreground. BedplateError where it cannot begin."""
    faulthandler.enable()  # the watchdog's SIGABRT leaves where it stood
    config = configuration.load(path)
    logs.start(config.log, config.log_level)
    asyncio.run(Daemon(path, config).run())
    return 0
