"""The agent's own gRPC server, on its unix socket and over mTLS, before a captured machine."""

import asyncio
import contextlib
import io
import socket
import tarfile
import tempfile
import time
import urllib.request
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from bedplate.v1 import node_pb2
from bedplate.v1.node_pb2 import (
    CaptureRequest,
    ExplainRequest,
    GetSnapshotRequest,
    GetTopologyRequest,
    WatchSnapshotRequest,
)
from bedplate.v1.node_pb2_grpc import NodeAgentStub
from bedplate.v1.snapshot_pb2 import Problem, Snapshot
from nodeagent import metrics
from nodeagent.access import METHODS, denial, role_of
from nodeagent.config import Config
from nodeagent.credentials import Have
from nodeagent.errors import BedplateError
from nodeagent.host import replayed
from nodeagent.keys import make_key
from nodeagent.observe import digest, scan
from nodeagent.service import news, serve
from nodeagent.session import Session
from nodeagent.uplink import Uplink
from provisioner.pki import MachineIdentity, PersonIdentity, Role, authority, new_key

MACHINE = Path(__file__).parent / "machines" / "vm"
NOW = time.time()
CA = authority(new_key(), now=NOW)


class Agent:
    """What the server sees of an agent; `look` is its tick."""

    def __init__(self):
        self.host = replayed(MACHINE)
        self.snapshot, self.digest, self.revision, self.scans = Snapshot(), b"", 0, 0
        self.uplink = Uplink(Session(b"run", "1", None), lambda: None)
        self.have = lambda: Have(None, NOW)
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


def snapshot(load, **problem):
    made = Snapshot(problems=[Problem(**problem)] if problem else [])
    made.vitals.host.load_1m = load
    return made


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


async def captured(stub, *, scrub=False):
    return b"".join([answer.chunk async for answer in stub.Capture(CaptureRequest(scrub=scrub))])


def test_a_capture_over_the_wire_replays_to_the_same_machine(tmp_path):
    async def story():
        agent = Agent()
        agent.look(scan(agent.host))
        async with serving(agent) as (address, _):
            data = await told(address, captured)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(tmp_path, filter="tar")
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


def test_every_method_has_a_row_in_the_table_of_who_may_call_what():
    methods = node_pb2.DESCRIPTOR.services_by_name["NodeAgent"].methods
    assert {method for method in METHODS if "NodeAgent" in method} == {
        f"/bedplate.v1.NodeAgent/{method.name}" for method in methods
    }
    assert denial("/bedplate.v1.NodeAgent/Unheard", "admin").reason == "METHOD_WITHOUT_A_ROW"


def test_a_role_stands_in_the_one_name_of_a_persons_certificate():
    assert role_of(["bedplate:person:vera:viewer"]) == "viewer"
    assert role_of(["bedplate:machine:m-aaaaaaaa:1"]) == ""
    assert role_of(["bedplate:person:vera:root"]) == ""
    assert role_of(["bedplate:person:vera:viewer", "bedplate:person:vera:admin"]) == ""
    assert role_of([]) == ""


def mtls(tmp_path):
    """The settings of a TCP listener with certificates of our CA."""
    chain, key = CA.issue_server(["127.0.0.1"], now=NOW)
    settings = {"listen": "127.0.0.1:0"}
    for name, data in (("listen_certificate", chain), ("listen_key", key), ("listen_client_ca", CA.roots_pem)):
        (tmp_path / name).write_bytes(data)
        settings[name] = str(tmp_path / name)
    return settings


def person(role):
    certificate, key = CA.issue_person(PersonIdentity("vera", Role(role)), now=NOW)
    return grpc.ssl_channel_credentials(CA.roots_pem, key, certificate)


def a_machine():
    key, csr = make_key()
    issued = CA.issue_machine(csr, MachineIdentity("m-aaaaaaaa", 1), lifetime_s=3600, now=NOW)
    return grpc.ssl_channel_credentials(CA.roots_pem, key, issued.certificate_pem)


def outcome(credentials, tmp_path, ask):
    """'ok', or the reason of the refusal."""

    async def story():
        async with contextlib.AsyncExitStack() as stack:
            _, port = await stack.enter_async_context(serving(**mtls(tmp_path)))
            address = f"127.0.0.1:{port}"
            channel = await stack.enter_async_context(grpc.aio.secure_channel(address, credentials))
            try:
                await ask(NodeAgentStub(channel))
            except grpc.aio.AioRpcError as error:
                return reason(error)
            return "ok"

    return asyncio.run(story())


def reason(error):
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    return info.reason if status and status.details[0].Unpack(info) else error.code().name


async def looked(stub):
    await stub.GetSnapshot(GetSnapshotRequest())


@pytest.mark.parametrize(
    ("who", "ask", "comes_of_it"),
    [
        ("viewer", looked, "ok"),
        ("viewer", captured, "ROLE_TOO_LOW"),
        ("operator", captured, "ok"),
        ("admin", captured, "ok"),
    ],
)
def test_over_tcp_a_viewer_looks_and_an_operator_captures(tmp_path, who, ask, comes_of_it):
    assert outcome(person(who), tmp_path, ask) == comes_of_it


def test_over_tcp_a_machine_may_not_call_its_neighbours(tmp_path):
    assert outcome(a_machine(), tmp_path, looked) == "NOT_A_PERSON"


def test_over_tcp_nobody_calls_without_a_certificate(tmp_path):
    assert outcome(grpc.ssl_channel_credentials(CA.roots_pem), tmp_path, looked) == "UNAVAILABLE"


def refusal(**settings):
    async def story():
        with pytest.raises(BedplateError) as caught:
            async with serving(**settings):
                pass
        return str(caught.value)

    return asyncio.run(story())


def test_a_port_that_is_taken_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        says = f"cannot listen on {listen}: Address already in use; end what listens there, or set listen to another"
        assert refusal(**(mtls(tmp_path) | {"listen": listen})) == says


def test_a_key_that_cannot_be_read_is_named(tmp_path):
    settings = mtls(tmp_path)
    (tmp_path / "listen_key").unlink()
    assert refusal(**settings) == f"cannot read listen_key {tmp_path}/listen_key: No such file or directory"


def test_a_key_that_is_of_another_certificate_is_said(tmp_path):
    settings = mtls(tmp_path)
    (tmp_path / "listen_key").write_bytes(b"no key")
    assert "listen_certificate and listen_key do not belong together" in refusal(**settings)


def test_a_second_agent_on_the_socket_is_refused():
    async def story():
        async with serving() as (address, _):
            with pytest.raises(BedplateError, match="another agent answers there"):
                async with serve(Config(socket=address.removeprefix("unix:")), Agent()):
                    pass

    asyncio.run(story())


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
