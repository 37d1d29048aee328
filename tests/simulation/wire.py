"""One stream between an agent and a provisioner: ordered each way, delayed, broken, half-open.

It stands in for gRPC over TCP: within a stream nothing is reordered and nothing vanishes unless the stream breaks; what
is under way on another stream may arrive before or after. A message that comes twice stands for a peer that sends so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.simulation.timeline import Timeline

TWICE = 0.02
REPEATED = frozenset({"delta", "inventory", "ack", "want_inventory"})


@dataclass(slots=True)
class End:
    """How one end hears of the stream."""

    heard: Callable[[Any], None]
    ended: Callable[[str], None]


class Wire:
    def __init__(self, timeline: Timeline, latency_s: float) -> None:
        self._timeline = timeline
        self._latency_s = latency_s
        self._ends: dict[str, End] = {}
        self._arrives = {"up": 0.0, "down": 0.0}
        self._over = {"up": False, "down": False}  # the end that these messages go to has heard the last of it
        self.broken = False

    def attach(self, way: str, end: End) -> None:
        self._ends[way] = end

    def dial(self, arrived: Callable[[], None]) -> None:
        """Before anything else arrives up there."""
        self._arrive("up", arrived)

    def send(self, way: str, message: Any) -> None:
        if not self.broken:
            self._arrive(way, self._deliver, way, message)

    def close(self, way: str, because: str) -> None:
        """The end of the stream, after all that was sent that way."""
        self._arrive(way, self._end, way, because)

    def snap(self, up_after_s: float, down_after_s: float) -> None:
        """Nothing arrives any more; each end notices in its own time: half-open until then."""
        if self.broken:
            return
        self.broken = True
        self._timeline.after(up_after_s, self._end, "up", "its stream broke")
        self._timeline.after(down_after_s, self._end, "down", "the stream broke")

    def _arrive(self, way: str, action: Callable[..., None], *arguments: object) -> None:
        timeline = self._timeline
        at = max(self._arrives[way], timeline.now + self._latency_s * timeline.between(0.5, 2.0))
        self._arrives[way] = at
        timeline.at(at, action, *arguments)

    def _deliver(self, way: str, message: Any) -> None:
        if self.broken or self._over[way] or way not in self._ends:
            return
        self._ends[way].heard(message)
        again = message.WhichOneof("message") in REPEATED
        if again and self._timeline.chance(TWICE) and not (self.broken or self._over[way]):
            self._ends[way].heard(message)

    def _end(self, way: str, because: str) -> None:
        if not self._over[way]:
            self._over[way] = True
            if way in self._ends:
                self._ends[way].ended(because)
