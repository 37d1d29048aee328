"""How the dials of a simulated machine move: a random walk that a seed decides.

Rule 1: the same seed gives the same course, tick by tick, whatever the clock says.
Rule 2: dials tremble within their dead bands, and now and then a machine gets or loses work and leaves them: then its
        GPUs warm up or cool down, or, where it has none, its load changes.
Rule 3: no clock and no host. What is handed in is never changed.
"""

from dataclasses import dataclass, field
from random import Random

from bedplate.v1.snapshot_pb2 import GpuVitals, HostVitals, Vitals

WORK_CHANGES = 1 / 60  # of a machine, for each tick
ERROR_APPEARS = 1 / 600  # on some link, for each tick
WARMER_CELSIUS, MORE_WATTS, MORE_LOAD = 18.0, 250.0, 24.0


@dataclass(slots=True)
class Course:
    """One machine's dials from `start` on."""

    start: Vitals
    random: Random
    busy: bool = False
    errors: dict[str, int] = field(default_factory=dict)

    def tick(self) -> Vitals:
        """The dials a tick later."""
        if self.random.random() < WORK_CHANGES:
            self.busy = not self.busy
        if self.start.links and self.random.random() < ERROR_APPEARS:
            name = self.random.choice(sorted(self.start.links))
            self.errors[name] = self.errors.get(name, 0) + 1
        vitals = Vitals()
        vitals.CopyFrom(self.start)
        self._host(vitals.host)
        for name in sorted(vitals.gpus):
            self._gpu(vitals.gpus[name])
        for name, count in self.errors.items():
            vitals.links[name].receive_errors += count
        return vitals

    def _host(self, host: HostVitals) -> None:
        if host.HasField("load_1m"):
            host.load_1m = max(0.0, host.load_1m + MORE_LOAD * self.busy + self._tremble(0.1))
        if host.HasField("memory_available_bytes"):
            host.memory_available_bytes = int(host.memory_available_bytes * (1 + self._tremble(0.005)))

    def _gpu(self, gpu: GpuVitals) -> None:
        if gpu.HasField("celsius"):
            gpu.celsius = round(gpu.celsius + WARMER_CELSIUS * self.busy + self._tremble(0.3), 1)
        if gpu.HasField("watts"):
            gpu.watts = round(max(0.0, gpu.watts + MORE_WATTS * self.busy + self._tremble(2.0)), 1)
        if gpu.HasField("utilization_percent"):
            gpu.utilization_percent = 98.0 if self.busy else 0.0

    def _tremble(self, width: float) -> float:
        """Never further than twice the width: what trembles stays within its band."""
        return max(-2 * width, min(2 * width, self.random.gauss(0.0, width)))
