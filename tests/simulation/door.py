"""Who comes in: stands in for `enrolment`.

Rule: requests that wait are decided together, each in the world that those before it make, and answered once that is
durable. Who a newcomer is, `admission` says, and what comes of it, `arrival`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from provisioner import tokens
from provisioner.access import standing
from provisioner.admission import Newcomer, admit, known
from provisioner.arrival import arrival
from provisioner.facts import machine_of
from provisioner.pki import MachineIdentity
from provisioner.store import StoreError
from provisioner.world import Certified, Change, Facts, TokenMade, TokenRevoked, World
from tests.simulation.site import Site

LIFE_S = 900.0  # of a certificate
NOT_BEFORE_S = 60.0
ASK_AGAIN_S = 15.0


@dataclass(frozen=True, slots=True)
class Certificate:
    machine_id: str
    incarnation: int
    key: bytes
    not_before: float
    not_after: float

    @property
    def who(self) -> MachineIdentity:
        return MachineIdentity(self.machine_id, self.incarnation)


@dataclass(frozen=True, slots=True)
class Waits:
    because: str
    machine_id: str


@dataclass(frozen=True, slots=True)
class Denied:
    because: str
    forgotten: bool  # the status says that this machine's certificate is worth nothing


Answer = Certificate | Waits | Denied


@dataclass(frozen=True, slots=True)
class Ask:
    key: bytes
    evidence: bytes
    token_id: str
    secret: bytes
    answer: Callable[[Answer], None]


class Door:
    def __init__(self, site: Site) -> None:
        self.site = site
        self._asks: list[Ask] = []
        self._busy = False

    def enrol(self, ask: Ask) -> None:
        if self.site.alive:
            self._asks.append(ask)
            self._round()

    def renew(self, who: Certificate, key: bytes, answer: Callable[[Answer], None]) -> None:
        if not self.site.alive:
            return
        if refused := entry(self.site, who):
            answer(refused)
            return
        holder = known(key, self.site.world)
        if holder is not None and holder.id != who.machine_id:
            answer(Denied("the key is another machine's", forgotten=False))
            return
        change, younger = self._issued(who.machine_id, who.incarnation, key)
        self.site.submit([change], ("renewal", who), lambda error: answer(_unless(error, younger)))

    def token(self, token_id: str, secret: bytes, *, review: bool, uses: int = 0, ttl_s: float = 86400.0) -> None:
        now, minted = self.site.now(), tokens.Minted(token_id, secret)
        made = TokenMade(token_id, minted.secret_sha256, now, now + ttl_s, uses, review, "ann")
        self.site.submit([made], "door")

    def end_token(self, token_id: str) -> None:
        if token_id in self.site.world.tokens:
            self.site.submit([TokenRevoked(token_id, self.site.now())], "door")

    # -- inside ----------------------------------------------------------------------------------------------------

    def _round(self) -> None:
        if self._busy or not self._asks:
            return
        self._busy, asks, self._asks = True, self._asks, []
        world, changes, answers = self.site.world, list[Change](), list[Answer]()
        for ask in asks:
            more, answer = self._decide(ask, world)
            world = world.after((world.revision, change) for change in more)
            changes += more
            answers.append(answer)

        def done(error: StoreError | None) -> None:
            self._busy = False
            for ask, answer in zip(asks, answers, strict=True):
                ask.answer(_unless(error, answer))
            self._round()

        self.site.submit(changes, "door", done)

    def _decide(self, ask: Ask, world: World) -> tuple[list[Change], Answer]:
        if facts := known(ask.key, world):
            return self._answered(facts, ask.key)
        token = world.tokens.get(ask.token_id)
        flaw = tokens.flaw(token, ask.secret, ask.key, self.site.now())
        if flaw or token is None:
            return [], Denied(flaw.line if flaw else "no token", forgotten=False)
        fresh = f"m-{self.site.timeline.random.getrandbits(24):06x}"
        newcomer = Newcomer(ask.key, ask.evidence, token.id, token.review, machine_of(token.id))
        verdict = admit(newcomer, world, fresh)
        changes = arrival(newcomer, verdict, world, self.site.now(), self.site.settings.silent_after_s)
        after = world.after((world.revision, change) for change in changes)
        more, answer = self._answered(after.machines[verdict.machine_id], ask.key)
        return [*changes, *more], answer

    def _answered(self, facts: Facts, key: bytes) -> tuple[list[Change], Answer]:
        if facts.accepted_at is None:
            return [], Waits(f"waits for a person: {facts.waits_because}", facts.id)
        change, certificate = self._issued(facts.id, facts.incarnation, key)
        return [change], certificate

    def _issued(self, machine_id: str, incarnation: int, key: bytes) -> tuple[Certified, Certificate]:
        now = self.site.now()
        certificate = Certificate(machine_id, incarnation, key, now - NOT_BEFORE_S, now + LIFE_S)
        return Certified(machine_id, key, f"{now}", certificate.not_after, now, incarnation), certificate


def entry(site: Site, who: Certificate) -> Denied | None:
    """What mTLS and the guard say to whoever shows this certificate; None where it is good."""
    if not who.not_before <= site.now() < who.not_after:
        return Denied("certificate has expired", forgotten=False)
    refused = standing(who.who, site.world)
    return Denied(refused.line, forgotten=True) if refused else None


def _unless(error: StoreError | None, answer: Answer) -> Answer:
    return Denied(str(error), forgotten=False) if error and not isinstance(answer, Denied) else answer
