"""The provisioner's end of the conversation with one agent: messages, time and commits in; messages and facts out.

Rule 1: no I/O and no clock. `now` is handed in, seconds since 1970; what is to be sent, stored or looked up comes out.
Rule 2: nothing is acknowledged before it is stored. Acknowledgements are cumulative, and lazy.
Rule 3: an inventory is asked for only where this machine never had one of that digest.
Rule 4: the peer is not trusted: whatever breaks the rules of the conversation ends it, and says which rule.
"""

import hashlib
from dataclasses import dataclass, field, replace

from google.protobuf.message import DecodeError

from bedplate.v1.snapshot_pb2 import Inventory
from bedplate.v1.uplink_pb2 import (
    Ack,
    Delta,
    Hello,
    InventoryBody,
    RenewSoon,
    SessionRequest,
    SessionResponse,
    WantInventory,
    Welcome,
)
from provisioner.dials import Dials, alone
from provisioner.errors import PeerError
from provisioner.flaps import Move
from provisioner.world import Change, InventoryKept, Met, Parted

INTERVAL_S = 300.0
ACK_AFTER_S = 20.0
SOON_S = 1.0  # the first acknowledgement of a stream: that what was left over from an older one is stored
WINDOW = 16  # deltas that an agent sends without an answer where it does not say how many
MOST_WINDOW = 1024
MOST_SEQUENCE = 1 << 62  # the store's integers have 63 bits
MOST_INVENTORY = 1 << 20  # bytes: twenty times the largest that is known
MOST_WORTHLESS = 1000  # messages that say nothing new, on one stream: some are repeated, a thousand are a flood


@dataclass(frozen=True, slots=True)
class Known:
    """What is stored of the machine as its stream begins."""

    machine_id: str
    run_id: bytes
    sequence: int
    vitals: bytes  # bedplate.v1.Vitals
    problems: bytes  # bedplate.v1.Problems
    digest: bytes  # of its current inventory
    digests: frozenset[bytes]  # of all its inventories that are kept


@dataclass(frozen=True, slots=True)
class Send:
    message: SessionResponse


@dataclass(frozen=True, slots=True)
class Keep:
    """Facts to be stored together. Once they are, call `committed(sequence)`."""

    changes: tuple[Change, ...]
    sequence: int
    moves: tuple[Move, ...] = ()  # of its problems, against what is stored


@dataclass(frozen=True, slots=True)
class Recall:
    """The machine has again the inventory of this digest, which is stored: look it up and call `recalled`."""

    digest: bytes


Output = Send | Keep | Recall


@dataclass(slots=True)
class Session:
    """One for each stream."""

    known: Known
    name: str
    epoch: int
    peer: str
    interval_s: float = INTERVAL_S
    issuer: bytes = b""  # of the certificate that it came with
    renew_within_s: float | None = None  # where it is to have a younger one
    heard_at: float = 0.0
    _open: bool = False
    _dials: Dials = field(default_factory=lambda: Dials("", b""))
    _sequence: int = 0  # received
    _stored: int = 0
    _ack_after_s: float = SOON_S
    _ack_after: int = 1
    _acknowledged: int = 0
    _acknowledged_at: float = 0.0
    _first: bool = True  # the first delta of the stream may leap over what was lost
    _digest: bytes = b""
    _wanted: bytes = b""  # the inventory that was asked for and has not come
    _came: set[bytes] = field(default_factory=set)  # inventories that came on this stream
    _ended: bool = False
    _worthless: int = 0

    def receive(self, message: SessionRequest, now: float, octets: bytes = b"") -> list[Output]:
        """A message came, as these octets where they are at hand. PeerError where it breaks the rules."""
        self.heard_at = now
        kind = message.WhichOneof("message")
        if (kind == "hello") == self._open:
            raise PeerError(f"{kind or 'an empty message'} {'after' if self._open else 'before'} the hello", "HELLO")
        match kind:
            case "hello":
                return self._hello(message.hello, now)
            case "delta":
                return self._delta(message.delta, octets, now)
            case "inventory":
                return self._inventory(message.inventory, now)
            case "goodbye":
                return self.lost(message.goodbye.because[:300] or "it said goodbye", now)
            case None:
                return self._nothing()  # a message of a younger protocol

    def committed(self, sequence: int, now: float) -> list[Send]:
        """Everything up to this sequence is safe in the store."""
        self._stored = max(self._stored, sequence)
        return self.tick(now) if self._stored - self._acknowledged < self._ack_after else self._ack(now)

    def recalled(self, body: bytes | None, now: float) -> list[Output]:
        """The answer to `Recall`: the inventory's bytes, or None where they are not kept any more."""
        if body is None:
            return self._want(self._digest)
        return [Keep((kept(self.known.machine_id, self._digest, body, now, again=True),), self._stored)]

    def tick(self, now: float) -> list[Send]:
        """Time went on."""
        due = self._stored > self._acknowledged and now >= self._acknowledged_at + self._ack_after_s
        return self._ack(now) if due else []

    def lost(self, because: str, now: float) -> list[Output]:
        """The stream ended, however it did."""
        if not self._open or self._ended:
            return []
        self._ended = True
        return [Keep((Parted(self.known.machine_id, self.name, because, now),), self._stored)]

    def owes_in_s(self, now: float) -> float | None:
        """In how many seconds a `tick` will acknowledge what is stored and not acknowledged yet; None where all is."""
        if self._stored <= self._acknowledged:
            return None
        return min(max(self._acknowledged_at + self._ack_after_s - now, 0.0), self._ack_after_s)  # clocks are set back

    @property
    def ended(self) -> bool:
        """Whether the agent said goodbye, or the stream was lost: nothing is received any more."""
        return self._ended

    # -- inside ----------------------------------------------------------------------------------------------------

    def _ack(self, now: float) -> list[Send]:
        self._acknowledged, self._acknowledged_at, self._ack_after_s = self._stored, now, ACK_AFTER_S
        return [Send(SessionResponse(ack=Ack(sequence=self._stored)))]

    def _nothing(self) -> list[Output]:
        """To be done for this message. PeerError where there are too many such."""
        if self._worthless == MOST_WORTHLESS:
            raise PeerError(f"more than {MOST_WORTHLESS} messages that say nothing new", "WORTHLESS")
        self._worthless += 1
        return []

    def _hello(self, hello: Hello, now: float) -> list[Output]:
        if hello.epoch > self.epoch:
            raise PeerError(
                f"this machine obeys epoch {hello.epoch}, and this provisioner is of epoch {self.epoch}", "EPOCH"
            )
        if not 8 <= len(hello.run_id) <= 64:  # noqa: PLR2004 - bounds of a random name
            raise PeerError(f"a run id of {len(hello.run_id)} bytes")
        self._open, self._acknowledged_at = True, now
        self._ack_after = acknowledged_after(min(hello.window or WINDOW, MOST_WINDOW))
        self._dials = Dials(self.known.machine_id, hello.run_id, told=self.known.problems)
        if hello.run_id == self.known.run_id:
            self._dials.resume(self.known.vitals, self.known.problems)
            self._sequence = self._stored = self._acknowledged = self.known.sequence
        self.known = replace(self.known, vitals=b"", problems=b"")  # large, and of no use any more
        welcome = Welcome(epoch=self.epoch, stored_sequence=self._stored, vitals_interval_s=self.interval_s)
        met = Met(
            machine_id=self.known.machine_id,
            session=self.name,
            epoch=self.epoch,
            run_id=hello.run_id,
            agent_version=hello.agent_version[:64],
            boot_id=hello.boot_id[:64],
            peer=self.peer,
            clock_skew_s=round(hello.sent_at.seconds + hello.sent_at.nanos / 1e9 - now, 1)
            if hello.HasField("sent_at")
            else 0.0,
            at=now,
            issuer=self.issuer,
        )
        self._digest = self.known.digest
        named = self._named(hello.inventory_digest) if hello.inventory_digest else []
        soon = [] if self.renew_within_s is None else [Send(renew_soon(self.renew_within_s))]
        return [Send(SessionResponse(welcome=welcome)), Keep((met,), self._stored), *named, *soon]

    def _named(self, digest: bytes) -> list[Output]:
        """The machine's inventory is the one of this digest."""
        if len(digest) != hashlib.sha256().digest_size:
            raise PeerError(f"an inventory digest of {len(digest)} bytes")
        if digest == self._digest:
            return []
        self._digest, self._wanted = digest, b""
        if digest in self.known.digests or digest in self._came:
            return [Recall(digest)]
        return self._want(digest)

    def _want(self, digest: bytes) -> list[Output]:
        self._wanted = digest
        return [Send(SessionResponse(want_inventory=WantInventory(digest=digest)))]

    def _inventory(self, body: InventoryBody, now: float) -> list[Output]:
        if not body.digest or body.digest != self._wanted:
            return self._nothing()  # it changed since we asked, and we asked for that one too
        if len(body.inventory) > MOST_INVENTORY:
            raise PeerError(f"an inventory of {len(body.inventory)} bytes, and {MOST_INVENTORY} are the most", "SIZE")
        if hashlib.sha256(body.inventory).digest() != body.digest:
            raise PeerError("an inventory that is not the one of its digest", "INVENTORY")
        self._wanted = b""
        self._came.add(body.digest)
        return [Keep((kept(self.known.machine_id, body.digest, body.inventory, now),), self._stored)]

    def _delta(self, delta: Delta, octets: bytes, now: float) -> list[Output]:
        sequence = delta.sequence
        if sequence <= self._sequence:
            return self._nothing()  # a repeated one changes nothing
        if sequence != self._sequence + 1 and not self._first:
            raise PeerError(f"delta {sequence} after {self._sequence}", "ORDER")
        if sequence >= MOST_SEQUENCE:
            raise PeerError(f"delta {sequence}: nobody has sent that many", "ORDER")
        if not self._sequence and not delta.whole:
            raise PeerError("a delta to vitals that are not here", "ORDER")
        self._first, self._sequence = False, sequence
        change, moved = self._dials.take(delta, alone(octets) or delta.SerializeToString(), now)
        named = self._named(delta.inventory_digest) if delta.HasField("inventory_digest") else []
        return [Keep((change,), sequence, moved), *named]


def acknowledged_after(window: int) -> int:
    """How many deltas are acknowledged at once: before their agent has to wait."""
    return max(1, window * 3 // 4)


def renew_soon(within_s: float) -> SessionResponse:
    return SessionResponse(renew_soon=RenewSoon(within_s=within_s))


def kept(machine_id: str, digest: bytes, body: bytes, now: float, *, again: bool = False) -> InventoryKept:
    """The fact that a machine has this inventory, with the columns that lists and filters need."""
    try:
        inventory = Inventory.FromString(body)
    except DecodeError as error:
        raise PeerError(f"an inventory that cannot be decoded: {error}", "INVENTORY") from error
    return InventoryKept(
        machine_id=machine_id,
        digest=digest,
        body=None if again else body,
        hostname=inventory.identity.hostname[:255],
        product=inventory.identity.product[:255],
        serial=inventory.identity.product_serial[:255],
        gpu_count=len(inventory.gpus),
        gpu_model=inventory.gpus[0].name[:255] if inventory.gpus else "",
        rdma_count=len(inventory.rdma_devices),
        os=inventory.os.name[:255],
        kernel=inventory.os.kernel[:255],
        at=now,
    )
