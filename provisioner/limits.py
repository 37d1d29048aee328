"""How much is taken from whom, and when they may come back: token buckets, as numbers.

Rule 1: everything that decides whether somebody is too fast is in this file.
Rule 2: this file does nothing: it has no clock. Time is handed in: seconds of any clock that only goes forward.
Rule 3: memory is bounded, whatever names a peer invents: a bucket that is full is not kept, and beyond `most` names
        that are kept, all further ones share one bucket.
"""

from dataclasses import dataclass, field

MOST = 20_000
MESSAGES_BURST_S = 20.0  # so many seconds' messages of a machine may come at once
OCTETS_BURST_S = 256.0  # an inventory comes seldom, and whole
SIFT_S = 1.0  # not oftener: whoever invents names is not to make us look at all of them each time


@dataclass(frozen=True, slots=True)
class Rate:
    per_s: float
    burst: float  # what may come at once after a time of quiet


@dataclass(slots=True)
class Bucket:
    """One for whom or what is counted. All that is kept of it is when it will be full again."""

    rate: Rate
    full_at: float = float("-inf")

    def wait_s(self, now: float, amount: float = 1.0) -> float:
        """How long it will be until so much may be taken; 0 where it may be now."""
        return max(0.0, self._after(now, amount) - now - self.rate.burst / self.rate.per_s)

    def take(self, now: float, amount: float = 1.0) -> float:
        """Take it, there or not: what is not there is owed. Returns how long to wait before the next is taken."""
        wait_s = self.wait_s(now, amount)
        self.full_at = self._after(now, amount)
        return wait_s

    def _after(self, now: float, amount: float) -> float:
        return max(self.full_at, now) + amount / self.rate.per_s


@dataclass(slots=True)
class Buckets:
    """A bucket for each name. It counts as `Bucket` does, without making one for each message of each machine."""

    rate: Rate
    most: int = MOST
    _full_at: dict[str, float] = field(default_factory=dict)
    _sifted_at: float = float("-inf")

    def take(self, name: str, now: float, amount: float = 1.0, *, patience_s: float = 0.0) -> tuple[float, bool]:
        """How long to wait, and whether it was taken: it is not where the wait is longer than the patience."""
        if name not in self._full_at:
            name = self._kept(name, now)
        full_at = max(self._full_at.get(name, now), now) + amount / self.rate.per_s
        wait_s = max(0.0, full_at - now - self.rate.burst / self.rate.per_s)
        if wait_s > patience_s:
            return wait_s, False
        self._full_at[name] = full_at
        return wait_s, True

    def __len__(self) -> int:
        return len(self._full_at)

    def _kept(self, name: str, now: float) -> str:
        """The name under which this one is counted: its own, or the one of all for whom there is no room."""
        if len(self._full_at) < self.most:
            return name
        if now < self._sifted_at + SIFT_S:
            return ""
        self._sifted_at = now
        self._full_at = {kept: full_at for kept, full_at in self._full_at.items() if full_at > now}
        return name if len(self._full_at) < self.most else ""


@dataclass(slots=True)
class Pace:
    """How fast messages of each name are read: by their number, and by their size."""

    messages: Buckets
    octets: Buckets

    def take(self, name: str, size: int, now: float) -> float:
        """How long to wait before the next one is read. What was read is taken, however long that is."""
        endless = float("inf")
        number_s, _ = self.messages.take(name, now, patience_s=endless)
        octets_s, _ = self.octets.take(name, now, size, patience_s=endless)
        return max(number_s, octets_s)


def paced(messages_per_s: float, octets_per_s: float) -> Pace:
    messages = Buckets(Rate(messages_per_s, messages_per_s * MESSAGES_BURST_S))
    return Pace(messages, Buckets(Rate(octets_per_s, octets_per_s * OCTETS_BURST_S)))


@dataclass(slots=True)
class Places:
    """How many of something each name holds at a time. A name that holds none is not kept."""

    most: int
    _held: dict[str, int] = field(default_factory=dict)

    def enter(self, name: str) -> bool:
        """False where it holds as many as it may."""
        if self._held.get(name, 0) >= self.most:
            return False
        self._held[name] = self._held.get(name, 0) + 1
        return True

    def leave(self, name: str) -> None:
        left = self._held.pop(name) - 1
        if left:
            self._held[name] = left

    def __len__(self) -> int:
        return len(self._held)
