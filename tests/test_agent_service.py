"""The agent's own gRPC server on its unix socket, before a captured machine."""

import asyncio
import io
import tarfile

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from bedplate.v1.node_pb2 import ExplainRequest, GetSnapshotRequest, GetTopologyRequest, WatchSnapshotRequest
from bedplate.v1.node_pb2_grpc import NodeAgentStub
from nodeagent.host import replayed
from nodeagent.observe import digest, scan
from nodeagent.service import news
from nodeagent.shipped import SAFELY
from tests.shown_agent import Agent, captured, serving, snapshot


def told(address, story):
    """Run a story with a stub at this address."""

    async def run():
        async with grpc.aio.insecure_channel(address) as channel:
            return await story(NodeAgentStub(channel))

    return run()


def test_what_the_agent_has_is_what_is_answered():
    async def story():
        agent = Agent()
        agent.look(scan(agent.host))
        async with serving(agent) as (address, _), grpc.aio.insecure_channel(address) as channel:
            stub = NodeAgentStub(channel)
            answer = await stub.GetSnapshot(GetSnapshotRequest())
            assert (answer.snapshot, answer.inventory_digest) == (agent.snapshot, agent.digest)
            assert (await stub.GetTopology(GetTopologyRequest())).topology == agent.snapshot.inventory.topology
            explained = await stub.Explain(ExplainRequest())
            assert (explained.because, list(explained.evidence)) == ("connected to 10.0.0.5:7443", ["identity: good"])

    asyncio.run(story())


def test_a_fresh_snapshot_is_scanned_for_and_another_is_not():
    async def story():
        agent = Agent()
        async with serving(agent) as (address, _), grpc.aio.insecure_channel(address) as channel:
            stub = NodeAgentStub(channel)
            await stub.GetSnapshot(GetSnapshotRequest(fresh=True))
            await stub.GetSnapshot(GetSnapshotRequest())
            assert agent.scans == 1

    asyncio.run(story())


def test_whoever_asks_before_the_first_scan_waits_for_it():
    async def story():
        agent = Agent()
        async with serving(agent) as (address, _), grpc.aio.insecure_channel(address) as channel:
            asking = asyncio.ensure_future(NodeAgentStub(channel).GetSnapshot(GetSnapshotRequest()))
            await asyncio.sleep(0.05)
            assert not asking.done()
            agent.look(scan(agent.host))
            assert (await asking).snapshot == agent.snapshot

    asyncio.run(story())


def test_a_watch_shows_what_left_its_dead_band_and_nothing_that_trembles():
    async def story():
        agent = Agent()
        agent.look(snapshot(0.0))
        async with serving(agent) as (address, _), grpc.aio.insecure_channel(address) as channel:
            watch = NodeAgentStub(channel).WatchSnapshot(WatchSnapshotRequest())
            assert (await watch.read()).snapshot.vitals.host.load_1m == 0.0
            for load in (0.1, 0.2, 9.0):
                agent.look(snapshot(load))
                await asyncio.sleep(0)
            assert (await watch.read()).snapshot.vitals.host.load_1m == 9.0
            agent.look(snapshot(9.1, probe="rdma"))
            assert (await watch.read()).snapshot.problems[0].probe == "rdma"
            watch.cancel()

    asyncio.run(story())


def test_a_slow_reader_gets_the_newest_and_nothing_is_kept_for_it():
    async def story():
        agent, last = Agent(), 400
        agent.look(snapshot(0.0, part="0"))
        async with serving(agent) as (address, _), grpc.aio.insecure_channel(address) as channel:
            watch = NodeAgentStub(channel).WatchSnapshot(WatchSnapshotRequest())
            await watch.read()
            for number in range(1, last + 1):
                agent.look(snapshot(0.0, part=str(number), detail="x" * 200_000))
                await asyncio.sleep(0.001)
            seen = []
            while not seen or seen[-1] < last:
                seen.append(int((await watch.read()).snapshot.problems[0].part))
            watch.cancel()
            assert seen == sorted(seen)
            assert len(seen) < last / 2

    asyncio.run(story())


def test_what_counts_as_news():
    assert not news(snapshot(1.0), snapshot(1.5))
    assert news(snapshot(1.0), snapshot(5.0))
    assert news(snapshot(1.0, probe="a"), snapshot(1.0))


def test_a_capture_over_the_wire_replays_to_the_same_machine(tmp_path):
    async def story():
        agent = Agent()
        agent.look(scan(agent.host))
        async with serving(agent) as (address, _):
            data = await told(address, captured)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(tmp_path, **SAFELY)
        assert digest(scan(replayed(tmp_path)).inventory) == agent.digest

    asyncio.run(story())


def test_health_and_reflection_are_served():
    async def story():
        async with serving() as (address, _), grpc.aio.insecure_channel(address) as channel:
            check = health_pb2.HealthCheckRequest(service="bedplate.v1.NodeAgent")
            health = await health_pb2_grpc.HealthStub(channel).Check(check)
            assert health.status == health_pb2.HealthCheckResponse.SERVING
            ask = reflection_pb2.ServerReflectionRequest(list_services="")
            call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask]))
            names = [service.name async for answer in call for service in answer.list_services_response.service]
            assert "bedplate.v1.NodeAgent" in names

    asyncio.run(story())
