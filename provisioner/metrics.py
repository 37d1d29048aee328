"""What the provisioner counts, for Prometheus: read off the world when it is scraped, so that nothing can drift."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from bedplate.v1.fleet_pb2 import Phase
from provisioner.conduct import Conduct
from provisioner.errors import BedplateError
from provisioner.phase import phase
from provisioner.world import World

SINKS = {
    "working": "1 where the last attempt to deliver events went through",
    "backlog": "Events that the sink has not confirmed yet",
    "revision": "The sink has confirmed all events up to this revision",
    "lost": "Events that were dropped before the sink had them",
}


class Fleet(Protocol):
    @property
    def world(self) -> World: ...
    @property
    def now(self) -> Callable[[], float]: ...
    @property
    def conduct(self) -> Conduct: ...


class Standing(Protocol):
    """How a sink of events stands."""

    @property
    def name(self) -> str: ...
    @property
    def revision(self) -> int: ...
    @property
    def backlog(self) -> int: ...
    @property
    def lost(self) -> int: ...
    @property
    def working(self) -> bool: ...


class FleetCollector(Collector):
    def __init__(
        self,
        fleet: Fleet,
        silent_after_s: float,
        streams: Callable[[], int],
        sinks: Callable[[], Sequence[Standing]] = tuple,
    ) -> None:
        self._sinks = sinks
        self._fleet = fleet
        self._silent_after_s = silent_after_s
        self._streams = streams

    def collect(self) -> Iterator[Metric]:
        world, now = self._fleet.world, self._fleet.now()
        words = Counter(phase(facts, world, now, self._silent_after_s)[0] for facts in world.known)
        machines = GaugeMetricFamily("bedplate_machines", "Machines by phase", labels=["phase"])
        for word in Phase.values():
            if word != Phase.PHASE_UNSPECIFIED:
                machines.add_metric([Phase.Name(word).removeprefix("PHASE_").lower()], words[word])
        yield machines
        yield GaugeMetricFamily("bedplate_streams", "Open streams of agents", value=self._streams())
        yield GaugeMetricFamily("bedplate_epoch", "The provisioner's leadership number", value=world.epoch)
        yield GaugeMetricFamily("bedplate_revision", "The revision of the last change", value=world.revision)
        problems = sum(facts.problem_count for facts in world.known)
        yield GaugeMetricFamily("bedplate_problems", "Questions without an answer, on all machines", value=problems)
        skews = [abs(facts.clock_skew_s or 0.0) for facts in world.known]
        yield GaugeMetricFamily(
            "bedplate_clock_skew_seconds_max", "The largest distance of a machine's clock", value=max(skews, default=0)
        )
        yield from _conduct(self._fleet.conduct)
        yield from self._outbox()

    def _outbox(self) -> Iterator[Metric]:
        standing = self._sinks()
        for name, about in SINKS.items():
            gauge = GaugeMetricFamily(f"bedplate_sink_{name}", about, labels=["sink"])
            for one in standing:
                gauge.add_metric([one.name], float(getattr(one, name)))
            yield gauge


def _conduct(conduct: Conduct) -> Iterator[Metric]:
    refused = CounterMetricFamily("bedplate_refused", "Calls that were refused, by reason", labels=["reason"])
    cut_off = CounterMetricFamily("bedplate_cut_off", "Streams of machines that broke the rules", labels=["reason"])
    broken_off = CounterMetricFamily(
        "bedplate_broken_off",
        "Calls whose request never came whole, by method; of Uplink.Session streams without a goodbye",
        labels=["method"],
    )
    for family, counts in ((refused, conduct.refused), (cut_off, conduct.cut_off), (broken_off, conduct.broken_off)):
        for reason, count in sorted(counts.items()):
            family.add_metric([reason], count)
        yield family
    begun = CounterMetricFamily("bedplate_connections", "Connections that were begun, by port", labels=["port"])
    called = CounterMetricFamily(
        "bedplate_connections_with_a_call", "Those of them from which a call came, by port", labels=["port"]
    )
    for port, arrivals in conduct.arrivals.items():
        called.add_metric([port], arrivals.called)
        begun.add_metric([port], arrivals.begun)
    yield from (begun, called)
    yield CounterMetricFamily(
        "bedplate_slowed_seconds", "For how long machines that send too fast were not read", value=conduct.slowed_s
    )


def serve(address: str, collector: Collector) -> Callable[[], None]:
    """Serves /metrics; returns what ends it. BedplateError where the address cannot be had."""
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    host, _, port = address.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        raise BedplateError(
            f"cannot serve metrics on {address}: {error.strerror}; choose another metrics_listen"
        ) from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
