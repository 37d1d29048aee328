"""The provisioner's end of one stream: what stands in for `uplink`, rule by rule; `session` decides."""

from dataclasses import dataclass, field
from typing import Any

from bedplate.v1.uplink_pb2 import Dismissal, SessionRequest, SessionResponse
from provisioner.access import standing
from provisioner.errors import BedplateError
from provisioner.lives import OVER, Life, OverError
from provisioner.pki import MachineIdentity
from provisioner.session import Keep, Known, Output, PeerError, Recall, Send, Session
from provisioner.store import StoreError
from provisioner.vigil import noteworthy
from provisioner.world import Facts, InventoryKept, machine_after
from tests.simulation.site import Site
from tests.simulation.wire import End, Wire

INTERVAL_S = 60.0
RETRY_S = 10.0


@dataclass(eq=False, slots=True)
class Conversation:
    site: Site
    who: MachineIdentity
    wire: Wire
    session: Session | None = None
    inbox: list[SessionRequest] = field(default_factory=list)
    over: bool = False
    acks_later: bool = False
    life: Life = field(init=False)
    inventory: InventoryKept | None = None
    obeys: int = 0  # the epoch that the agent said that it obeys
    number: int = 0  # in the order in which they were opened

    def __post_init__(self) -> None:
        self.life = Life(self.who.machine_id, self.who.incarnation)

    def __str__(self) -> str:
        return f"{self.who.machine_id}/{self.who.incarnation}"

    def open(self) -> None:
        """A younger stream ends the older one, whose last facts are submitted before it begins."""
        self.wire.attach("up", End(self.heard, self.end))
        self.number = self.site.invariants.opened()
        older = self.site.conversations.get(self.who.machine_id)
        self.site.conversations[self.who.machine_id] = self
        if older:
            older.cut("a younger stream of the same machine took its place", RETRY_S)
        self.site.submit((), self, self._begin)

    def _begin(self, error: StoreError | None) -> None:
        if self.over:
            return
        refused = error or standing(self.who, self.site.world)
        if refused:
            self.cut(str(refused), RETRY_S)
            return
        world = self.site.world
        name = f"{world.epoch}-{self.site.timeline.random.getrandbits(48):012x}"
        known = self._known(world.machines[self.who.machine_id])
        self.session = Session(known, name, world.epoch, "10.0.0.1", INTERVAL_S)
        while self.inbox and not self.over:
            self.heard(self.inbox.pop(0))

    def _known(self, facts: Facts) -> Known:
        row = self.site.store.vitals(facts.id)
        return Known(
            machine_id=facts.id,
            run_id=row.run_id if row else b"",
            sequence=row.sequence if row else 0,
            vitals=row.vitals if row else b"",
            problems=row.problems if row else b"",
            digest=facts.inventory_digest,
            digests=frozenset(entry.digest for entry in self.site.store.history(facts.id)),
        )

    def heard(self, message: Any) -> None:
        if self.session is None:
            self.inbox.append(message)
        elif not self.over and not self.session.ended:
            if message.HasField("hello"):
                message = self._greeted(message)
            try:
                self.handle(self.session.receive(message, self.site.now()))
            except PeerError as error:
                self.site.timeline.say(self, "broke the conversation:", error)
                self.site.invariants.broke(self, error)
                self.cut(f"cannot go on: {error}", RETRY_S)
            if self.session.ended:
                self.end("it said goodbye")

    def _greeted(self, message: SessionRequest) -> SessionRequest:
        """A life that came from a backup does not know how old it is: then it is for the agent to refuse."""
        if not self.site.deaf:
            self.obeys = message.hello.epoch
            return message
        heard = SessionRequest()
        heard.CopyFrom(message)
        heard.hello.epoch = 0
        return heard

    def handle(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Send(message):
                    self.site.invariants.said(self, message)
                    self.wire.send("down", message)
                case Keep():
                    self.keep(output)
                case Recall(digest):
                    body = self.site.store.inventory(digest)
                    if self.session:
                        self.handle(self.session.recalled(body, self.site.now()))

    def keep(self, output: Keep) -> None:
        facts = self.site.world.machines.get(self.who.machine_id)
        if facts is None or facts.forgotten_at is not None or facts.incarnation != self.who.incarnation:
            self.cut(OVER, RETRY_S)
            return
        facts = machine_after(facts, self.inventory, facts.revision) if self.inventory else facts
        for change in output.changes:
            self.inventory = change if isinstance(change, InventoryKept) else self.inventory
        flaps = self.site.flaps.moved(facts, output.moves, self.site.now())
        noted = [*self.site.damped(noteworthy(facts, output.changes)), *flaps]
        self.site.submit([*noted, *output.changes], self, lambda error: self._kept(error, output), self.life)

    def _kept(self, error: BedplateError | None, output: Keep) -> None:
        if isinstance(error, OverError):
            return
        if error:
            self.cut(str(error), RETRY_S)
        else:
            self.site.flaps.kept(self.who.machine_id, output.moves)
        if self.session is None or self.over:
            return
        self.handle(self.session.committed(output.sequence, self.site.now()))
        self._ack_later(self.session)

    def _ack_later(self, session: Session) -> None:
        in_s = session.owes_in_s(self.site.now())
        if in_s is not None and not self.acks_later:
            self.acks_later = True
            self.site.timeline.after(in_s, self._ack_soon)

    def _ack_soon(self) -> None:
        self.acks_later = False
        if self.session and not self.over:
            self.handle(self.session.tick(self.site.now()))
            self._ack_later(self.session)

    def cut(self, because: str, retry_after_s: float) -> None:
        if not self.over:
            dismissal = Dismissal(because=because, retry_after_s=retry_after_s)
            self.wire.send("down", SessionResponse(dismissal=dismissal))
            self.end(because)

    def end(self, because: str) -> None:
        """Over, however it came: what that means is submitted."""
        if self.over or not self.site.alive:
            return
        self.over = True
        self.wire.close("down", because)
        if self.site.conversations.get(self.who.machine_id) is self:
            del self.site.conversations[self.who.machine_id]
        outputs = self.session.lost(because, self.site.now()) if self.session else []
        facts = self.site.world.machines.get(self.who.machine_id)
        for output in outputs:
            if isinstance(output, Keep) and facts is not None and facts.forgotten_at is None:
                self.site.submit(output.changes, self)

    def orphan(self) -> None:
        """The process that held this end is gone: the host's kernel says so, or nobody does."""
        self.over = True
        timeline = self.site.timeline
        self.wire.snap(0.0, timeline.between(0.0, 1.0) if timeline.chance(0.8) else timeline.between(20.0, 40.0))
