"""What is kept of a machine's vitals and problems while its stream is open, and what a delta is worth to the store.

Rule 1: no I/O and no clock.
Rule 2: a small delta is kept as it came, beside the vitals that it moves. These are kept whole at the first delta of a
        stream, where problems came or went or an entry is no more, and before what lies beside them is twice as large.
        Before they are many, the deltas are gathered: one that says what they all say takes the place of the first.
Rule 3: all is held as bytes, and packed: it would be most of what the provisioner has in memory otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bedplate.v1.snapshot_pb2 import Vitals
from bedplate.v1.uplink_pb2 import Delta, Problems, SessionRequest
from provisioner.errors import PeerError
from provisioner.flaps import Move, moves
from provisioner.packing import Packer
from provisioner.vitals import apply, entries, known
from provisioner.world import VitalsKept, VitalsMoved

MOST_ENTRIES = 4096  # of vitals: far more than any machine has parts
MOST_BYTES = 256 << 10  # of vitals, and of problems: twenty times what a machine with 16 GPUs has
DELTA = SessionRequest.DELTA_FIELD_NUMBER << 3 | 2  # its tag: a length follows
MORE = 0x80  # set in each byte of a varint but the last
PACKER = Packer()  # streams are of one thread
NOTHING = PACKER.pack(b"")
MOST_MOVES = 12  # deltas beside the vitals that they move
MOST_SIZE = 2  # how many times as large as the vitals they may be


@dataclass(slots=True)
class Dials:
    """Of one stream. `told`: the problems as of the last delta, of this run of the agent or of one before."""

    machine_id: str
    run_id: bytes
    told: bytes = b""
    size: int = 0  # of the vitals as they were last kept whole
    beside: int = 0  # deltas since
    beside_size: int = 0
    _packed: bytes = NOTHING  # bedplate.v1.Vitals
    _since: bytes = b""  # bedplate.v1.Vitals: what the deltas beside say, but for the latest
    _latest: list[bytes] = field(default_factory=list)  # bedplate.v1.Delta, each
    _host: bytes = b""  # the last of all these deltas that tells of the host
    _problems: bytes = b""  # bedplate.v1.Problems
    _begun: bool = False

    def resume(self, vitals: bytes, problems: bytes) -> None:
        """From where an older stream of the same run has left off."""
        self.size, self._packed, self._problems = len(vitals), PACKER.pack(vitals), problems

    def take(self, delta: Delta, octets: bytes, now: float) -> tuple[VitalsKept | VitalsMoved, tuple[Move, ...]]:
        """What is to be stored of the delta, which are these octets too, and the problems that came or went.

        PeerError where there is too much.
        """
        if self._begun and self._fits(delta, len(octets)):
            return self._moved(delta, octets, now), ()
        self._begun = True
        return self._whole(delta, now)

    def _fits(self, delta: Delta, size: int) -> bool:
        if self.beside_size + size > self.size * MOST_SIZE:
            return False
        return not (delta.whole or delta.gone or delta.HasField("problems"))

    def _moved(self, delta: Delta, octets: bytes, now: float) -> VitalsMoved:
        if delta.vitals.HasField("host"):
            self._host = octets
        self._latest.append(octets)
        if self.beside == MOST_MOVES:
            octets = self._gathered(delta.sequence)
        place = self.beside
        self.beside, self.beside_size = place + 1, self.beside_size + len(octets)
        return VitalsMoved(self.machine_id, self.run_id, delta.sequence, place, octets, now)

    def _gathered(self, sequence: int) -> bytes:
        """All deltas beside the vitals as one, in the first place. Those that still lie behind it are older: whoever
        folds them, in their order, has this one after them.
        """
        vitals = self._last_words(b"")
        self._since, self.beside, self.beside_size = vitals.SerializeToString(), 0, 0
        self._latest.clear()
        return Delta(sequence=sequence, vitals=vitals).SerializeToString(deterministic=True)

    def _whole(self, delta: Delta, now: float) -> tuple[VitalsKept, tuple[Move, ...]]:
        vitals = self._after(delta)
        if entries(vitals) > MOST_ENTRIES:
            raise PeerError(f"more than {MOST_ENTRIES} entries of vitals", "SIZE")
        problems = delta.problems if delta.HasField("problems") else Problems.FromString(self._problems)
        moved = moves(Problems.FromString(self.told).problems, problems.problems)
        body, self.told = _bounded(vitals, "vitals"), _bounded(problems, "problems")
        self.beside, self.beside_size, self._since, self._host = 0, 0, b"", b""
        self._latest.clear()
        self.resume(body, self.told)
        count = len(problems.problems)
        change = VitalsKept(self.machine_id, self.run_id, delta.sequence, body, self.told, count, now)
        return change, moved

    def _after(self, delta: Delta) -> Vitals:
        if delta.whole and not delta.gone:
            return known(delta.vitals)  # nothing is copied
        vitals = Vitals() if delta.whole else self._stand()
        apply(vitals, delta)
        return vitals

    def _stand(self) -> Vitals:
        """The vitals by now."""
        return self._last_words(PACKER.unpack(self._packed))

    def _last_words(self, before: bytes) -> Vitals:
        """After these. Of each entry the last word stands, and of the host, which is no entry, likewise."""
        vitals = Vitals.FromString(before + self._since)
        vitals.MergeFrom(_told(self._latest))
        if self._host:
            vitals.ClearField("host")
            vitals.host.MergeFrom(Delta.FromString(self._host).vitals.host)
        return vitals


def _told(deltas: Sequence[bytes]) -> Vitals:
    """What they say, none of them of anything that is gone. Protocol Buffers, Encoding: messages one after the other
    are the message that they merge to, and of the entries of a map under one key the last is the one that counts.
    """
    return known(Delta.FromString(b"".join(deltas)).vitals)


def alone(octets: bytes) -> bytes:
    """The Delta in a SessionRequest, as it came; empty where that has something else too, or is 16 kB or more.

    Protocol Buffers, Encoding: a field is its tag, here of one byte, its length as a varint, and so many bytes.
    """
    size = len(octets)
    if size < 3 or octets[0] != DELTA:  # noqa: PLR2004 - a tag, a length, and something
        return b""
    first, second = octets[1], octets[2]
    if first == size - 2 and first < MORE:
        return octets[2:]
    return octets[3:] if second < MORE <= first and (first & ~MORE | second << 7) == size - 3 else b""


def _bounded(message: Vitals | Problems, what: str) -> bytes:
    body = message.SerializeToString(deterministic=True)
    if len(body) > MOST_BYTES:
        raise PeerError(f"{len(body)} bytes of {what}, and {MOST_BYTES} are the most", "SIZE")
    return body
