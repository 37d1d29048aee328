"""How peers behave: what was refused, who was cut off and why, what broke off, and which machine is read more slowly.

Rule 1: no clock and no store: what is counted here begins anew with the process. What people have to know for longer is
        an event, by the rule of `flaps`: a broken conversation is a problem of its machine.
Rule 2: memory is bounded: reasons and methods are words of this program, and of machines those that are known, the
        latest KEPT; whose streams broke off are kept apart from these, for a cut of the network is all of them at once.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bedplate.v1.snapshot_pb2 import Problem
from provisioner.phase import ago, span

KEPT = 1000  # machines that broke the rules or were too fast
PROBE = "uplink"  # under which a broken conversation is told
KEPT_BROKEN = 20_000  # machines whose stream broke off
LATELY_S = 86400.0
BROKEN_BY = (  # gRPC does not tell which
    "the network, its power, an agent that was killed or gave the stream up (it took nothing for 10 s), two hosts with "
    "one state folder, or a message of more than 4 MiB"
)
SESSION = "Uplink.Session"


class Arrivals(Protocol):
    """Who arrives at a port, in connections."""

    @property
    def begun(self) -> int: ...
    @property
    def called(self) -> int: ...


@dataclass(slots=True)
class _Record:
    """Of one machine."""

    broke: int = 0
    broke_at: float = 0.0
    because: str = ""
    mended: bool = True  # its conversation goes well again, and that was told
    slowed_s: float = 0.0
    slowed_at: float = 0.0


@dataclass(slots=True)
class Conduct:
    """One for a provisioner."""

    refused: Counter[str] = field(default_factory=Counter)  # calls, by reason
    cut_off: Counter[str] = field(default_factory=Counter)  # streams, by reason
    broken_off: Counter[str] = field(default_factory=Counter)  # by method: requests that never came whole, and streams
    slowed_s: float = 0.0
    arrivals: dict[str, Arrivals] = field(default_factory=dict)  # by the key of the configuration that the port has
    _records: dict[str, _Record] = field(default_factory=dict)
    _broken: dict[str, tuple[int, float]] = field(default_factory=dict)  # of a machine: how often, and when it was last

    def refuse(self, reason: str) -> None:
        self.refused[reason] += 1

    def break_off(self, method: str) -> None:
        """A call ended before its request was whole: "/bedplate.v1.Enrolment/Enrol" is counted as "Enrolment.Enrol"."""
        service, _, name = method.rpartition("/")
        self.broken_off[f"{service.rpartition('.')[2]}.{name}"] += 1

    def lose(self, machine_id: str, now: float) -> None:
        """Its stream ended, and neither end had said that it would. Those before a day without one count no more."""
        self.broken_off[SESSION] += 1
        times, last = self._broken.pop(machine_id, (0, 0.0))
        self._broken[machine_id] = (times + 1 if last > now - LATELY_S else 1, now)  # the latest is the last
        if len(self._broken) > KEPT_BROKEN:
            del self._broken[next(iter(self._broken))]

    def broke(self, machine_id: str, reason: str, because: str, now: float) -> Sequence[tuple[Problem, bool]]:
        """It broke the rules. Returns the move that `flaps` tells of: none, where it did before and is told of."""
        self.cut_off[reason] += 1
        record = self._record(machine_id)
        news, record.mended = record.mended, False
        record.broke, record.broke_at, record.because = record.broke + 1, now, because
        return ((problem(because), True),) if news else ()

    def went_well(self, machine_id: str) -> Sequence[tuple[Problem, bool]]:
        """What it said was good, and was kept. The same move, where it had broken the rules before."""
        record = self._records.get(machine_id)
        if record is None or record.mended:
            return ()
        record.mended = True
        return ((problem(""), False),)

    def slowed(self, machine_id: str, wait_s: float, now: float) -> bool:
        """It is read no further for so long. True where that is news: the first time in a while."""
        self.slowed_s += wait_s
        record = self._record(machine_id)
        news = record.slowed_at < now - LATELY_S
        record.slowed_s, record.slowed_at = (0.0 if news else record.slowed_s) + wait_s, now
        return news

    def lines(self, machine_id: str, now: float) -> list[str]:
        """For a person who asks about this machine."""
        return [*self._behaved(machine_id, now), *self._lost(machine_id, now)]

    def _lost(self, machine_id: str, now: float) -> list[str]:
        times, last = self._broken.get(machine_id, (0, 0.0))
        if not times or last <= now - LATELY_S:
            return []
        return [f"its stream broke off {_times(times)} without a goodbye, last {ago(last, now)}: {BROKEN_BY}"]

    def _behaved(self, machine_id: str, now: float) -> list[str]:
        record = self._records.get(machine_id)
        if record is None:
            return []
        lines = []
        if record.broke and record.broke_at > now - LATELY_S:
            last = ago(record.broke_at, now)
            lines.append(f"it was cut off {_times(record.broke)} for what it sent, last {last}: {record.because}")
        if record.slowed_at > now - LATELY_S:
            lines.append(
                f"it sends faster than it may, and was read more slowly for {span(record.slowed_s)} in all, "
                f"last {ago(record.slowed_at, now)}"
            )
        return lines

    def _record(self, machine_id: str) -> _Record:
        record = self._records.pop(machine_id, None) or _Record()
        self._records[machine_id] = record  # the latest is the last
        while len(self._records) > KEPT:
            del self._records[next(iter(self._records))]
        return record


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def problem(because: str) -> Problem:
    return Problem(probe=PROBE, part="conversation", kind=Problem.KIND_FAILED, detail=because)
