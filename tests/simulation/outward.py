"""What leaves the provisioner, judged as it arrives: events at sinks and at watches, machines at watches, the audit.

Rule: from what is durable and what arrived alone. Nothing here asks the product how far it believes to be.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from provisioner.chain import START, Link, close, follow
from provisioner.store.rows import Event
from provisioner.world import Answered, Asked, Audited
from tests.simulation.arrivals import Arrivals, incarnation_of
from tests.simulation.broken import hold
from tests.simulation.disk import Platter


@dataclass(slots=True)
class Had:
    """What one sink has taken."""

    wants: Callable[[Event], bool]
    begins: int  # it is new since this revision
    place: int  # that is durable
    youngest: int = 0  # revision
    index: int = 0  # in the events that are durable: behind the youngest


@dataclass(slots=True)
class Outward:
    platter: Platter
    sinks: dict[str, Had] = field(default_factory=dict)
    _heard: dict[Any, int] = field(default_factory=dict)  # watch of events -> how many of them it has had
    _written: dict[str, int] = field(default_factory=dict)  # what wrote -> its entry in the audit
    _arrivals: Arrivals = field(default_factory=Arrivals)
    _verified: Link = START

    # -- sinks -----------------------------------------------------------------------------------------------------

    def begins(self, name: str, wants: Callable[[Event], bool]) -> None:
        """A life of the provisioner delivers to it."""
        place = self.platter.sinks[name]
        self.sinks.setdefault(name, Had(wants, place, place, place, self.platter.after(place)))

    def took(self, name: str, revision: int) -> None:
        """It may have had it before: never one that is not durable, and never one behind another that it lacks."""
        had, events = self.sinks[name], self.platter.events
        index = self.platter.after(revision) - 1
        hold(index >= 0 and events[index].revision == revision, name, "gets event", revision, "that is not durable")
        if revision <= had.youngest:
            return
        lacks = [event.revision for event in events[had.index : index] if had.wants(event)]
        hold(not lacks, name, "gets event", revision, "before", lacks[:1])
        had.youngest, had.index = revision, index + 1

    def noted(self, places: Mapping[str, int]) -> None:
        """It is durable that they have had the events up to there."""
        for name, place in places.items():
            had = self.sinks[name]
            lacks = next((one.revision for one in self.platter.events[had.index :] if had.wants(one)), None)
            hold(lacks is None or place < lacks, name, "is said to have had", place, "and lacks event", lacks)
            had.place = max(had.place, place)

    def behind(self) -> str:
        """A sink that has not had everything, or of which that is not known; empty where there is none."""
        newest = self.platter.events[-1].revision if self.platter.events else 0
        for name, had in self.sinks.items():
            if any(had.wants(event) for event in self.platter.events[had.index :]):
                return f"{name} has not had all events"
            if had.place < newest and newest > had.begins:
                return f"that {name} has had all events is not kept"
        return ""

    # -- watches ---------------------------------------------------------------------------------------------------

    def told(self, watch: Any, revision: int) -> None:
        """Each event once, in order, however often it resumed."""
        index = self._heard.get(watch, 0)
        due = self.platter.events[index].revision if index < len(self.platter.events) else None
        hold(revision == due, watch, "is told event", revision, "and event", due, "comes next")
        self._heard[watch] = index + 1

    def shown(self, watch: Any, revision: int, before: int, model: Mapping[str, int]) -> None:
        """Machines as a watch knows them, by revision: all that changed up to where it is, and nothing twice."""
        hold(revision > before, watch, "is told revision", revision, "after", before)
        for facts in self.platter.world.machines.values():
            if facts.revision <= revision:
                known = model.get(facts.id, 0)
                right = not known if facts.forgotten_at is not None else known >= facts.revision
                hold(right, watch, "is at", revision, "and knows", facts.id, "as of", known, "not", facts.revision)

    def lacks(self, watch: Any, model: Mapping[str, int] | None) -> str:
        """What a watch that has waited for long was not told; empty where there is nothing."""
        if model is None:
            lacks = len(self.platter.events) - self._heard.get(watch, 0)
            return f"{watch} was not told of {lacks} events" if lacks else ""
        known = {facts.id: facts.revision for facts in self.platter.world.known}
        return "" if known == model else f"{watch} knows {model}, and there are {known}"

    # -- what people write -----------------------------------------------------------------------------------------

    def committed(self, changes: Sequence[Any], author: object) -> None:
        """One wish of a batch: a person's leaves one entry and one answer, each newcomer an entry, nobody else any."""
        self._arrivals.committed(changes)
        kinds, person = [type(change) for change in changes], int(author == "operator")
        due = kinds.count(Asked) if author == "door" else person
        right = (kinds.count(Audited), kinds.count(Answered)) == (due, person)
        hold(right, author, "leaves not", due, "entries of the audit and", person, "answers, but", *kinds)
        entries = [change for change in changes if isinstance(change, Audited)]
        if not person:
            self._written |= {_writer(entry): len(self._written) + number for number, entry in enumerate(entries, 1)}
            return
        answers = [change for change in changes if isinstance(change, Answered)]
        for entry, answer in zip(entries, answers, strict=True):
            hold(entry.request_id == answer.request_id, "the entry of", entry.request_id, "has another answer")
            twice = entry.request_id in self._written
            hold(not twice, "the write", entry.request_id, "comes to be twice")
            changed = [one for one in changes if getattr(one, "machine_id", "") and not isinstance(one, Audited)]
            told = bool(entry.after or entry.before) == bool(changed)
            hold(told, "the entry of", entry.request_id, "tells nothing of", changed)
            self._written[entry.request_id] = len(self._written) + 1

    def answered(self, request_id: str) -> None:
        """A person was told that it came to be."""
        hold(request_id in self._written, "the write", request_id, "is answered, and is not durable")

    def verify(self) -> None:
        """A life begins: the chain is whole, and holds each write that came to be in its place."""
        head = self.platter.head
        younger = self.platter.audit[self._verified.sequence :]
        self._verified = follow(self._verified, younger)
        close(self._verified, head)
        hold(head.sequence == len(self._written), "the audit has", head.sequence, "of", len(self._written), "entries")
        for entry in younger:
            place = self._written.get(_writer(entry))
            hold(place == entry.sequence, "entry", entry.sequence, "is of", _writer(entry), "which was the", place)


def _writer(entry: Any) -> str:
    """Its request id, or else the machine and its life: nobody comes in twice in one."""
    return entry.request_id or f"{entry.machine_id}/{incarnation_of(entry)}"
