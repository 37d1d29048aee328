"""What the agent's server sees of an agent: a captured machine, and a tick that the test makes."""

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path

from bedplate.v1.node_pb2 import CaptureRequest
from bedplate.v1.snapshot_pb2 import Problem, Snapshot
from nodeagent.config import Config
from nodeagent.credentials import Have
from nodeagent.host import replayed
from nodeagent.observe import digest, scan
from nodeagent.service import serve
from nodeagent.session import Session
from nodeagent.uplink import Uplink

MACHINE = Path(__file__).parent / "machines" / "vm"


class Agent:
    """`look` is its tick."""

    def __init__(self):
        self.host = replayed(MACHINE)
        self.snapshot, self.digest, self.revision, self.scans = Snapshot(), b"", 0, 0
        self.uplink = Uplink(Session(b"run", "1", None), lambda: None)
        self.have = lambda: Have(None, time.time())
        self._seen = asyncio.Event()

    def look(self, snapshot):
        self.snapshot, self.digest, self.revision = snapshot, digest(snapshot.inventory), self.revision + 1
        self._seen.set()
        self._seen = asyncio.Event()

    async def fresh(self):
        self.scans += 1
        self.look(scan(self.host))

    async def wait_changed(self, since):
        while self.revision <= since:
            await self._seen.wait()

    def explain(self):
        return "connected to 10.0.0.5:7443", ["identity: good"]


@contextlib.asynccontextmanager
async def serving(agent=None, **settings):
    if agent is None:
        agent = Agent()
        agent.look(scan(agent.host))
    with tempfile.TemporaryDirectory(prefix="bp") as folder:
        async with serve(Config(**{"socket": f"{folder}/s", **settings}), agent) as port:
            yield f"unix:{folder}/s", port


def snapshot(load, **problem):
    made = Snapshot(problems=[Problem(**problem)] if problem else [])
    made.vitals.host.load_1m = load
    return made


async def captured(stub, *, scrub=False):
    return b"".join([answer.chunk async for answer in stub.Capture(CaptureRequest(scrub=scrub))])
