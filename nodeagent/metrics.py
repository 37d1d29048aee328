"""/metrics for Prometheus: what is true of the agent at the moment of the scrape.

Rule 1: nothing is counted on the side: a figure that the agent does not have is not here.
Rule 2: the library costs 5 MiB, so this module is imported only where metrics_listen is set.
Rule 3: no label has a value that a peer can choose.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bedplate.v1.snapshot_pb2 import Problem, Snapshot
from nodeagent.credentials import Have
from nodeagent.errors import BedplateError
from nodeagent.session import State
from nodeagent.uplink import Uplink


class AgentView(Protocol):
    """What of the agent can be measured."""

    @property
    def snapshot(self) -> Snapshot: ...
    @property
    def revision(self) -> int: ...
    @property
    def uplink(self) -> Uplink: ...
    @property
    def have(self) -> Callable[[], Have]: ...


class AgentCollector(Collector):
    def __init__(self, agent: AgentView) -> None:
        self._agent = agent

    def collect(self) -> Iterator[Metric]:
        session = self._agent.uplink.session
        connected = float(session.state is State.OPEN)
        yield GaugeMetricFamily("bedplate_agent_connected", "Whether the stream is open", value=connected)
        yield CounterMetricFamily("bedplate_agent_scans", "Snapshots taken", value=self._agent.revision)
        yield CounterMetricFamily("bedplate_agent_deltas", "Deltas sent by this run", value=session.sequence)
        stored = "Deltas of this run that the provisioner has stored"
        yield CounterMetricFamily("bedplate_agent_deltas_stored", stored, value=session.acknowledged)
        yield from self._last_scan()
        yield self._problems()
        if identity := self._agent.have().identity:
            ends = "When the machine's certificate ends, seconds since 1970"
            yield GaugeMetricFamily("bedplate_agent_certificate_expiry_seconds", ends, value=identity.not_after)

    def _last_scan(self) -> Iterator[Metric]:
        if self._agent.revision:
            began = "When the last scan began, seconds since 1970"
            taken_at = self._agent.snapshot.taken_at.ToNanoseconds() / 1e9
            yield GaugeMetricFamily("bedplate_agent_scan_timestamp_seconds", began, value=taken_at)

    def _problems(self) -> Metric:
        """A gauge that is absent where nothing is amiss."""
        said = "Questions without an answer in the last snapshot"
        family = GaugeMetricFamily("bedplate_agent_problems", said, labels=["probe", "kind"])
        found = Counter((problem.probe, problem.kind) for problem in self._agent.snapshot.problems)
        for (probe, kind), count in sorted(found.items()):
            family.add_metric([probe, Problem.Kind.Name(kind).removeprefix("KIND_").lower()], count)
        return family


def serve(address: str, agent: AgentView) -> Callable[[], None]:
    """Serves /metrics from a thread; returns what ends it. BedplateError where the address cannot be had."""
    registry = CollectorRegistry()
    registry.register(AgentCollector(agent))
    ProcessCollector(registry=registry)
    host, _, port = address.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        advice = "end what listens there, or set metrics_listen to another"
        raise BedplateError(f"cannot serve metrics on {address}: {error.strerror}; {advice}") from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
