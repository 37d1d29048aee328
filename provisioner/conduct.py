"""How peers behave: what was refused, who was cut off and why, and which machine is read more slowly.

Rule 1: no clock and no store: what is counted here begins anew with the process. What people have to know for longer is
        an event, by the rule of `flaps`: a broken conversation is a problem of its machine.
Rule 2: memory is bounded: reasons are words of this program, and of machines those that are known, the latest KEPT.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from bedplate.v1.snapshot_pb2 import Problem
from provisioner.phase import ago, span

KEPT = 1000  # machines that broke the rules or were too fast
PROBE = "uplink"  # under which a broken conversation is told
LATELY_S = 86400.0


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
    slowed_s: float = 0.0
    _records: dict[str, _Record] = field(default_factory=dict)

    def refuse(self, reason: str) -> None:
        self.refused[reason] += 1

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
        record = self._records.get(machine_id)
        if record is None:
            return []
        lines = []
        if record.broke and record.broke_at > now - LATELY_S:
            times = "once" if record.broke == 1 else f"{record.broke} times"
            lines.append(f"it was cut off {times} for what it sent, last {ago(record.broke_at, now)}: {record.because}")
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


def problem(because: str) -> Problem:
    return Problem(probe=PROBE, part="conversation", kind=Problem.KIND_FAILED, detail=because)
