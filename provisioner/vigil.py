"""Who fell silent: facts that time alone brings about.

Rule 1: everything that decides whether a machine's silence is worth an event is in this file.
Rule 2: this file does nothing: it has no clock and no store.
Rule 3: silence is noted once, and ends with the next stream: a flap is not a thousand events.
Rule 4: a look is at what is durable. Where a stream was opened while its machine's silence was being written, the next
        look finds a machine that is there and noted as silent, and writes that it is back.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from provisioner.decision import Cost, Decision, Settled, Todo
from provisioner.phase import ACCEPTED, FORGOTTEN, PENDING, PRESENT, SILENT, phase, word_of
from provisioner.world import Change, Facts, InventoryKept, Met, Noted, SilenceNoted, World

AT_ONCE = 500  # machines noted in one step: the rest in the next tick
WORDS = {ACCEPTED: "accepted", PENDING: "pending", PRESENT: "present", SILENT: "silent"}  # as they are told, in order


class Ledger(Protocol):
    def write(self, changes: Sequence[Change], /) -> Awaitable[list[int]]: ...


@dataclass(frozen=True, slots=True)
class NoteSilence:
    """Write that these machines are silent, with the sentence that says since when and why."""

    cost: ClassVar[Cost] = Cost.NOTHING
    machines: tuple[tuple[str, str, str], ...]  # id, hostname, sentence
    at: float

    async def take(self, door: Ledger, /) -> None:
        changes: list[Change] = []
        for machine_id, hostname, because in self.machines:
            changes.append(SilenceNoted(machine_id, silent=True, at=self.at))
            changes.append(Noted("machine.silent", machine_id, hostname, because, "provisioner", self.at))
        await door.write(changes)


@dataclass(frozen=True, slots=True)
class NoteReturn:
    """Write that these machines are back: their streams were opened while it was written that they are silent."""

    cost: ClassVar[Cost] = Cost.NOTHING
    machines: tuple[tuple[str, str, str], ...]  # id, hostname, sentence
    at: float

    async def take(self, door: Ledger, /) -> None:
        changes: list[Change] = []
        for machine_id, hostname, because in self.machines:
            changes.append(SilenceNoted(machine_id, silent=False, at=self.at))
            changes.append(Noted("machine.present", machine_id, hostname, because, "provisioner", self.at))
        await door.write(changes)


def plan(world: World, now: float, silent_after_s: float) -> Decision[NoteSilence | NoteReturn]:
    """What time has brought about and nobody wrote down yet."""
    phases, unnoted, returned = dict.fromkeys(WORDS, 0), list[Facts](), list[Facts]()
    for facts in world.machines.values():
        word = word_of(facts, world, now, silent_after_s)
        if word == FORGOTTEN:
            continue
        phases[word] += 1
        if word == SILENT and not facts.silent_noted:
            unnoted.append(facts)
        elif facts.silent_noted and world.connected(facts):
            returned.append(facts)
    sentence = ", ".join(f"{count} {WORDS[word]}" for word, count in phases.items() if count) or "no machines yet"
    if returned:
        because = "back while its silence was being written, from"
        back = [(one.id, one.hostname, f"{because} {one.peer}") for one in returned[:AT_ONCE]]
        return Todo((NoteReturn(tuple(back), now),), f"{sentence}; {len(returned)} came back just now")
    if not unnoted:
        return Settled(sentence)
    now_noted = [(one.id, one.hostname, phase(one, world, now, silent_after_s)[1]) for one in unnoted[:AT_ONCE]]
    return Todo((NoteSilence(tuple(now_noted), now),), f"{sentence}; {len(unnoted)} fell silent just now")


def noteworthy(facts: Facts, changes: Sequence[Change]) -> list[Change]:
    """The events that what a stream brought is worth."""
    noted: list[Change] = []
    for change in changes:
        if isinstance(change, Met):
            noted += on_meeting(facts, change)
        elif isinstance(change, InventoryKept):
            noted += on_inventory(facts, change)
    return noted


def on_meeting(facts: Facts, met: Met) -> list[Change]:
    """The events that a new stream of this machine is worth."""
    noted: list[Change] = []

    def note(kind: str, because: str) -> None:
        noted.append(Noted(kind, facts.id, facts.hostname, because, f"machine {facts.id}", met.at))

    if facts.last_heard_at is None:
        note("machine.present", f"heard for the first time, from {met.peer}")
    elif facts.silent_noted:
        note("machine.present", f"back after {_span(met.at - facts.last_heard_at)} of silence, from {met.peer}")
        noted.append(SilenceNoted(facts.id, silent=False, at=met.at))
    if facts.boot_id and met.boot_id and facts.boot_id != met.boot_id:
        note("machine.changed", f"rebooted: boot {met.boot_id}, before {facts.boot_id}")
    return noted


COLUMNS = (
    ("hostname", "host name"),
    ("product", "product"),
    ("serial", "serial"),
    ("gpu_count", "GPUs"),
    ("gpu_model", "GPU model"),
    ("rdma_count", "RDMA devices"),
    ("os", "system"),
    ("kernel", "kernel"),
)


def on_inventory(facts: Facts, kept: InventoryKept) -> list[Change]:
    """The event that another inventory is worth; the first one is none: nothing changed."""
    if not facts.inventory_digest or facts.inventory_digest == kept.digest:
        return []
    moved = [
        f"{name} {getattr(facts, key) or 'none'} -> {getattr(kept, key) or 'none'}"
        for key, name in COLUMNS
        if getattr(facts, key) != getattr(kept, key)
    ]
    because = "its inventory changed" + (f": {', '.join(moved)}" if moved else "")
    return [Noted("machine.changed", facts.id, kept.hostname, because, f"machine {facts.id}", kept.at)]


def _span(seconds: float) -> str:
    """4000 -> '1 h 6 min'"""
    minutes, rest = divmod(int(max(0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{rest} s"
