"""What comes and goes, and which of that is worth an event: problems, and machines that go to and fro as a whole.

Rule 1: a problem is its machine, probe, part and kind; other words for the same one (`detail`) are no news. A machine
        as a whole goes to and fro in an aspect (`vigil`): its boot, its inventory, its presence, each for itself.
Rule 2: up to three changes of one of these within ten minutes are an event each. The fourth is one
        `machine.problem.flapping` or `machine.flapping`, and what follows is only counted, until it has not moved for
        ten minutes: then one event says the count and how it stands. Events alone are held back, and never a fact.
Rule 3: where more than three problems appear or clear at once, that is one event with their number.
Rule 4: no clock and no store. What is counted here is lost with the process: after that a flap is told anew.
Rule 5: what the store refused comes again, as the same move: it is told again, and not counted again. Where it comes as
        another one, the event that it flaps is still to be told: `refused`.
Rule 6: the last word is on how it stands in the store, in the life that the machine is in: what was counted may have
        been refused, and not come again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from bedplate.v1.snapshot_pb2 import Problem
from provisioner.world import Change, Facts, Noted

WINDOW_S = 600.0
MOST = 3
NAMED = 3
APPEARED = "machine.problem.appeared"
CLEARED = "machine.problem.cleared"
FLAPPING = "machine.problem.flapping"
SWINGING = "machine.flapping"
Key = tuple[str, str, str, int] | tuple[str, str]  # machine, and probe, part, kind of a problem, or the aspect
Move = tuple[Problem, bool]  # whether it is there now


def moves(before: Iterable[Problem], after: Iterable[Problem]) -> tuple[Move, ...]:
    """What cleared, then what appeared, each in the order in which it stood."""
    was, now = {_key("", one): one for one in before}, {_key("", one): one for one in after}
    cleared = tuple((one, False) for key, one in was.items() if key not in now)
    return cleared + tuple((one, True) for key, one in now.items() if key not in was)


@dataclass(frozen=True, slots=True)
class Aspect:
    """In which a machine is in one state or another."""

    name: str
    does: str  # when it flaps; so many times
    stands: Callable[[Facts], tuple[str, str]]  # the kind of the event that says how it stands, and the words for it


@dataclass(frozen=True, slots=True)
class Swing:
    """A machine went over to another state in one aspect, and the event that this is worth."""

    aspect: Aspect
    to: object  # the state: another object than any other state's
    incarnation: int
    noted: Noted


class _Worth(Enum):
    """What one change is worth."""

    AN_EVENT = "an event"
    A_FLAP = "the event that it flaps"
    NOTHING = "nothing: it is counted"


@dataclass(slots=True)
class _Course:
    """The changes of late of one problem, or of a machine in one aspect."""

    incarnation: int
    line: str = ""  # of a problem
    stored: bool = False  # the problem is there, as far as that is durable
    aspect: Aspect | None = None
    to: object = None
    times: list[float] = field(default_factory=list)  # within the window; while it flaps, of the last change only
    count: int = 0  # since the first of them
    flaps: bool = False
    told: Noted | None = None  # that it flaps

    def move(self, to: object, now: float) -> _Worth:
        """It is in this state now: where it was so already, the store refused that, and it comes again."""
        again, flapped = self.to == to, self.flaps
        if not again:
            self.to, self.count = to, self.count + 1
            self.times = [*self.times, now]
            self.flaps = flapped or len(self.times) > MOST
        if not self.flaps:
            return _Worth.AN_EVENT
        self.times = [now]
        return _Worth.NOTHING if flapped and self.told and not again else _Worth.A_FLAP

    def still(self, since: float) -> bool:
        return self.times[-1] <= since

    def concerns(self, facts: Facts) -> bool:
        """Whether the machine is in the same life still."""
        return facts.forgotten_at is None and facts.incarnation == self.incarnation

    def last_word(self, facts: Facts) -> tuple[str, str]:
        """The kind of the event, and its sentence."""
        if self.aspect:
            kind, words = self.aspect.stands(facts)
            return kind, f"{words} now, after {self.count} changes"
        stands = "there" if self.stored else "gone"
        return APPEARED if self.stored else CLEARED, f"{self.line}: it is {stands} now, after {self.count} changes"


@dataclass(slots=True)
class Flaps:
    """One for a provisioner. Its size is bounded by what changed within the window."""

    window_s: float = WINDOW_S
    _courses: dict[Key, _Course] = field(default_factory=dict)

    def moved(self, facts: Facts, moves: Sequence[Move], now: float) -> list[Noted]:
        """The events that these changes of a machine's problems are worth."""
        told: dict[str, list[str]] = {CLEARED: [], APPEARED: []}
        noted: list[Noted] = []
        for problem, there in moves:
            fresh = _Course(facts.incarnation, _line(problem), stored=not there)
            course = self._course(_key(facts.id, problem), fresh, now)
            match course.move(there, now):
                case _Worth.AN_EVENT:
                    told[APPEARED if there else CLEARED].append(_told(problem, there=there))
                case _Worth.A_FLAP:
                    because = f"{course.line}: came and went, {course.count} changes {self._within}"
                    course.told = _noted(FLAPPING, facts.id, facts.hostname, because, course.count, now=now)
                    noted.append(course.told)
                case _Worth.NOTHING:
                    pass
        for kind, lines in told.items():
            noted += [_noted(kind, facts.id, facts.hostname, *one, now=now) for one in _gathered(lines)]
        return noted

    def damped(self, found: Sequence[Change | Swing]) -> list[Change]:
        """The events that these swings are worth, and all else as it is."""
        changes: list[Change] = []
        for one in found:
            if isinstance(one, Swing):
                changes += self._swung(one)
            else:
                changes.append(one)
        return changes

    def _swung(self, swing: Swing) -> list[Noted]:
        noted = swing.noted
        fresh = _Course(swing.incarnation, aspect=swing.aspect)
        course = self._course((noted.machine_id, swing.aspect.name), fresh, noted.at)
        match course.move(swing.to, noted.at):
            case _Worth.AN_EVENT:
                return [noted]
            case _Worth.A_FLAP:
                because = f"{swing.aspect.does} {course.count} times {self._within}"
                course.told = replace(noted, kind=SWINGING, because=because, count=course.count)
                return [course.told]
            case _Worth.NOTHING:
                return []

    def kept(self, machine_id: str, moves: Iterable[Move]) -> None:
        """These moves are durable."""
        for problem, there in moves:
            if course := self._courses.get(_key(machine_id, problem)):
                course.stored = there

    def refused(self, changes: Iterable[Change]) -> None:
        """None of these came to be."""
        for lost in changes:
            if isinstance(lost, Noted) and lost.kind in {FLAPPING, SWINGING}:
                for key, course in self._courses.items():
                    if key[0] == lost.machine_id and course.told == lost:
                        course.told = None

    def settled(self, now: float, machines: Mapping[str, Facts]) -> list[Noted]:
        """The last word on all that flapped and then stood still. Once it is stored, `forget`."""
        noted: list[Noted] = []
        for key, course in self._courses.items():
            facts = machines.get(key[0])
            if facts and course.flaps and course.still(now - self.window_s) and course.concerns(facts):
                kind, because = course.last_word(facts)
                last = _noted(kind, facts.id, facts.hostname, because, course.count, now=now)
                noted.append(replace(last, actor="provisioner") if course.aspect else last)
        return noted

    def forget(self, now: float) -> None:
        """What stands still, whether it flapped or not."""
        self._courses = {key: course for key, course in self._courses.items() if not course.still(now - self.window_s)}

    @property
    def _within(self) -> str:
        return f"within {self.window_s / 60:g} min"

    def _course(self, key: Key, fresh: _Course, now: float) -> _Course:
        """The one that goes on under this key, or else a fresh one."""
        since = now - self.window_s
        course = self._courses.get(key)
        over = course is None or course.incarnation != fresh.incarnation or (course.still(since) and not course.flaps)
        if course is None or over:
            course = self._courses[key] = fresh
        if not course.flaps:
            course.times = [one for one in course.times if one > since]
            course.count = len(course.times)
        return course


def _key(machine_id: str, problem: Problem) -> tuple[str, str, str, int]:
    return machine_id, problem.probe, problem.part, problem.kind


def _line(problem: Problem) -> str:
    """'rdma mlx5_4/1 (timeout)'"""
    number = problem.kind
    known = number in Problem.Kind.values()
    kind = Problem.Kind.Name(number).removeprefix("KIND_").lower() if known else f"kind {number}"
    return f"{' '.join(filter(None, (problem.probe[:100], problem.part[:100])))} ({kind.replace('_', ' ')})"


def _told(problem: Problem, *, there: bool) -> str:
    return f"{_line(problem)}: {problem.detail[:300]}" if there and problem.detail else _line(problem)


def _gathered(lines: Sequence[str]) -> list[tuple[str, int]]:
    """Sentences, each with how many changes it stands for where it is more than one."""
    if len(lines) <= NAMED:
        return [(line, 0) for line in lines]
    return [(f"{len(lines)} problems: {'; '.join(lines[:NAMED])}; and {len(lines) - NAMED} more", len(lines))]


def _noted(kind: str, machine_id: str, hostname: str, because: str, count: int, *, now: float) -> Noted:  # noqa: PLR0913 - the fields of an event
    return Noted(kind, machine_id, hostname, because, f"machine {machine_id}", now, count)
