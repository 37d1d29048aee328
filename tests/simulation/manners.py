"""How an agent behaves, judged message by message as it leaves: what it may say on a stream, and when it may dial.

Rule: the bounds are the protocol's, written down a second time.
"""

from collections import defaultdict, deque
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from nodeagent.session import State
from tests.simulation.broken import hold

WINDOW = 64
MINUTE_S, DIALS = 60.0, 20  # doubled from one second on, with a new beginning after each steady stream
SOON_S, STEADY_S = 0.5, 10.0
BAND_CELSIUS = 3.0


@dataclass(slots=True)
class Stream:
    digest: bytes  # that the provisioner has been told
    base: int  # the last delta that was sent before this stream
    wanted: set[bytes] = field(default_factory=set)
    stored: int | None = None  # by the welcome
    acknowledged: int = 0
    first: bool = True


class Manners:
    def __init__(self) -> None:
        self._streams: dict[Any, Stream] = {}
        self._dials: dict[Any, deque[float]] = defaultdict(deque)
        self._not_before: dict[Any, float] = {}
        self._failures: dict[Any, int] = defaultdict(int)  # in a row
        self._welcome_at: dict[Any, float] = {}  # of the stream that stands

    def starts(self, machine: Any) -> None:
        """A new process, or a new certificate: it may dial at once."""
        self._not_before.pop(machine, None)
        self._failures.pop(machine, None)
        self._welcome_at.pop(machine, None)

    def lost(self, machine: Any, now: float) -> None:
        """Its stream broke, or could not be opened: it stays away, each time for about twice as long."""
        if now - self._welcome_at.pop(machine, now) >= STEADY_S:
            self._failures[machine] = 0
        self._not_before[machine] = now + min(60.0, 2.0 ** self._failures[machine]) / 2
        self._failures[machine] += 1

    def dials(self, machine: Any, now: float) -> None:
        times = self._dials[machine]
        times.append(now)
        while times[0] <= now - MINUTE_S:
            times.popleft()
        hold(len(times) <= DIALS, machine, "dials", len(times), "times within a minute")
        hold(now >= self._not_before.get(machine, 0.0) - 1e-6, machine, "dials before it was asked to come back")

    def says(self, machine: Any, message: Any) -> None:
        kind = message.WhichOneof("message")
        if kind == "hello":
            self._streams[machine] = Stream(message.hello.inventory_digest, message.hello.sequence)
        elif kind == "delta":
            self._delta(machine, self._streams[machine], message.delta)
        elif kind == "inventory":
            body, digest = message.inventory.inventory, message.inventory.digest
            hold(digest in self._streams[machine].wanted, machine, "sends an inventory that nobody asked for")
            hold(sha256(body).digest() == digest, machine, "sends an inventory that is not of its digest")

    def looked(self, machine: Any) -> None:
        """What it has just seen is on its way, unless too much is: parts that came or went, and what is warm."""
        session, box = machine.session, machine.box
        if (
            session.state is not State.OPEN
            or session.sequence - max(session.acknowledged, session._window_from) >= WINDOW
        ):
            return
        there, now = session._vitals_there, box.vitals
        for section in ("links", "gpus", "filesystems"):
            same = set(getattr(there, section)) == set(getattr(now, section))
            hold(same, machine, "has seen that", section, "came or went, and has not said so")
        far = [key for key, gpu in now.gpus.items() if abs(gpu.celsius - there.gpus[key].celsius) > BAND_CELSIUS]
        hold(not far, machine, "has seen that", far, "got warmer or colder, and has not said so")
        said = [problem.probe for problem in session._problems_there.problems]
        hold(said == box.problems, machine, "has the problems", box.problems, "and has said", said)

    def hears(self, machine: Any, message: Any, now: float) -> None:
        stream, kind = self._streams[machine], message.WhichOneof("message")
        if kind == "welcome":
            stream.stored = message.welcome.stored_sequence
            self._welcome_at[machine] = now
        elif kind == "ack":
            stream.acknowledged = max(stream.acknowledged, message.ack.sequence)
        elif kind == "want_inventory":
            stream.wanted.add(message.want_inventory.digest)
        elif kind == "dismissal":
            self._not_before[machine] = now + max(SOON_S, message.dismissal.retry_after_s)
            if now - self._welcome_at.pop(machine, now) >= STEADY_S:
                self._failures[machine] = 0

    def _delta(self, machine: Any, stream: Stream, delta: Any) -> None:
        whole = stream.stored == 0 and stream.first
        hold(delta.whole == whole, machine, "sends all its vitals" if delta.whole else "sends a part of its vitals")
        under_way = delta.sequence - max(stream.base, stream.acknowledged)
        hold(under_way <= WINDOW, machine, "has", under_way, "deltas under way")
        if delta.HasField("inventory_digest"):
            hold(delta.inventory_digest != stream.digest, machine, "tells the same inventory twice")
            stream.digest = delta.inventory_digest
        stream.first = False
