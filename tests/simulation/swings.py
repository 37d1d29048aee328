"""What is told of machines that go to and fro, held against what is durable: boots, inventories, silences.

Rule 1: no function of the product's is called here. Which change has to be told, which is the flap and which is held
        back is counted a second time, and the events in the batch have to be these and no others.
Rule 2: what the store refused of a machine was counted by the product and is not seen here, and so was what belongs to
        a life that ended meanwhile. From then on its courses are in doubt, until they have been still for long: it may
        be told less. That each last word is said, and is so, holds without a doubt: one that was on its way when
        another life began is on how the machine stood in the life before.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from provisioner.world import Asked, Forgotten, InventoryKept, Met, Noted, Revoked, SilenceNoted
from tests.simulation.broken import hold
from tests.simulation.oracle import FLAP_WINDOW_S, MOST

SILENT, PRESENT, CHANGED, FLAPPING = (f"machine.{word}" for word in ("silent", "present", "changed", "flapping"))
ON_ITS_WAY_S = 60.0  # longer than a slow disk has a change, and the one before it
FIRST = "heard for the first time"  # which is no return
BEGINNINGS = {  # of the sentences: as it is told, as a flap, as the last word
    "boot": ("rebooted: ", "rebooted, ", "boot "),
    "inventory": ("its inventory changed", "its inventory changed", "its inventory is "),
    "presence": ("", "fell silent", ""),
}
Key = tuple[str, str]  # machine, aspect


@dataclass(slots=True)
class Course:
    times: list[float] = field(default_factory=list)
    count: int = 0
    flaps: bool = False
    closed_at: float | None = None  # when the last word was durable: what came before that goes on
    last: float = 0.0
    doubt: bool = False
    open: bool = False  # it was told that it flaps, and the last word is due

    def move(self, at: float, refused_at: float) -> str:
        """What has to be told of this change: 'told', 'flaps 4', or nothing."""
        if self.closed_at is not None and at > self.closed_at:
            self.times, self.count, self.flaps, self.doubt = [], 0, False, False
        self.closed_at = None
        if not self.flaps:
            self.times = [one for one in self.times if one > at - FLAP_WINDOW_S]
            self.count = len(self.times)
        self.doubt = self.doubt and at <= self.last + 2 * FLAP_WINDOW_S
        self.times.append(at)
        self.weigh(refused_at)
        self.last, self.count, flapped = at, self.count + 1, self.flaps
        self.flaps = flapped or len(self.times) > MOST
        if not self.flaps:
            return "told"
        return "" if flapped else f"flaps {self.count}"

    def weigh(self, refused_at: float) -> None:
        """Something of this machine was refused then; at 0, nothing was."""
        self.doubt = self.doubt or refused_at > (self.times[0] - FLAP_WINDOW_S if self.times else 0.0)


@dataclass(slots=True)
class Stand:
    """How one machine stands."""

    boot: str = ""
    digest: bytes = b""
    kernel: str = ""
    silent: bool = False
    back_at: float = 0.0
    forgotten: bool = False
    began: float = 0.0  # this life, durably
    before: "Stand | None" = None  # in the life before


class Swings:
    def __init__(self) -> None:
        self._stands: dict[str, Stand] = {}
        self._courses: dict[Key, Course] = defaultdict(Course)
        self._moves: dict[Key, list[float]] = defaultdict(list)  # in this batch
        self._words: dict[Key, list[str]] = defaultdict(list)
        self._refused: dict[str, float] = defaultdict(float)  # machine -> when
        self._now = 0.0

    def begins(self) -> None:
        """A life of the provisioner: what it counts is lost with the one before."""
        self._courses.clear()

    def refused(self, changes: Iterable[Any], now: float) -> None:
        for change in changes:
            if isinstance(change, Met | InventoryKept | SilenceNoted):
                self._refused[change.machine_id] = now

    def batch_begins(self, now: float) -> None:
        self._now = now

    def change(self, change: Any) -> None:  # noqa: C901 - one arm a change
        name = getattr(change, "machine_id", "")
        stand = self._stands.get(name)
        if isinstance(change, Asked):
            self.batch_over()
            self._stands[name] = Stand(began=self._now, before=stand)
            if stand:
                stand.before = None
                self._another_life(name, change.at)
        elif stand is None or stand.forgotten:
            return
        elif isinstance(change, Noted):
            self._noted(change, stand)
        elif isinstance(change, Revoked):
            self._another_life(name, change.at)
        elif isinstance(change, Forgotten):
            stand.forgotten = True
        elif isinstance(change, Met):
            if stand.boot and change.boot_id and stand.boot != change.boot_id:
                self._moves[name, "boot"].append(change.at)
            stand.boot = change.boot_id
        elif isinstance(change, InventoryKept):
            if stand.digest and stand.digest != change.digest:
                self._moves[name, "inventory"].append(change.at)
            stand.digest, stand.kernel = change.digest, change.kernel
        elif isinstance(change, SilenceNoted):
            self._silence(change, stand)

    def batch_over(self) -> None:
        """What changed, and what is told of it, are in one batch."""
        for key in self._moves.keys() | self._words.keys():
            course, words = self._courses[key], self._words.get(key, [])
            due = [course.move(at, self._refused[key[0]]) for at in self._moves.get(key, ())]
            wanted = [word for word in due if word]
            right = len(words) <= len(due) if course.doubt else words == wanted
            hold(right, *key, "is told as", words, "and", wanted, "is due, of", len(due), "changes")
            if words:
                course.open = words[-1].startswith("flaps")
        self._moves.clear()
        self._words.clear()

    def unsaid(self, name: str) -> str:
        """An aspect in which a machine has stood still for long, and nobody was told how it stands."""
        for (machine, aspect), course in self._courses.items():
            due = course.open or (course.flaps and not course.doubt and course.closed_at is None)
            if machine == name and due:
                return f"the last word on its {aspect} is that it flaps"
        return ""

    # -- inside ----------------------------------------------------------------------------------------------------

    def _another_life(self, name: str, at: float) -> None:
        for aspect in BEGINNINGS:
            course = self._courses[name, aspect]
            course.doubt, course.open, course.last = True, False, at

    def _silence(self, change: SilenceNoted, stand: Stand) -> None:
        """That it is back may be written twice: by the tick, and by a stream that began meanwhile."""
        name = change.machine_id
        hold(not (change.silent and stand.silent), name, "falls silent twice")
        if not change.silent and not stand.silent:
            course = self._courses[name, "presence"]
            twice = abs(change.at - stand.back_at) < ON_ITS_WAY_S
            hold(twice or course.doubt, name, "is back, and was not silent")  # in doubt: it was, in the life before
            course.doubt, course.last = True, change.at
        self._moves[name, "presence"].append(change.at)
        stand.silent = change.silent
        stand.back_at = stand.back_at if change.silent else change.at

    def _noted(self, change: Noted, stand: Stand) -> None:
        if change.kind not in {SILENT, PRESENT, CHANGED, FLAPPING} or change.because.startswith(FIRST):
            return
        which = 1 if change.kind == FLAPPING else 2 if change.count else 0
        aspects = [name for name in BEGINNINGS if _is_of(name, which, change)]
        hold(len(aspects) == 1, change.machine_id, "is told something that has no aspect:", change.because)
        key = (change.machine_id, aspects[0])
        if which == 2:
            self._closed(key, change, stand)
        else:
            self._words[key].append(f"flaps {change.count}" if which else "told")

    def _closed(self, key: Key, change: Noted, stand: Stand) -> None:
        course = self._courses[key]
        course.weigh(self._refused[key[0]])
        known = course.flaps and course.closed_at is None and change.count == course.count
        hold(known or course.doubt, *key, "has a last word of", change.count, "changes, and there were", course.count)
        still = change.at - course.last >= FLAP_WINDOW_S
        hold(still or course.doubt, *key, "has a last word, and moved", change.at - course.last, "s ago")
        right = _is_so(key[1], change, stand)
        if stand.before and change.at < stand.began:
            right = right or _is_so(key[1], change, stand.before)
        hold(right, *key, "has a last word that is not so:", change.because)
        course.closed_at, course.open = self._now, False


def _is_so(aspect: str, last: Noted, stand: Stand) -> bool:
    match aspect:
        case "boot":
            return last.because.startswith(f"boot {stand.boot} now")
        case "inventory":
            return f"kernel {stand.kernel} now" in last.because
        case _:
            return last.kind == (SILENT if stand.silent else PRESENT)


def _is_of(aspect: str, which: int, change: Noted) -> bool:
    of_presence = change.kind in {SILENT, PRESENT} or (change.kind == FLAPPING and which == 1 and aspect == "presence")
    return of_presence == (aspect == "presence") and change.because.startswith(BEGINNINGS[aspect][which])
