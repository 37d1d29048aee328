"""Our end of the conversation with the provisioner: messages, time and losses in, messages out.

Rule 1: no I/O and no clock. `now` is handed in: seconds of any clock that only goes forward.
Rule 2: nothing is queued. Each entry of the vitals remembers the sequence under which it last went up; after a loss the
        provisioner says up to where it has stored this run, and what is younger goes up again as one delta. Memory is
        bounded by the machine, never by the length of an outage.
Rule 3: an inventory travels by its digest, and its body only when asked for.
Rule 4: at most WINDOW deltas are under way without an acknowledgement; what changes meanwhile is sent as it then is.

The states, and what leads on:

    CLOSED -connected-> GREETING -Welcome-> OPEN -lost, Dismissal, goodbye-> CLOSED
"""

import math
from dataclasses import dataclass, field
from enum import Enum
from random import Random

from google.protobuf.timestamp_pb2 import Timestamp

from bedplate.v1.snapshot_pb2 import Snapshot, Vitals
from bedplate.v1.uplink_pb2 import (
    Delta,
    Desired,
    Dismissal,
    Goodbye,
    Hello,
    InventoryBody,
    Problems,
    SessionRequest,
    SessionResponse,
    Welcome,
)
from nodeagent.deadband import moved
from nodeagent.vitals import differs, drop, entries

WINDOW = 64
INTERVAL_S = 300.0  # until the provisioner says its own
FIRST_RETRY_S = 1.0
LAST_RETRY_S = 60.0
SOON_S, LATE_S = 0.5, 3600.0  # what the provisioner may ask for: neither a spin nor never
STEADY_S = 10.0  # a stream that stood this long was a success, and the back-off begins anew


class State(Enum):
    CLOSED = "closed"
    GREETING = "greeting"
    OPEN = "open"


class PeerError(Exception):
    """The provisioner broke the rules of the conversation; `str` says how. The stream is to be ended."""


@dataclass(slots=True)
class Session:
    """One for the life of an agent: it outlives streams. Not safe for threads: one task owns it."""

    run_id: bytes
    agent_version: str
    random: Random
    state: State = State.CLOSED
    because: str = "not connected yet"
    changed_at: float = 0.0
    dial_at: float = 0.0  # while CLOSED: not before this
    sequence: int = 0
    acknowledged: int = 0
    epoch: int = 0
    desired: Desired = field(default_factory=Desired)
    renew_at: float = math.inf  # when this machine is to ask for a younger certificate, though it is not time
    _interval_s: float = INTERVAL_S
    _failures: int = 0
    _snapshot: Snapshot = field(default_factory=Snapshot)
    _inventory: bytes = b""
    _digest: bytes = b""
    _observed: bool = False
    _vitals_there: Vitals = field(default_factory=Vitals)  # as they last went up
    _problems_there: Problems = field(default_factory=Problems)
    _digest_there: bytes = b""
    _sent_under: dict[str, int] = field(default_factory=dict)  # "links/eth0", "problems" -> sequence
    _lost: set[str] = field(default_factory=set)  # entries whose last sending may not have arrived
    _window_from: int = 0
    _sent_at: float = 0.0
    _whole: bool = True
    _news: bool = False  # something came since we last looked for what the provisioner lacks

    # -- what the agent tells us -----------------------------------------------------------------------------------

    def observe(self, snapshot: Snapshot, inventory: bytes, digest: bytes, now: float) -> list[SessionRequest]:
        """A new snapshot; `inventory` are the bytes that `digest` was taken of."""
        self._snapshot, self._inventory, self._digest, self._observed = snapshot, inventory, digest, True
        self._news = True
        return self.tick(now)

    def tick(self, now: float) -> list[SessionRequest]:
        """Time went on."""
        if self.state is not State.OPEN or self.sequence - max(self.acknowledged, self._window_from) >= WINDOW:
            return []
        overdue = now >= self._sent_at + self._interval_s
        if not (self._news or overdue):
            return []
        delta, self._news = self._delta(overdue), False
        if delta is None:
            return []
        self._sent_at = now
        return [SessionRequest(delta=delta)]

    @property
    def ready(self) -> bool:
        """Whether there is a snapshot to speak of: before that there is nothing to say."""
        return self._observed

    def goodbye(self, because: str, now: float) -> list[SessionRequest]:
        """We end on purpose; nothing more is sent after it."""
        was = self.state
        self._close(because, now)
        return [] if was is State.CLOSED else [SessionRequest(goodbye=Goodbye(because=because))]

    # -- what the stream tells us ----------------------------------------------------------------------------------

    def connected(self, now: float, sent_at: Timestamp) -> list[SessionRequest]:
        """A stream stands. `sent_at` is the wall clock, as data."""
        self.state, self.changed_at = State.GREETING, now
        self.because = "waiting for the provisioner's welcome"
        hello = Hello(
            agent_version=self.agent_version,
            boot_id=self._snapshot.vitals.host.boot_id,
            run_id=self.run_id,
            inventory_digest=self._digest,
            sequence=self.sequence,
            epoch=self.epoch,
            desired_revision=self.desired.revision,
            sent_at=sent_at,
            window=WINDOW,
        )
        self._digest_there = self._digest
        return [SessionRequest(hello=hello)]

    def receive(self, message: SessionResponse, now: float) -> list[SessionRequest]:
        """A message came. PeerError where it makes no sense here."""
        kind = message.WhichOneof("message")
        if (kind == "welcome") != (self.state is State.GREETING) and kind != "dismissal":
            raise PeerError(f"{kind or 'an empty message'} while {self.state.value}")
        match kind:
            case "welcome":
                return self._welcome(message.welcome, now)
            case "ack":
                return self._acknowledge(message.ack.sequence, now)
            case "want_inventory":
                return self._body(message.want_inventory.digest)
            case "desired":
                self._obey(message.desired)
            case "renew_soon":
                self._renew_soon(message.renew_soon.within_s, now)
            case "dismissal":
                self._dismissed(message.dismissal, now)
            case None:
                pass  # a message of a younger protocol is not for us
        return []

    def lost(self, because: str, now: float, retry_after_s: float | None = None) -> None:
        """The stream broke, or could not be opened. Sets when to dial again: doubled each time, jittered."""
        if self.state is State.OPEN and now - self.changed_at >= STEADY_S:
            self._failures = 0
        bound = min(LAST_RETRY_S, FIRST_RETRY_S * 2**self._failures)
        self._failures = min(self._failures + 1, 16)
        wait_s = bound * self.random.uniform(0.5, 1.0)
        if retry_after_s is not None and not math.isnan(retry_after_s):
            wait_s = min(max(retry_after_s, SOON_S), LATE_S) * self.random.uniform(1.0, 1.25)
        self._close(because, now)
        self.dial_at = now + wait_s

    def told(self, now: float) -> bool:
        """Whether the provisioner wants this machine to ask for a younger certificate by now."""
        return now >= self.renew_at

    def renewed(self) -> None:
        """It has one."""
        self.renew_at = math.inf

    # -- inside ----------------------------------------------------------------------------------------------------

    def _close(self, because: str, now: float) -> None:
        self.state, self.because, self.changed_at = State.CLOSED, because, now

    def _welcome(self, welcome: Welcome, now: float) -> list[SessionRequest]:
        if welcome.epoch < self.epoch:
            raise PeerError(f"its epoch {welcome.epoch} is older than {self.epoch}, which this machine obeys")
        if welcome.stored_sequence > self.sequence:
            raise PeerError(f"it has stored {welcome.stored_sequence}, and {self.sequence} were sent")
        self.epoch = welcome.epoch
        self._interval_s = welcome.vitals_interval_s or INTERVAL_S
        self.state, self.because, self.changed_at = State.OPEN, "connected", now
        self.acknowledged, self._window_from = welcome.stored_sequence, self.sequence
        self._whole, self._news = welcome.stored_sequence == 0, True
        self._lose_after(welcome.stored_sequence)
        return self.tick(now)

    def _lose_after(self, stored: int) -> None:
        """Entries that went up under a younger sequence may not have arrived: as if they had never been sent."""
        self._lost = {key for key, under in self._sent_under.items() if under > stored}
        self._sent_under = {}
        for key in self._lost - {"problems"}:
            drop(self._vitals_there, key)

    def _acknowledge(self, sequence: int, now: float) -> list[SessionRequest]:
        if sequence > self.sequence:
            raise PeerError(f"it acknowledges {sequence}, and {self.sequence} were sent")
        self.acknowledged = max(self.acknowledged, sequence)
        for key in [key for key, under in self._sent_under.items() if under <= sequence]:
            del self._sent_under[key]
        return self.tick(now)

    def _body(self, digest: bytes) -> list[SessionRequest]:
        if digest != self._digest:
            return []  # it changed since: the delta that says so is on its way, and will be asked about
        return [SessionRequest(inventory=InventoryBody(digest=digest, inventory=self._inventory))]

    def _obey(self, desired: Desired) -> None:
        if desired.epoch < self.epoch:
            raise PeerError(f"a desired state of epoch {desired.epoch}, and this machine obeys {self.epoch}")
        if desired.revision > self.desired.revision or desired.epoch > self.desired.epoch:
            self.desired = desired

    def _dismissed(self, dismissal: Dismissal, now: float) -> None:
        after_s = dismissal.retry_after_s if dismissal.HasField("retry_after_s") else None
        self.lost(f"dismissed: {dismissal.because}", now, after_s)

    def _renew_soon(self, within_s: float, now: float) -> None:
        bound = min(max(within_s, 0.0), LATE_S) if not math.isnan(within_s) else LATE_S
        self.renew_at = min(self.renew_at, now + self.random.uniform(0.0, bound))

    def _delta(self, overdue: bool) -> Delta | None:  # noqa: FBT001 - one caller, which names it
        """What the provisioner lacks, or None. Overdue: whatever differs at all, and a sign of life if nothing does."""
        vitals = self._snapshot.vitals
        changed, gone = (vitals, []) if self._whole else (differs if overdue else moved)(self._vitals_there, vitals)
        if self._lost and not self._whole:
            gone = sorted({*gone, *(self._lost - {"problems", "host"} - entries(vitals).keys())})
        delta = Delta(whole=self._whole, observed_at=self._snapshot.taken_at, vitals=changed, gone=gone)
        problems = Problems(problems=self._snapshot.problems)
        if self._whole or problems != self._problems_there or "problems" in self._lost:
            delta.problems.CopyFrom(problems)
        if self._digest != self._digest_there:
            delta.inventory_digest = self._digest
        empty = not (delta.gone or delta.HasField("problems") or delta.HasField("inventory_digest"))
        if empty and not overdue and not self._whole and delta.vitals == Vitals():
            return None
        self._remember(delta)
        return delta

    def _remember(self, delta: Delta) -> None:
        self.sequence += 1
        delta.sequence = self.sequence
        if self._whole:
            self._vitals_there, self._whole = Vitals(), False
        self._lost = set()
        for key in entries(delta.vitals):
            drop(self._vitals_there, key)
            self._sent_under[key] = self.sequence
        self._vitals_there.MergeFrom(delta.vitals)
        for key in delta.gone:
            drop(self._vitals_there, key)
            self._sent_under[key] = self.sequence
        if delta.HasField("problems"):
            self._problems_there = delta.problems
            self._sent_under["problems"] = self.sequence
        self._digest_there = self._digest
