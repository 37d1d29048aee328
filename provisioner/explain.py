"""Why a machine is in its phase: the sentence, what it rests on, and what a person can do.

Rule 1: pure: facts and time in, lines out. What only the store knows is handed in as lines.
Rule 2: the sentence is the one of `phase`: every place says the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bedplate.v1.fleet_pb2 import Phase
from bedplate.v1.uplink_pb2 import Problems
from provisioner.phase import ago, clock, phase, span
from provisioner.world import Facts, World

SKEW_S = 5.0  # of a clock: less is no news
PROBLEMS = 5  # that are named; the rest is counted


@dataclass(frozen=True, slots=True)
class Explanation:
    because: str
    evidence: tuple[str, ...]
    advice: str


def _revoked(facts: Facts) -> list[str]:
    if not facts.revoked:
        return []
    return ["its certificate was revoked: what it had is worth nothing, and nobody else can take its place"]


def explain(  # noqa: PLR0913 - what the world does not know is handed in
    facts: Facts,
    world: World,
    now: float,
    silent_after_s: float,
    *,
    problems: Sequence[str] = (),
    conduct: Sequence[str] = (),
) -> Explanation:
    """`problems`: a line each, as of the last snapshot. `conduct`: what there is to say of its streams."""
    word, because = phase(facts, world, now, silent_after_s)
    lines = [*_enrolled(facts, now), *_revoked(facts), *_heard(facts, world, now), *conduct, *_skew(facts)]
    if word in (Phase.PHASE_PRESENT, Phase.PHASE_SILENT):
        lines.append(f"a machine counts as silent {span(silent_after_s)} after its stream ended")
    return Explanation(because, (*lines, *_problems(facts, problems)), _advice(word, facts))


def problem_lines(problems: Problems) -> list[str]:
    """'gpus 0000:53:00.0: lost: no answer', a line each."""
    lines = []
    for problem in problems.problems:
        known = problem.kind in problem.Kind.values()  # a younger agent may have more
        word = problem.Kind.Name(problem.kind) if known else f"kind {problem.kind}"
        kind = word.removeprefix("KIND_").replace("_", " ").lower()
        lines.append(f"{' '.join(filter(None, (problem.probe, problem.part)))}: {kind}: {problem.detail}")
    return lines


def _enrolled(facts: Facts, now: float) -> list[str]:
    lines = [f"asked to enrol {ago(facts.asked_at, now)}; it is in incarnation {facts.incarnation}"]
    if facts.accepted_at is not None:
        lines.append(f"let in {ago(facts.accepted_at, now)}")
    if facts.certified_at is not None:
        lines.append(f"its last certificate was issued {ago(facts.certified_at, now)}")
    return lines


def _heard(facts: Facts, world: World, now: float) -> list[str]:
    if facts.last_heard_at is None:
        return ["never heard on a stream"]
    last = "last reported" if world.connected(facts) else "last heard"
    lines = [f"{last} {ago(facts.last_heard_at, now)}" + (f" from {facts.peer}" if facts.peer else "")]
    if world.connected(facts):
        lines.append("its stream is open, and kept alive below the agent: no message is needed")
    elif facts.parted_because:
        lines.append(f"its last stream ended so: {facts.parted_because}")
    elif facts.session:
        lines.append("its last stream was open when the provisioner ended")
    lines.append(f"the provisioner runs since {clock(world.started_at, now)}, in epoch {world.epoch}")
    return lines


def _skew(facts: Facts) -> list[str]:
    skew = facts.clock_skew_s
    if skew is None or abs(skew) < SKEW_S:
        return []
    return [f"its clock is {span(abs(skew))} {'ahead' if skew > 0 else 'behind'}"]


def _problems(facts: Facts, problems: Sequence[str]) -> list[str]:
    if not facts.problem_count:
        return []
    more = len(problems) - PROBLEMS
    rest = [f"and {more} more problems"] if more > 0 else []
    return [f"{facts.problem_count} questions of its last snapshot had no answer", *problems[:PROBLEMS], *rest]


def _advice(word: Phase.ValueType, facts: Facts) -> str:
    if facts.revoked:
        return (
            f"to let it in again with a new key: bedplate machine rekey {facts.id}; "
            f"if it is gone for good: bedplate machine forget {facts.id}"
        )
    match word:
        case Phase.PHASE_PENDING:
            return (
                f"see that it is yours, then: bedplate machine accept {facts.id}; if it is a machine that is known, "
                "installed or built anew: --replaces THAT; if it is another one that shows the same: --beside THAT"
            )
        case Phase.PHASE_ACCEPTED:
            return "see that the agent runs on it (systemctl status nodeagent) and reaches the uplink's address"
        case Phase.PHASE_SILENT:
            return (
                "look at the host: power, network, and systemctl status nodeagent; "
                f"if it is gone for good: bedplate machine forget {facts.id}"
            )
        case Phase.PHASE_PRESENT if abs(facts.clock_skew_s or 0.0) >= SKEW_S:
            return "set its clock right (timedatectl)"
    return ""
