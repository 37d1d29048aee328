"""The agent as it runs: the doors are made here, handed in, and closed again in the reverse order.

Rule 1: ready means ready: the first snapshot is there and the sockets listen. Being connected is not part of it: a
        machine whose provisioner is away is as healthy as before.
Rule 2: SIGTERM ends everything within 5 s, with a goodbye on the stream. SIGHUP reads the configuration again.
Rule 3: every long-lived task is born here, and has a name; where one dies, the agent ends and says why.
"""

import asyncio
import contextlib
import faulthandler
import logging
import os
import random
import signal
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


class Daemon:
    """One agent on one state folder."""

    def __init__(self, path: Path, config: Config) -> None:
        self._path = path
        self.config = config
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._because = ""
        self._said = ""

    async def run(self) -> None:
        """Until SIGTERM or SIGINT, or until a task dies. BedplateError where it cannot begin."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(alone(self.config.folder))
            agent = self._agent(stack)
            await agent.tick(EVERYTHING)
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
        uplink = Uplink(session, lambda: newcomer.identity, said=LOG.info, refused=newcomer.refused)
        agent = Agent(host, observer, uplink, newcomer, newcomer.have, self._say)
        newcomer.snapshot = lambda: agent.snapshot
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
        for fact in changes.deaf:
            LOG.warning("%s", fact)
        tasks = {
            asyncio.create_task(agent.uplink.run(), name="uplink"),
            asyncio.create_task(self._ticks(agent, changes), name="tick"),
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

    async def _ticks(self, agent: Agent, changes: Changes) -> None:
        """A tick every tick_s, and at once when the kernel says that something changed."""
        while True:
            try:
                async with asyncio.timeout(self.config.tick_s):
                    woken = await changes.next()
            except TimeoutError:
                woken = frozenset()
            await agent.tick(EVERYTHING if ALL_CHANGED in woken else woken)
            if watchdog_interval_s() is not None:
                notify("WATCHDOG=1")

    def _say(self, sentence: str) -> None:
        if sentence != self._said:
            self._said = sentence
            LOG.info("%s", sentence)
            notify(f"STATUS={sentence}")

    def _asked_to_stop(self, number: int) -> None:
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
        notify("READY=1")


def main(path: Path) -> int:
    """The agent in the foreground. BedplateError where it cannot begin."""
    faulthandler.enable()  # the watchdog's SIGABRT leaves where it stood
    config = configuration.load(path)
    logs.start(config.log, config.log_level)
    asyncio.run(Daemon(path, config).run())
    return 0
