"""Problems that come and go, and which of that is worth an event.

Rule 1: a problem is its machine, probe, part and kind; other words for the same one (`detail`) are no news.
Rule 2: up to three changes of one problem within ten minutes are an event each. The fourth is one
        `machine.problem.flapping`, and what follows is only counted, until the problem has not moved for ten minutes:
        then one event says the count and how it stands.
Rule 3: where more than three problems appear or clear at once, that is one event with their number.
Rule 4: no clock and no store. What is counted here is lost with the process: after that a flap is told anew.
Rule 5: what the store refused comes again, as the same move: it is told again, and not counted again.
Rule 6: the last word is on how it stands in the store, in the life that the machine is in: what was counted may have
        been refused, and not come again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bedplate.v1.snapshot_pb2 import Problem
from provisioner.world import Facts, Noted

WINDOW_S = 600.0
MOST = 3
NAMED = 3
APPEARED = "machine.problem.appeared"
CLEARED = "machine.problem.cleared"
FLAPPING = "machine.problem.flapping"
Key = tuple[str, str, str, int]  # machine, probe, part, kind
Move = tuple[Problem, bool]  # whether it is there now


def moves(before: Iterable[Problem], after: Iterable[Problem]) -> tuple[Move, ...]:
    """What cleared, then what appeared, each in the order in which it stood."""
    was, now = {_key("", one): one for one in before}, {_key("", one): one for one in after}
    cleared = tuple((one, False) for key, one in was.items() if key not in now)
    return cleared + tuple((one, True) for key, one in now.items() if key not in was)


@dataclass(slots=True)
class _Course:
    """One problem's changes of late."""

    hostname: str
    line: str
    incarnation: int
    stored: bool  # it is there, as far as that is durable
    there: bool | None = None
    times: list[float] = field(default_factory=list)  # within the window; while it flaps, of the last change only
    count: int = 0  # since the first of them
    flaps: bool = False

    def still(self, since: float) -> bool:
        return self.times[-1] <= since

    def concerns(self, facts: Facts | None) -> bool:
        """Whether the machine is in the same life still."""
        return facts is not None and facts.forgotten_at is None and facts.incarnation == self.incarnation


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
            course = self._course(facts, problem, now, there=there)
            again, flapped = course.there == there, course.flaps
            if not again:
                course.there, course.count = there, course.count + 1
                course.times = [*course.times, now]
                course.flaps = flapped or len(course.times) > MOST
            if course.flaps:
                course.times = [now]
                if flapped and not again:
                    continue
                because = f"{course.line}: came and went, {course.count} changes within {self.window_s / 60:g} min"
                noted.append(_noted(FLAPPING, facts.id, facts.hostname, because, course.count, now=now))
            else:
                told[APPEARED if there else CLEARED].append(_told(problem, there=there))
        for kind, lines in told.items():
            noted += [_noted(kind, facts.id, facts.hostname, *one, now=now) for one in _gathered(lines)]
        return noted

    def kept(self, machine_id: str, moves: Iterable[Move]) -> None:
        """These moves are durable."""
        for problem, there in moves:
            if course := self._courses.get(_key(machine_id, problem)):
                course.stored = there

    def settled(self, now: float, machines: Mapping[str, Facts]) -> list[Noted]:
        """The last word on each problem that flapped and then stood still. Once it is stored, `forget`."""
        noted: list[Noted] = []
        for key, course in self._courses.items():
            if course.flaps and course.still(now - self.window_s) and course.concerns(machines.get(key[0])):
                stands = "there" if course.stored else "gone"
                because = f"{course.line}: it is {stands} now, after {course.count} changes"
                kind = APPEARED if course.stored else CLEARED
                noted.append(_noted(kind, key[0], course.hostname, because, course.count, now=now))
        return noted

    def forget(self, now: float) -> None:
        """What stands still, whether it flapped or not."""
        self._courses = {key: course for key, course in self._courses.items() if not course.still(now - self.window_s)}

    def _course(self, facts: Facts, problem: Problem, now: float, *, there: bool) -> _Course:
        key, since = _key(facts.id, problem), now - self.window_s
        course = self._courses.get(key)
        if course is None or not course.concerns(facts) or (course.still(since) and not course.flaps):
            course = self._courses[key] = _Course(facts.hostname, _line(problem), facts.incarnation, stored=not there)
        if not course.flaps:
            course.times = [one for one in course.times if one > since]
            course.count = len(course.times)
        return course


def _key(machine_id: str, problem: Problem) -> Key:
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
