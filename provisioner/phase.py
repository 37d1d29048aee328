"""The one word for a machine's situation, and the sentence that says why: computed from facts, never stored.

Rule 1: everything that decides a machine's phase is in this file, and it does nothing: time is handed in.
Rule 2: presence is the stream itself. Where there is none, a machine has `silent_after_s` from when it was last heard.
Rule 3: what the provisioner could not hear is not silence: a machine that was not silent when the provisioner ended
        has the same time again from when the provisioner is back.
"""

from google.protobuf.timestamp_pb2 import Timestamp

from bedplate.v1.fleet_pb2 import Phase
from provisioner.world import Facts, World

MINUTE, HOUR, DAY = 60, 3600, 86400
FORGOTTEN, PENDING, ACCEPTED = Phase.PHASE_UNSPECIFIED, Phase.PHASE_PENDING, Phase.PHASE_ACCEPTED
PRESENT, SILENT = Phase.PHASE_PRESENT, Phase.PHASE_SILENT  # looked up once: protobuf's names are slow to get


def phase(facts: Facts, world: World, now: float, silent_after_s: float) -> tuple[Phase.ValueType, str]:
    """The word, and one sentence for a person."""
    word = word_of(facts, world, now, silent_after_s)
    match word:
        case Phase.PHASE_PENDING:
            return word, _pending(facts, now)
        case Phase.PHASE_ACCEPTED:
            return word, f"let in {ago(facts.accepted_at or now, now)}, and not heard since"
        case Phase.PHASE_PRESENT:
            return word, _present(facts, world, now, silent_after_s)
        case Phase.PHASE_SILENT:
            return word, _silent(facts, world, now)
        case _:
            return word, f"forgotten {ago(facts.forgotten_at or now, now)}: its certificate is worth nothing"


def word_of(facts: Facts, world: World, now: float, silent_after_s: float) -> Phase.ValueType:
    """The word alone: cheap enough to ask for each machine of a large fleet."""
    if facts.forgotten_at is not None:
        return FORGOTTEN
    if facts.accepted_at is None:
        return PENDING
    if world.connected(facts):
        return PRESENT
    if facts.last_heard_at is None:
        return ACCEPTED
    return SILENT if now >= _since(facts, world) + silent_after_s else PRESENT


def silent_at(facts: Facts, world: World, silent_after_s: float) -> float | None:
    """When it falls silent unless it is heard; None while it cannot."""
    lost = facts.last_heard_at is not None and facts.accepted_at is not None and facts.forgotten_at is None
    return _since(facts, world) + silent_after_s if lost and not world.connected(facts) else None


def _since(facts: Facts, world: World) -> float:
    heard = facts.last_heard_at or 0.0
    return heard if facts.silent_noted else max(heard, world.started_at)


def _pending(facts: Facts, now: float) -> str:
    why = f": {facts.waits_because}" if facts.waits_because else ""
    return f"waits for a person{why}; asked {ago(facts.asked_at, now)}"


def _present(facts: Facts, world: World, now: float, silent_after_s: float) -> str:
    heard = facts.last_heard_at or now
    if world.connected(facts):
        return f"on a stream{_from(facts.peer)}; it last reported {span(now - heard)} ago"
    left = span(_since(facts, world) + silent_after_s - now)
    if heard < world.started_at:
        back = span(now - world.started_at)
        return (
            f"last heard {ago(heard, now)}, before the provisioner came back {back} ago; "
            f"silent in {left} unless it is heard"
        )
    gone = f"{clock(heard, now)}, {span(now - heard)} ago"
    return f"its stream ended at {gone}{_why(facts)}; silent in {left} unless it is heard"


def _silent(facts: Facts, world: World, now: float) -> str:
    heard = facts.last_heard_at or now
    if facts.session and facts.session_epoch != world.epoch:
        broke = f"its stream ended with the provisioner's last life, and it was last heard at {clock(heard, now)}"
    else:
        broke = f"its stream ended at {clock(heard, now)}{_why(facts)}"
    return f"silent for {span(now - heard)}: {broke}; nothing heard since"


def _why(facts: Facts) -> str:
    return f" ({facts.parted_because})" if facts.parted_because else ""


def _from(peer: str) -> str:
    return f" from {peer}" if peer else ""


def span(seconds: float) -> str:
    """3.2 -> '3 s', 720 -> '12 min', 9000 -> '2 h 30 min', 200000 -> '2 d 7 h'"""
    whole = max(0, int(seconds))
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min"
    large, unit, small, part = (DAY, "d", HOUR, "h") if whole >= DAY else (HOUR, "h", MINUTE, "min")
    rest = whole % large // small
    return f"{whole // large} {unit}" + (f" {rest} {part}" if rest else "")


def clock(at: float, now: float) -> str:
    """'09:12:03 UTC', with the date before it where that is not today's."""
    date, _, time = Timestamp(seconds=int(at)).ToJsonString().removesuffix("Z").partition("T")
    return f"{time} UTC" if int(at) // DAY == int(now) // DAY else f"{date} {time} UTC"


def ago(at: float, now: float) -> str:
    """'12 min ago (09:12:03 UTC)'"""
    return f"{span(now - at)} ago ({clock(at, now)})"
