"""What the processes of a simulation tell, put together for a person: one summary line, and one line for each fault.

Rule: the summary comes when it changes, and not too often while it does.
"""

import time
from collections.abc import Callable
from typing import IO

import msgspec

from nodeagent.simulate.told import Ended, Happened, Status, Told

SAY_S = 2.0
SELDOM_S = 30.0  # once faults come by schedule: then something changes all the time


class Board:
    def __init__(
        self, parts: int, say: Callable[[str], None], events: IO[bytes] | None, pace: float, *, quiet: bool
    ) -> None:
        """`pace`: how long a second of the schedule lasts."""
        self.goodbyes = 0
        self._pace = pace
        self._statuses = [Status()] * parts
        self._heard = [False] * parts
        self._gone = [False] * parts
        self._say = say
        self._events = events
        self._quiet = quiet
        self._said, self._said_at = "", -SELDOM_S
        self._say_s = SAY_S

    def heard(self, part: int, told: Told) -> None:
        match told:
            case Status():
                self._statuses[part], self._heard[part] = told, True
            case Happened():
                self._happened(told)
            case Ended(goodbyes):
                self.goodbyes += goodbyes
            case _:
                pass

    def gone(self, part: int) -> None:
        """That process is no more, and so are its machines."""
        self._gone[part], self._heard[part] = True, True
        self._statuses[part] = Status(machines=self._statuses[part].machines)

    def look(self, now: float) -> None:
        """Time went on."""
        line = self.sentence()
        if not all(self._heard) or line == self._said:
            return
        if now - self._said_at >= self._say_s or (self._say_s == SAY_S and self._whole("connected")):
            self._said, self._said_at = line, now
            self._say(line)

    def sentence(self) -> str:
        """'enrolled 8 of 8, connected 7; sim1-003: cannot reach 127.0.0.1:7443: Connection refused'"""
        whole = self._sum("machines")
        line = f"enrolled {self._sum('enrolled')} of {whole}, connected {self._sum('connected')}"
        why = next((one.why for one in self._statuses if one.why), "")
        return f"{line}; {why}" if why else line

    @property
    def tried(self) -> bool:
        """Every machine is there, or was told why not: the schedule may begin."""
        return self._whole("tried")

    @property
    def settled(self) -> bool:
        return self._whole("settled")

    def _whole(self, name: str) -> bool:
        there = [one for one, gone in zip(self._statuses, self._gone, strict=True) if not gone]
        return all(self._heard) and all(getattr(one, name) == one.machines for one in there)

    def _sum(self, name: str) -> int:
        return sum(getattr(one, name) for one in self._statuses)

    def _happened(self, told: Happened) -> None:
        self._say_s = SELDOM_S
        if self._events:
            self._events.write(msgspec.json.encode(msgspec.structs.asdict(told)) + b"\n")
            self._events.flush()
        if not self._quiet:
            self._say(f"{time.strftime('%H:%M:%S')} {told.machine} {told.says}, for {span(told.for_s * self._pace)}")


def span(seconds: float) -> str:
    """93.2 -> '1 min 33 s'"""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes and rest else f"{minutes} min" if minutes else f"{rest} s"
