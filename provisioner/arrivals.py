"""Who arrives at one port: how many connections were begun, and from how many of them a call came.

Rule 1: gRPC tells of a connection before its handshake, in a thread of its own, and does not say whose it is; a call
        says from where it comes. So both are counted, and what was refused below a call is the difference.
Rule 2: both only go up. A connection whose first call is still on its way is in the difference until it has come.
Rule 3: an address is remembered while a call of it is open, and after that for as long as gRPC leaves a connection open
        that has no call: one that calls after that came by another connection. That is up to twice the time that gRPC
        was told: it looks once in such a time, and closes what had no call in all of it. Of those without a call the
        latest MOST are remembered; what that gives up: one beyond them that calls again is counted once more.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

MOST = 20_000
SLACK_S = 1.0  # a timer of gRPC may come late


@dataclass(slots=True)
class Arrivals:
    """`idle_s`: gRPC was told to close a connection without a call after so long. `clock` only goes forward."""

    idle_s: float
    clock: Callable[[], float] = time.monotonic
    begun: int = 0
    called: int = 0  # connections from which a call came
    _begin: threading.Lock = field(default_factory=threading.Lock)
    _open: dict[int, int] = field(default_factory=dict)  # calls, by the hash of where they come from
    _idle: OrderedDict[int, float] = field(default_factory=OrderedDict)  # since when, the longest first

    @property
    def _kept_s(self) -> float:
        return 2 * self.idle_s + SLACK_S

    def begin(self) -> None:
        """A connection. Called by threads of gRPC, in some of them at once."""
        with self._begin:
            self.begun += 1

    def enter(self, peer: str) -> int:
        """A call, from there. What `leave` is to be told."""
        name = hash(peer)
        if calls := self._open.get(name, 0):
            self._open[name] = calls + 1
            return name
        since = self._idle.pop(name, None)
        if since is None or since + self._kept_s < self.clock():
            self.called += 1
        self._open[name] = 1
        return name

    def leave(self, name: int) -> None:
        """The call is over."""
        if calls := self._open.pop(name) - 1:
            self._open[name] = calls
            return
        now = self.clock()
        self._idle[name] = now
        while len(self._idle) > MOST or self._idle[next(iter(self._idle))] + self._kept_s < now:
            self._idle.popitem(last=False)
