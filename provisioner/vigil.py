"""Who fell silent, which time alone brings about, and what a stream brings that people want to know.

Rule 1: everything that decides whether a machine's silence is a fact, and worth an event, is in this file. How many
        such events are told is decided in `flaps`: what may go to and fro is a swing.
Rule 2: this file does nothing: it has no clock and no store.
Rule 3: silence is noted once, and ends with the next stream. The facts are written whether an event tells of them or
        not.
Rule 4: a look is at what is durable. Where a stream was opened while its machine's silence was being written, the next
        look finds a machine that is there and noted as silent, and writes that it is back.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from provisioner.decision import Cost, Decision, Settled, Todo
from provisioner.flaps import Aspect, Swing
from provisioner.phase import ACCEPTED, FORGOTTEN, PENDING, PRESENT, SILENT, phase, word_of
from provisioner.world import Change, Facts, InventoryKept, Met, Noted, SilenceNoted, World

AT_ONCE = 500  # machines noted in one step: the rest in the next tick
WORDS = {ACCEPTED: "accepted", PENDING: "pending", PRESENT: "present", SILENT: "silent"}  # as they are told, in order


class Ledger(Protocol):
    def damped(self, found: Sequence[Change | Swing], /) -> list[Change]: ...
    def write(self, changes: Sequence[Change], /) -> Awaitable[list[int]]: ...


@dataclass(frozen=True, slots=True)
class NotePresence:
    """Write that these machines are silent, or that they are back: their streams were opened while it was written that
    they are silent. Each with the sentence that says since when and why.
    """

    cost: ClassVar[Cost] = Cost.NOTHING
    silent: bool
    machines: tuple[tuple[str, int, str, str], ...]  # id, incarnation, hostname, sentence
    at: float

    async def take(self, door: Ledger, /) -> None:
        found: list[Change | Swing] = []
        kind = "machine.silent" if self.silent else "machine.present"
        for machine_id, incarnation, hostname, because in self.machines:
            noted = Noted(kind, machine_id, hostname, because, "provisioner", self.at)
            found.append(SilenceNoted(machine_id, silent=self.silent, at=self.at))
            found.append(Swing(PRESENCE, kind, incarnation, noted))
        await door.write(door.damped(found))


def plan(world: World, now: float, silent_after_s: float) -> Decision[NotePresence]:
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
        back = [(one.id, one.incarnation, one.hostname, f"{because} {one.peer}") for one in returned[:AT_ONCE]]
        step = NotePresence(silent=False, machines=tuple(back), at=now)
        return Todo((step,), f"{sentence}; {len(returned)} came back just now")
    if not unnoted:
        return Settled(sentence)
    silent = [
        (one.id, one.incarnation, one.hostname, phase(one, world, now, silent_after_s)[1]) for one in unnoted[:AT_ONCE]
    ]
    step = NotePresence(silent=True, machines=tuple(silent), at=now)
    return Todo((step,), f"{sentence}; {len(unnoted)} fell silent just now")


def noteworthy(facts: Facts, changes: Sequence[Change]) -> list[Change | Swing]:
    """The events that what a stream brought is worth."""
    found: list[Change | Swing] = []
    for change in changes:
        if isinstance(change, Met):
            found += on_meeting(facts, change)
        elif isinstance(change, InventoryKept):
            found += on_inventory(facts, change)
    return found


def on_meeting(facts: Facts, met: Met) -> list[Change | Swing]:
    """The events that a new stream of this machine is worth."""
    found: list[Change | Swing] = []

    def noted(kind: str, because: str) -> Noted:
        return Noted(kind, facts.id, facts.hostname, because, f"machine {facts.id}", met.at)

    if facts.last_heard_at is None:
        found.append(noted("machine.present", f"heard for the first time, from {met.peer}"))
    elif facts.silent_noted:
        because = f"back after {_span(met.at - facts.last_heard_at)} of silence, from {met.peer}"
        found.append(Swing(PRESENCE, "machine.present", facts.incarnation, noted("machine.present", because)))
        found.append(SilenceNoted(facts.id, silent=False, at=met.at))
    if facts.boot_id and met.boot_id and facts.boot_id != met.boot_id:
        because = f"rebooted: boot {met.boot_id}, before {facts.boot_id}"
        found.append(Swing(BOOT, met.boot_id, facts.incarnation, noted("machine.changed", because)))
    return found


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


def on_inventory(facts: Facts, kept: InventoryKept) -> list[Change | Swing]:
    """The event that another inventory is worth; the first one is none: nothing changed."""
    if not facts.inventory_digest or facts.inventory_digest == kept.digest:
        return []
    moved = [
        f"{name} {getattr(facts, key) or 'none'} -> {getattr(kept, key) or 'none'}"
        for key, name in COLUMNS
        if getattr(facts, key) != getattr(kept, key)
    ]
    because = "its inventory changed" + (f": {', '.join(moved)}" if moved else "")
    noted = Noted("machine.changed", facts.id, kept.hostname, because, f"machine {facts.id}", kept.at)
    return [Swing(INVENTORY, kept.digest, facts.incarnation, noted)]


def _boot(facts: Facts) -> tuple[str, str]:
    return "machine.changed", f"boot {facts.boot_id or 'unknown'}"


def _inventory(facts: Facts) -> tuple[str, str]:
    shown = [f"{name} {value}" for key, name in COLUMNS if (value := getattr(facts, key))]
    return "machine.changed", f"its inventory is {', '.join(shown) or 'empty'}"


def _presence(facts: Facts) -> tuple[str, str]:
    return ("machine.silent", "silent") if facts.silent_noted else ("machine.present", "present")


BOOT = Aspect("boot", "rebooted, or took turns with a copy of its disk,", _boot)
INVENTORY = Aspect("inventory", "its inventory changed", _inventory)
PRESENCE = Aspect("presence", "fell silent or came back", _presence)


def _span(seconds: float) -> str:
    """4000 -> '1 h 6 min'"""
    minutes, rest = divmod(int(max(0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{rest} s"
