"""One machine: its box, its clock, what its agent keeps on its disk, and the agent's process while it runs.

It stands in for `agent`, `uplink` and the door to the identity; `session` and `credentials` decide.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from nodeagent import credentials
from nodeagent.asking import FOR
from nodeagent.credentials import Have, Want
from nodeagent.decision import Todo
from nodeagent.keys import MADE
from nodeagent.session import PeerError, Session, State
from nodeagent.steps.renew import Renew
from tests.simulation.box import Box
from tests.simulation.door import Answer, Ask, Certificate, Waits
from tests.simulation.identity import Identity
from tests.simulation.invariants import Invariants
from tests.simulation.timeline import Timeline
from tests.simulation.wire import End, Wire

LOOK_S = 25.0  # between two looks, about
AGAIN_S = 15.0


class Network(Protocol):
    """The way to whichever provisioner answers. Nothing may come of a call: then its caller waits in vain."""

    def dial(self, machine: "Machine", who: Certificate) -> Wire | str: ...
    def enrol(self, machine: "Machine", ask: Ask) -> None: ...
    def renew(self, machine: "Machine", who: Certificate, key: bytes, answer: Callable[[Answer], None]) -> None: ...


@dataclass(eq=False, slots=True)
class Machine:
    timeline: Timeline
    box: Box
    network: Network
    invariants: Invariants
    token: tuple[str, bytes]
    skew_s: float = 0.0
    identity: Identity | None = None
    next_key: bytes = b""
    join_keys: dict[str, bytes] = field(default_factory=dict)  # made to come in by a token, by the token's id
    keys: set[bytes] = field(default_factory=set)  # all that this box ever made: for the invariants
    process: int = 0  # which run of the agent this is; 0 while none is
    runs: int = 0
    session: Session | None = None
    wire: Wire | None = None
    shown: Certificate | None = None  # on that wire: it may have a younger one by now
    settled: bool = False  # its dials move no more
    refused: str = ""
    last: str = ""
    again_at: float = 0.0
    asking: bool = False
    dialling: bool = False

    def __str__(self) -> str:
        return self.box.name

    def start(self) -> None:
        """Where it does not run already."""
        if self.session is not None:
            return
        self.runs += 1
        self.invariants.manners.starts(self)
        self.process = self.runs
        self.session = Session(self.timeline.random.randbytes(16), "1.0", self.timeline.random)
        self.refused, self.last, self.again_at, self.asking, self.dialling = "", "", 0.0, False, False
        self.timeline.say(self, "starts")
        self._look(self.process)

    def stop(self, *, politely: bool) -> None:
        """Or kill -9, or the power."""
        if self.session is None:
            return
        self.timeline.say(self, "stops" if politely else "is killed")
        if self.wire and politely:
            self._send(self.session.goodbye("the agent is stopping", self.timeline.now))
            self.wire.close("up", "it said goodbye")
        elif self.wire:
            self.wire.snap(self.timeline.between(0.0, 1.0), 0.0)
        self.process, self.session, self.wire = 0, None, None

    def wipe(self) -> None:
        """A new image: what the agent kept is gone."""
        self.identity, self.next_key, self.join_keys = None, b"", {}

    @property
    def clock(self) -> float:
        return self.timeline.now + self.skew_s

    # -- the tick --------------------------------------------------------------------------------------------------

    def _look(self, process: int) -> None:
        if process != self.process or self.session is None:
            return
        if not self.settled:
            self.box.live()
        self.glance()
        decision = credentials.plan(self._have(), Want())
        if isinstance(decision, Todo) and not self.asking:
            self.timeline.say(self, decision.because)
            self._renew() if isinstance(decision.steps[0], Renew) else self._enrol()
        self._dial_later()
        self.timeline.after(LOOK_S * self.timeline.between(0.2, 1.8), self._look, process)

    def glance(self) -> None:
        """A look at the box as it is; the agent's next one comes at its time."""
        if self.session:
            snapshot = self.box.snapshot(self.clock)
            self._send(self.session.observe(snapshot, self.box.body, self.box.digest, self._now))
            self.invariants.manners.looked(self)

    @property
    def _now(self) -> float:
        """The monotonic clock: not the one on the wall."""
        return self.timeline.now

    def _have(self) -> Have:
        wait_s = self.again_at - self._now
        return Have(self.identity, self.clock, self.token[0], refused=self.refused, again_in_s=wait_s, last=self.last)

    # -- the certificate -------------------------------------------------------------------------------------------

    def waiting(self) -> list[bytes]:
        """Keys that may have a certificate already, only not here yet."""
        return [key for key in (self.next_key, *self.join_keys.values()) if key]

    def _made(self) -> bytes:
        key = self.timeline.random.randbytes(32)
        self.keys.add(key)
        self.invariants.made(self, key)
        return key

    def _enrol(self) -> None:
        """Keys that may be known already are shown without the token first."""
        shown = [(self.identity.certificate.key, False)] if self.identity else []
        shown += [(key, False) for key in self.waiting()]
        if self.token[0] not in self.join_keys:
            self.join_keys[self.token[0]] = self._made()
            self.join_keys = dict(list(self.join_keys.items())[-MADE:])
        self._show([*shown, (self.join_keys[self.token[0]], True)])

    def _show(self, shown: list[tuple[bytes, bool]], *, waits: Waits | None = None) -> None:
        (key, with_token), *rest = shown
        token_id, secret = self.token if with_token else ("", b"")
        evidence = self.box.evidence.SerializeToString(deterministic=True)

        def answered(answer: Answer) -> None:
            late = answer if isinstance(answer, Waits) else waits
            if isinstance(answer, Certificate) or not rest:
                self._answered(answer)
            elif late and rest[0][1] and FOR not in self.token[0]:  # what is left is the token
                self._answered(late)
            else:
                self._show(rest, waits=late)

        answer = self._once(answered)
        self.network.enrol(self, Ask(key, evidence, token_id, secret, answer))

    def ask_younger(self) -> None:
        """Before it is time, where nothing is asked already."""
        if self.session and not self.asking:
            self._renew()

    def _renew(self) -> None:
        if self.identity:
            self.next_key = self.next_key or self._made()
            self.network.renew(self, self.identity.certificate, self.next_key, self._once(self._answered))

    def _once(self, told: Callable[[Answer], None]) -> Callable[[Answer], None]:
        """The answer to one question, if it comes in time and the process still runs."""
        process, waits = self.process, [True]
        self.asking = True

        def answered(answer: Answer) -> None:
            if process == self.process and waits.pop() if waits else False:
                self.asking = False
                told(answer)

        def late() -> None:
            if process == self.process and waits:
                waits.clear()
                self.asking, self.last, self.again_at = False, "no answer", self._now + AGAIN_S

        self.timeline.after(10.0, late)
        return answered

    def _answered(self, answer: Answer) -> None:
        if isinstance(answer, Certificate):
            waited = answer.key in self.waiting()
            if not waited and not (self.identity and answer.key == self.identity.certificate.key):
                return
            self.join_keys = {}
            self.next_key = b"" if waited else self.next_key
            self.timeline.say(self, "is", answer.machine_id, "incarnation", answer.incarnation)
            self.identity = Identity(answer, self.clock, self.token[0])
            self.refused, self.last, self.again_at = "", "", 0.0
            self.invariants.manners.starts(self)
            if self.session:
                self.session.dial_at = 0.0
            self._dial_later()
            return
        self.timeline.say(self, answer.because)
        self.last, self.again_at = answer.because, self._now + AGAIN_S
        if not isinstance(answer, Waits) and answer.forgotten:
            self.refused = answer.because

    # -- the stream ------------------------------------------------------------------------------------------------

    def _dial_later(self) -> None:
        session = self.session
        if session and session.state is State.CLOSED and self.identity and not self.dialling:
            self.dialling = True
            self.timeline.after(max(0.0, session.dial_at - self._now), self._dial, self.process)

    def _dial(self, process: int) -> None:
        session = self.session
        if process != self.process or session is None:
            return
        self.dialling = False
        if session.state is not State.CLOSED or self.identity is None or self.wire:
            return
        wire = self.network.dial(self, self.identity.certificate)
        if isinstance(wire, str):
            self.timeline.say(self, wire)
            session.lost(wire, self._now)
            self.invariants.manners.lost(self, self._now)
            self._dial_later()
            return
        self.wire, self.shown = wire, self.identity.certificate
        self.invariants.manners.dials(self, self._now)
        wire.attach("down", End(lambda message: self._heard(wire, message), lambda why: self._lost(wire, why)))
        sent_at = Timestamp()
        sent_at.FromNanoseconds(int(self.clock * 1e9))
        self._send(session.connected(self._now, sent_at))
        self.timeline.after(30.0, self._unwelcome, wire)

    def turned_away(self, because: str) -> None:
        """The guard's PERMISSION_DENIED."""
        self.refused = because

    def _unwelcome(self, wire: Wire) -> None:
        if wire is self.wire and self.session and self.session.state is State.GREETING:
            wire.snap(0.0, 0.0)

    def _heard(self, wire: Wire, message: Any) -> None:
        session = self.session
        if wire is not self.wire or session is None or session.state is State.CLOSED:
            return
        epoch = session.epoch
        try:
            messages = session.receive(message, self._now)
        except PeerError as error:
            self.timeline.say(self, "is told nonsense:", error)
            self.invariants.nonsense(self, message, error)
            session.lost(f"cannot go on: {error}", self._now)
            wire.snap(0.1, 0.0)
            return
        self.invariants.heard(self, message, epoch)
        self.invariants.manners.hears(self, message, self._now)
        if message.HasField("welcome"):
            self.timeline.say(self, "is welcome; stored is", message.welcome.stored_sequence)
            self.refused = ""
        self._send(messages)

    def _send(self, messages: list[Any]) -> None:
        for message in messages:
            self.invariants.manners.says(self, message)
            if message.HasField("delta"):
                self.invariants.sent(self, message.delta)
                self.timeline.say(self, "delta", message.delta.sequence, "whole" * message.delta.whole)
            else:
                self.timeline.say(self, message.WhichOneof("message"))
            if self.wire:
                self.wire.send("up", message)

    def _lost(self, wire: Wire, why: str) -> None:
        session = self.session
        if wire is not self.wire or session is None:
            return
        self.wire = None
        wire.close("up", "it hung up")
        if session.state is not State.CLOSED:
            session.lost(why, self._now)
            self.invariants.manners.lost(self, self._now)
        self.timeline.say(self, "lost its stream:", session.because)
        self._dial_later()
