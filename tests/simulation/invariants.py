"""What has to be true after each event, whatever failed: judged from outside, on what is durable and what was said.

Rule: nothing here believes the logic that it judges. The fold of the changes, the sequences and the vitals that each
run has sent are kept a second time, as they come to be.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from bedplate.v1.enrolment_pb2 import Evidence
from bedplate.v1.fleet_pb2 import Phase
from bedplate.v1.uplink_pb2 import Delta, Problems
from provisioner.evidence import kinds
from provisioner.facts import machine_of
from provisioner.flaps import Flaps
from provisioner.phase import word_of
from provisioner.vitals import folded
from provisioner.world import (
    REVOKED,
    Accepted,
    Answered,
    Asked,
    Audited,
    Certified,
    Change,
    Facts,
    InventoryKept,
    Met,
    Noted,
    Parted,
    Revoked,
    TokenMade,
    TokenRevoked,
    TokenUsed,
    VitalsKept,
    VitalsMoved,
    World,
    machine_after,
)
from tests.simulation.broken import BrokenError, hold
from tests.simulation.disk import Platter
from tests.simulation.manners import Manners
from tests.simulation.oracle import FLAP_WINDOW_S, Oracle
from tests.simulation.outward import Outward
from tests.simulation.swings import Swings

PRESENT = Phase.PHASE_PRESENT
LATE_S = 300.0  # longer than any disk is full or slow
Entry = tuple[int, Change, Any]  # revision, change, who wished it


class Invariants:
    def __init__(self, platter: Platter) -> None:
        self.platter = platter
        self.manners = Manners()
        self.oracle = Oracle()
        self.swings = Swings()
        self.outward = Outward(platter)
        self.machines: dict[str, Facts] = {}  # the fold, change by change
        self.owners: dict[bytes, Any] = {}  # key -> the machine that made it
        self.youngest: dict[str, int] = {}  # machine id -> the number of the stream that changed it last
        self._back: dict[str, float] = {}  # there, and noted as silent still: since when
        self._opened = 0
        self._revision = 0
        self._sent: dict[bytes, dict[int, tuple[bytes, bytes]]] = defaultdict(dict)  # run -> sequence -> as it then is
        self._whole: dict[str, VitalsKept] = {}
        self._acknowledged: dict[tuple[str, int], tuple[bytes, int]] = {}  # machine, incarnation -> run, sequence

    # -- the agents ------------------------------------------------------------------------------------------------

    def made(self, machine: Any, key: bytes) -> None:
        self.owners[key] = machine

    def sent(self, machine: Any, delta: Any) -> None:
        session = machine.session
        there = session._vitals_there.SerializeToString(deterministic=True)
        problems = session._problems_there.SerializeToString(deterministic=True)
        hold(delta.sequence not in self._sent[session.run_id], machine, "sends two deltas", delta.sequence)
        self._sent[session.run_id][delta.sequence] = (there, problems)

    def heard(self, machine: Any, message: Any, epoch: int) -> None:
        session, who = machine.session, machine.shown
        hold(session.epoch >= epoch, machine, "obeys epoch", session.epoch, "after", epoch)
        kind = message.WhichOneof("message")
        if who is None or kind not in ("ack", "welcome") or self._is_over(who):
            return
        life = (who.machine_id, who.incarnation)
        run, before = self._acknowledged.get(life, (b"", 0))
        if kind == "welcome":
            lost = run == session.run_id and message.welcome.stored_sequence < before
            hold(not lost, machine, "was told", before, "is stored, and now", message.welcome.stored_sequence)
        else:
            self._acknowledged[life] = (
                session.run_id,
                max(before if run == session.run_id else 0, message.ack.sequence),
            )

    def nonsense(self, machine: Any, message: Any, error: Exception) -> None:
        older = message.HasField("welcome") and message.welcome.epoch < machine.session.epoch
        hold(older, machine, "was told nonsense by an honest provisioner:", error)

    # -- the provisioner -------------------------------------------------------------------------------------------

    def broke(self, conversation: Any, error: Exception) -> None:
        hold("obeys epoch" in str(error), conversation, "was cut off, and the agent is honest:", error)

    def phases(self, world: World, now: float, silent_after_s: float) -> None:
        if world is not self.platter.world:
            return  # of a life that is over and does not know it
        for facts in world.machines.values():
            word = word_of(facts, world, now, silent_after_s)
            right = self.oracle.word(facts.id, world, now, silent_after_s)
            if word != right:
                raise BrokenError(f"{facts.id} is {Phase.Name(word)} and has to be {Phase.Name(right)}")
            if facts.silent_noted and right == PRESENT:
                late_s = now - self._back.setdefault(facts.id, now)
                hold(late_s < LATE_S, facts.id, "is there, and has been noted as silent for", late_s, "s")
            elif self._back:
                self._back.pop(facts.id, None)

    def flaps(self, flaps: Flaps, now: float) -> None:
        old = [key for key, course in flaps._courses.items() if course.times[-1] < now - 2 * FLAP_WINDOW_S]
        hold(not old, "the memory of flaps holds what stands still:", old[:1])

    def opened(self) -> int:
        self._opened += 1
        return self._opened

    def said(self, conversation: Any, message: Any) -> None:
        name = conversation.who.machine_id
        if self._is_over(conversation.who):
            return  # the last words to a life that is over
        row = self.platter.rows.get(name)
        kind = message.WhichOneof("message")
        if kind == "want_inventory":
            stored = message.want_inventory.digest in self.platter.seen.get(name, ())
            hold(not stored, conversation, "is asked for an inventory that is stored")
        if kind == "welcome":
            epoch = conversation.session.epoch
            hold(conversation.obeys <= epoch, conversation, "obeys", conversation.obeys, "and is welcome in", epoch)
        if kind == "ack":
            hold(self._stored(row, conversation, message.ack.sequence), conversation, "is told that", message.ack)
        if kind == "welcome" and message.welcome.stored_sequence:
            stored = self._stored(row, conversation, message.welcome.stored_sequence)
            hold(stored, conversation, "is welcome with", message.welcome.stored_sequence, "and that is not stored")

    def _is_over(self, who: Any) -> bool:
        facts = self.machines.get(who.machine_id)
        return facts is None or facts.incarnation != who.incarnation

    def _stored(self, row: Any, conversation: Any, sequence: int) -> bool:
        return row is not None and row.run_id == conversation.session._dials.run_id and row.sequence >= sequence

    def refused(self, changes: Iterable[Change], now: float) -> None:
        """These did not come to be: what the product has counted is more than what is durable."""
        self.oracle.refused(now)
        self.swings.refused(changes, now)

    def committed(self, before: World, after: World, entries: Sequence[Entry], now: float) -> None:
        """A batch is durable: the world before it and after it, and what is in it."""
        touched = set[str]()
        self.swings.batch_begins(now)
        for revision, change, author in entries:
            hold(revision == self._revision + 1, "revision", revision, "after", self._revision)
            self._revision = revision
            self.oracle.change(change)
            self.swings.change(change)
            match change:
                case Noted() | TokenMade() | TokenRevoked() | TokenUsed() | Answered() | Audited():
                    pass
                case _ if hasattr(change, "machine_id"):
                    touched.add(change.machine_id)
                    self._machine(revision, change, author)
                case _:
                    pass
        self.swings.batch_over()
        for name in touched:
            hold(after.machines[name] == self.machines[name], name, "is not what its changes make of it")
        hold(not entries or after.revision == self._revision > before.revision, "the world's revision")

    def loaded(self, world: World) -> None:
        """A life of the provisioner begins with what is on the disk."""
        self.oracle.begins()
        self.swings.begins()
        self.outward.verify()
        same = world.machines == self.machines and world.revision == self._revision
        hold(same, "the world that was loaded is not the fold of what is durable")
        hold(self.oracle.same_tokens(world.tokens), "the tokens that were loaded are not those that were made")
        for (name, incarnation), (run, sequence) in self._acknowledged.items():
            facts, row = world.machines[name], self.platter.rows.get(name)
            if facts.incarnation == incarnation and row and row.run_id == run:
                hold(row.sequence >= sequence, name, "lost delta", sequence, "that was acknowledged")
            hold(facts.incarnation != incarnation or row is not None, name, "lost all that was acknowledged")

    # -- inside ----------------------------------------------------------------------------------------------------

    def _machine(self, revision: int, change: Any, author: Any) -> None:
        before = self.machines.get(change.machine_id)
        after = self.machines[change.machine_id] = machine_after(before, change, revision)
        if isinstance(change, Asked):
            rightly = author == "operator" or machine_of(change.token_id) == after.id
            known = before is not None and before.forgotten_at is None
            hold(rightly or not known, after.id, "is known, and asks to enrol")
            alike = not known or author == "operator" or _serial(change.evidence) == _serial(before.evidence)
            hold(alike, after.id, "is known, and comes again as another box by", change.token_id)
            hold(after.incarnation == (before.incarnation + 1 if before else 1), after.id, "has a wrong incarnation")
            return
        hold(before is not None, change.machine_id, "is not known")
        if before.forgotten_at is not None:
            hold(after == before, after.id, "is forgotten, and changes by", type(change).__name__)
            return
        higher = isinstance(change, Revoked) and not before.revoked
        hold(after.incarnation == before.incarnation + higher, after.id, "changes its incarnation")
        match change:
            case Accepted():
                self._alone(after)
            case Certified():
                same = self.owners[change.key_sha256] is self.owners[before.key_sha256.removeprefix(REVOKED)]
                hold(same or after == before, after.id, "gets the key of another box")
                hold(not before.revoked or after == before, after.id, "is revoked, and gets a certificate")
            case Met():
                hold(change.epoch == self.platter.world.epoch, after.id, "is met in epoch", change.epoch)
                self._its_one_stream(after, author)
            case VitalsKept() | VitalsMoved():
                self._its_one_stream(after, author)
                self._vitals(before, change)
            case InventoryKept():
                self._its_one_stream(after, author)
                body = self.platter.bodies[change.digest]
                hold(sha256(body).digest() == change.digest, after.id, "has an inventory that is not of its digest")
            case Parted():
                older = before.session != change.session
                hold(not older or after == before, after.id, "is moved by the end of an older stream")

    def _its_one_stream(self, facts: Facts, author: Any) -> None:
        own = author.who.machine_id == facts.id and author.who.incarnation == facts.incarnation
        hold(own, facts.id, "of incarnation", facts.incarnation, "is changed by", author)
        youngest = self.youngest.get(facts.id, 0)
        hold(author.number >= youngest, facts.id, "is changed by stream", author.number, "after stream", youngest)
        self.youngest[facts.id] = author.number

    def _vitals(self, before: Facts, change: VitalsKept | VitalsMoved) -> None:
        older = before.run_id == change.run_id and change.sequence <= before.sequence
        hold(not older, before.id, "goes back to delta", change.sequence, "from", before.sequence)
        vitals, problems = self._sent[change.run_id][change.sequence]
        kept = self._kept(before.id, change)
        hold(kept.vitals == vitals, before.id, "has other vitals stored than it sent, delta", change.sequence)
        same = Problems.FromString(kept.problems) == Problems.FromString(problems)
        hold(same, before.id, "has other problems stored than it sent, delta", change.sequence)

    def _kept(self, name: str, change: VitalsKept | VitalsMoved) -> VitalsKept:
        """All vitals and problems as this change leaves them."""
        if isinstance(change, VitalsMoved):
            kept = self._whole[name]
            hold(kept.run_id == change.run_id, name, "has a delta to the vitals of another run")
            vitals = folded(kept.vitals, [Delta.FromString(change.delta)]).SerializeToString(deterministic=True)
            change = replace(kept, sequence=change.sequence, vitals=vitals, at=change.at)
        self._whole[name] = change
        return change

    def _alone(self, facts: Facts) -> None:
        """Of two machines that are let in more hardware differs than is the same, if any is."""
        mine = kinds(facts.evidence)
        for other in self.machines.values():
            if other.id == facts.id or other.accepted_at is None or other.forgotten_at is not None:
                continue
            theirs = kinds(other.evidence)
            shared = [kind for kind, values in mine.items() if values & theirs.get(kind, frozenset())]
            few = 2 * len(shared) < len(mine.keys() & theirs.keys())
            hold(few or not shared, facts.id, "is let in beside", other.id, "with the same", ", ".join(shared))


def _serial(evidence: bytes) -> str:
    """No part that is swapped changes it."""
    return Evidence.FromString(evidence).identity.product_serial
