"""The agent's figures, as Prometheus fetches them."""

import asyncio
import socket
import urllib.request

import pytest

from bedplate.v1.snapshot_pb2 import Problem
from nodeagent import metrics
from nodeagent.errors import BedplateError
from tests.shown_agent import Agent, snapshot


def free_port():
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def test_the_agents_figures_are_there_for_prometheus():
    async def story():
        agent, address = Agent(), f"127.0.0.1:{free_port()}"
        agent.look(snapshot(1.0, probe="rdma", kind=Problem.KIND_TIMEOUT))
        stop = metrics.serve(address, agent)
        try:
            with pytest.raises(BedplateError, match=f"cannot serve metrics on {address}: Address already in use; end"):
                metrics.serve(address, agent)
            page = await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://{address}/metrics").read().decode())
        finally:
            stop()
        assert "bedplate_agent_connected 0.0" in page
        assert "bedplate_agent_scans_total 1.0" in page
        assert 'bedplate_agent_problems{kind="timeout",probe="rdma"} 1.0' in page
        assert "process_cpu_seconds_total" in page

    asyncio.run(story())
