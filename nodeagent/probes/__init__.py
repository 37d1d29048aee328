"""The frame of the probes: finds them, runs them side by side, bounds their time, and makes problems of what fails.

Rule 1: this folder is the registry, and the file's name is the probe's name. A probe's file holds

    probe(host: Host) -> Snapshot    its part and nothing else; sorted; no try, no thread, no time limit
    ON: tuple[str, ...]              inventory: the kernel's subsystems, or "links", whose events make it stale
    EVERY_S: float                   vitals: how long its answer is good for
    LIMIT_S: float                   optional: how long it may take

Rule 2: no probe can delay another beyond its own limit, and none can stop the tick: each run has a thread of its own
        that nobody waits for at the end. One that hangs is a problem, is not started a second time, and its answer is
        taken whenever it comes.
Rule 3: what failed is tried again after a while, though no event says so; a part that was had before stands meanwhile.
"""

import importlib
import logging
import os
import pkgutil
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bedplate.v1.snapshot_pb2 import Problem, Snapshot
from nodeagent.errors import Unanswered
from nodeagent.host import Host
from nodeagent.root import MAX_NOTES, Note

LIMIT_S = 2.0
INVENTORY_LIMIT_S = 5.0
RETRY_S = 60.0
# Ticks come a little early and a little late: what is due within a tenth of its time is due.
EARLY = 0.1
KINDS = dict(Problem.Kind.items())
EVERYTHING = frozenset({"everything"})  # wakes every probe

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Probe:
    """One file of this folder."""

    name: str
    run: Callable[[Host], Snapshot]
    on: frozenset[str] = frozenset()
    every_s: float | None = None
    limit_s: float = LIMIT_S


@dataclass(frozen=True, slots=True)
class Answer:
    """What a probe's latest run came to. `part` is the last that it gave, however long ago."""

    part: Snapshot = field(default_factory=Snapshot)
    problems: tuple[Problem, ...] = ()
    failed: bool = False


def registry() -> tuple[Probe, ...]:
    """The probes of this folder, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return tuple(_load(name) for name in names)


def _load(name: str) -> Probe:
    module = importlib.import_module(f"{__name__}.{name}")
    every_s = getattr(module, "EVERY_S", None)
    limit_s = getattr(module, "LIMIT_S", LIMIT_S if every_s else INVENTORY_LIMIT_S)
    return Probe(name, module.probe, frozenset(getattr(module, "ON", ())), every_s, limit_s)


@dataclass(slots=True)
class _Run:
    """A probe and its runs, as they stand."""

    probe: Probe
    answer: Answer = Answer()
    started: float | None = None
    running: bool = False

    def due(self, now: float, woken: frozenset[str]) -> bool:
        if self.running:
            return False
        if self.started is None or woken >= EVERYTHING or not self.probe.on.isdisjoint(woken):
            return True
        wait_s = self.probe.every_s or (RETRY_S if self.answer.failed else None)
        return wait_s is not None and now - self.started >= wait_s * (1 - EARLY)


class Frame:
    """Runs the probes of one host when they are due, and keeps the last answer of each."""

    def __init__(self, host: Host, probes: Sequence[Probe]) -> None:
        self._host = host
        self._runs = {probe.name: _Run(probe) for probe in sorted(probes, key=lambda probe: probe.name)}
        self._answers: queue.SimpleQueue[tuple[str, Answer]] = queue.SimpleQueue()

    def look(self, now: float, woken: frozenset[str]) -> list[Answer]:
        """The last answer of every probe, in order of their names, after those that are due have run.

        It takes as long as the slowest that is due, and no longer than the limits allow.
        """
        self._take_late()
        due = [run for run in self._runs.values() if run.due(now, woken)]
        self._wait([run for run in due if self._start(run, now)])
        return [run.answer for run in self._runs.values()]

    def _start(self, run: _Run, now: float) -> bool:
        """Whether there will be an answer: a host that is out of threads gives none."""
        run.started = now
        name = f"probe-{run.probe.name}"
        try:
            threading.Thread(target=self._answer, args=(run.probe,), name=name, daemon=True).start()
        except RuntimeError as error:
            run.answer = Answer(run.answer.part, (_problem(run.probe, str(error)),), failed=True)
            return False
        run.running = True
        return True

    def _answer(self, probe: Probe) -> None:
        self._answers.put((probe.name, ask(probe, self._host.view())))

    def _take_late(self) -> None:
        while not self._answers.empty():
            self._settle(*self._answers.get())

    def _settle(self, name: str, answer: Answer) -> None:
        run = self._runs[name]
        run.running = False
        run.answer = Answer(run.answer.part, answer.problems, failed=True) if answer.failed else answer

    def _wait(self, due: Iterable[_Run]) -> None:
        began = time.monotonic()
        waiting = {run.probe.name: run for run in due}
        while waiting:
            ends = min(run.probe.limit_s for run in waiting.values()) + began
            try:
                name, answer = self._answers.get(timeout=max(0.0, ends - time.monotonic()))
            except queue.Empty:
                for name in [name for name, run in waiting.items() if run.probe.limit_s + began <= ends]:
                    _give_up(waiting.pop(name))
            else:
                self._settle(name, answer)
                waiting.pop(name, None)


def _give_up(run: _Run) -> None:
    problem = _problem(run.probe, f"no answer within {run.probe.limit_s:g} s", Problem.KIND_TIMEOUT)
    run.answer = Answer(run.answer.part, (problem,), failed=True)


def ask(probe: Probe, host: Host) -> Answer:
    """Runs one probe, here and now. `host` is a view of its own."""
    try:
        return _answered(probe, host, probe.run(host))
    except Unanswered as error:
        kind = KINDS.get(f"KIND_{error.kind}", Problem.KIND_FAILED)
        return _failed(probe, host, Problem(probe=probe.name, kind=kind, detail=_one_line(error)))
    except Exception as error:  # noqa: BLE001 - a broken probe is a fact about the machine, whatever broke it
        _log.debug("probe %s failed", probe.name, exc_info=True)
        return _failed(probe, host, _problem(probe, f"{type(error).__name__}: {_one_line(error)}"))


def _answered(probe: Probe, host: Host, part: Snapshot) -> Answer:
    problems = [
        Problem(probe=probe.name, kind=p.kind, part=_one_line(p.part), detail=_one_line(p.detail))
        for p in part.problems
    ]
    part.ClearField("problems")
    return Answer(part, (*problems, *_unread(probe, host.root.notes)))


def _problem(probe: Probe, why: str, kind: Problem.Kind.ValueType = Problem.KIND_FAILED) -> Problem:
    return Problem(probe=probe.name, kind=kind, detail=f"cannot probe {probe.name}: {why}")


def _failed(probe: Probe, host: Host, problem: Problem) -> Answer:
    return Answer(problems=(problem, *_unread(probe, host.root.notes)), failed=True)


def _unread(probe: Probe, notes: Sequence[Note]) -> list[Problem]:
    problems = [_unread_one(probe, note) for note in notes]
    if len(notes) >= MAX_NOTES:
        detail = f"cannot read all that {probe.name} asks for: {MAX_NOTES} are listed, there may be more"
        problems.append(Problem(probe=probe.name, kind=Problem.KIND_FAILED, detail=detail))
    return problems


def _unread_one(probe: Probe, note: Note) -> Problem:
    denied = isinstance(OSError(note.errno, ""), PermissionError)
    return Problem(
        probe=probe.name,
        kind=Problem.KIND_NO_PERMISSION if denied else Problem.KIND_FAILED,
        part=note.path,
        detail=f"cannot read {note.path}: {os.strerror(note.errno)}",
    )


def _one_line(error: Exception | str) -> str:
    """What a driver or a captured machine says may be anything."""
    return " ".join(str(error).encode("utf-8", "backslashreplace").decode().split())[:300]
