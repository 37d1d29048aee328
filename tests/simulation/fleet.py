"""All of it: machines, the network between, the provisioner's lives, the person who looks after them."""

from collections.abc import Callable
from typing import Any

from bedplate.v1 import fleet_pb2 as pb
from provisioner.facts import FOR
from provisioner.service.writes import clash
from provisioner.world import REVOKED, Facts
from tests.simulation.box import Box
from tests.simulation.conversation import Conversation
from tests.simulation.desk import Desk
from tests.simulation.disk import Disk, Platter
from tests.simulation.door import Answer, Ask, Certificate, Door, entry
from tests.simulation.invariants import Invariants
from tests.simulation.machine import Machine
from tests.simulation.readers import Reader
from tests.simulation.sinks import Broker, Hook
from tests.simulation.site import Site
from tests.simulation.timeline import Timeline
from tests.simulation.wire import Wire

OUTWARD = 0.2  # of all fleets have sinks, and of all have tools that watch
SIZES = (3, 3, 4, 4, 5, 6, 8, 12, 20)


class Fleet:
    def __init__(self, seed: int) -> None:
        self.timeline = Timeline(seed)
        self.platter = Platter()
        self.invariants = Invariants(self.platter)
        self.machines: list[Machine] = []
        self.dark: set[Machine] = set()  # nothing comes to them or from them
        self.loss = 0.0  # share of unary calls, and of their answers, that come to nothing
        self.site: Site | None = None
        self.door: Door | None = None
        self.undead: list[Site] = []  # older lives that do not know that they are over
        self.sinks: list[Hook | Broker] = []
        self.readers: list[Reader] = []
        self.desk: Desk | None = None
        self.unanswered: dict[str, Any] = {}  # request id -> what a person asked for and heard nothing of
        self._tokens = self._writes = 0
        self._outside()
        self.begin()
        token = self.new_token(review=False)
        for number in range(self.timeline.random.choice(SIZES)):
            self.timeline.after(self.timeline.between(1.0, 30.0), self.add(f"box-{number}", token).start)

    def _outside(self) -> None:
        """Some fleets have events going out, some have tools that watch."""
        timeline, outward = self.timeline, self.invariants.outward
        if timeline.chance(OUTWARD):
            kinds = timeline.random.choice(((), ("machine.silent", "machine.present"), ("machine.problem.",)))
            self.sinks = [Hook(timeline, outward, kinds), Broker(timeline, outward)]
        if timeline.chance(OUTWARD):
            self.readers = [
                Reader(timeline, outward, self.target, "reader of events"),
                Reader(timeline, outward, self.target, "reader of machines", model={}),
            ]
        for reader in self.readers:
            timeline.after(timeline.between(0.0, 60.0), reader.start)

    # -- the provisioner -------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A life of the provisioner; the one before it may still be there."""
        if self.site and self.site.alive:
            self.undead.append(self.site)
        self.site = Site(self.timeline, Disk(self.platter, self.invariants.outward.noted), self.invariants)
        self.door = Door(self.site)
        self.desk = Desk(self.site, self._heard)
        if self.sinks:
            self.site.loop.create_task(self.site.deliver(self.sinks))

    def kill(self, *, committed: bool) -> None:
        if self.site:
            self.site.die(committed)
            self.site = self.door = self.desk = None

    def bury(self) -> None:
        for site in self.undead:
            site.die(committed=False)
        self.undead.clear()

    def end(self) -> None:
        for site in filter(None, (self.site, *self.undead)):
            site.loop.die()

    def new_token(
        self, *, review: bool = False, uses: int = 0, ttl_s: float = 86400.0, machine_id: str = ""
    ) -> tuple[str, bytes]:
        """For any newcomer, or as `machine rekey` makes it for one."""
        self._tokens += 1
        bound = f"{FOR}{machine_id}" if machine_id else ""
        token = (f"t-{self._tokens}{bound}", self.timeline.random.randbytes(32))
        if self.door:
            self.door.token(*token, review=review, uses=uses, ttl_s=ttl_s)
        return token

    def known(self) -> list[Facts]:
        return self.site.world.known if self.site else []

    # -- the machines ----------------------------------------------------------------------------------------------

    def add(self, name: str, token: tuple[str, bytes]) -> Machine:
        machine = Machine(self.timeline, Box(name, self.timeline.random), self, self.invariants, token)
        self.machines.append(machine)
        return machine

    def victim(self) -> Machine:
        machine = self.timeline.random.choice(self.machines)
        self.timeline.say("-- fault:", machine)
        return machine

    def cut(self, machine: Machine, up_after_s: float, down_after_s: float) -> None:
        if machine.wire:
            machine.wire.snap(up_after_s, down_after_s)

    # -- the network -----------------------------------------------------------------------------------------------

    def target(self) -> Site | None:
        """Now and then an older life answers still."""
        if self.undead and self.timeline.chance(0.4):
            return self.timeline.random.choice(self.undead)
        return self.site

    def dial(self, machine: Machine, who: Certificate) -> Wire | str:
        site = self.target()
        if machine in self.dark:
            return "cannot reach the provisioner: Connection timed out"
        if site is None:
            return "cannot reach the provisioner: Connection refused"
        wire = Wire(self.timeline, self.timeline.random.choice((0.001, 0.02, 0.2)))
        wire.dial(lambda: self._arrive(machine, who, wire, site))
        return wire

    def _arrive(self, machine: Machine, who: Certificate, wire: Wire, site: Site) -> None:
        if not site.alive or wire.broken:
            wire.snap(0.0, 0.1)
            return
        if denied := entry(site, who):
            if denied.forgotten and machine.wire is wire:
                machine.turned_away(denied.because)
            wire.close("down", denied.because)
            return
        Conversation(site, who.who, wire).open()

    def enrol(self, machine: Machine, ask: Ask) -> None:
        door = self.door
        if door and self._passes(machine):
            answer = self._back(machine, ask.answer)
            sent = Ask(ask.key, ask.evidence, ask.token_id, ask.secret, answer)
            self.timeline.after(self.timeline.between(0.01, 0.5), door.enrol, sent)

    def renew(self, machine: Machine, who: Certificate, key: bytes, answer: Callable[[Answer], None]) -> None:
        door = self.door
        if door and self._passes(machine):
            self.timeline.after(self.timeline.between(0.01, 0.5), door.renew, who, key, self._back(machine, answer))

    def _passes(self, machine: Machine) -> bool:
        return machine not in self.dark and not self.timeline.chance(self.loss)

    def _back(self, machine: Machine, answer: Callable[[Answer], None]) -> Callable[[Answer], None]:
        def told(what: Answer) -> None:
            if self._passes(machine):
                self.timeline.after(self.timeline.between(0.01, 0.5), answer, what)

        return told

    # -- the person ------------------------------------------------------------------------------------------------

    def ask(self, request: Any) -> None:
        """And again while nothing is heard of it, as the same request."""
        self._writes += 1
        request.request_id = f"r-{self._writes}"
        self.unanswered[request.request_id] = request
        self._insist(request)

    def _insist(self, request: Any) -> None:
        if request.request_id in self.unanswered:
            if self.desk:
                self.desk.ask(request)
            self.timeline.after(self.timeline.between(5.0, 40.0), self._insist, request)

    def _heard(self, request_id: str) -> None:
        """Or the answer is lost on its way, and the same one is asked for."""
        if not self.timeline.chance(self.loss):
            self.unanswered.pop(request_id, None)

    def tidy(self) -> None:
        """What an operator does who sees to it that each box that may be in is in."""
        if self.door is None or self.site is None:
            return
        for facts in self.known():
            if facts.revoked or self.gone(facts):
                self.ask(pb.ForgetMachineRequest(machine=facts.id))
            elif facts.accepted_at is None and not clash(facts, self.site.world):
                self.ask(pb.AcceptMachineRequest(machine=facts.id))
        for machine in self.machines:
            out = machine.refused and machine.identity and machine.identity.token_id == machine.token[0]
            over = machine.last.startswith(f"the join token {machine.token[0]} ")
            if out or over or machine.token[0] not in self.site.world.tokens:
                machine.token = self.new_token()

    def owner(self, facts: Facts) -> Machine:
        return self.invariants.owners[facts.key_sha256.removeprefix(REVOKED)]

    def gone(self, facts: Facts) -> bool:
        """Whether the box that was let in under this name is it no more: it has another name, or no key of it."""
        box = self.owner(facts)
        who = box.identity.certificate if box.identity else None
        named = who is not None and (who.machine_id, who.incarnation) == (facts.id, facts.incarnation)
        return not named and facts.key_sha256 not in box.waiting()
