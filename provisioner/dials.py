"""What is kept of a machine's vitals and problems while its stream is open, and what a delta is worth to the store.

Rule 1: no I/O and no clock.
Rule 2: a small delta is kept as it came, beside the vitals that it moves. These are kept whole at the first delta of a
        stream, where problems came or went, and before what lies beside them is larger than they are.
Rule 3: all is held as bytes, and packed: it would be most of what the provisioner has in memory otherwise.
"""

from dataclasses import dataclass, field
from zlib import compress, decompress

from bedplate.v1.snapshot_pb2 import Vitals
from bedplate.v1.uplink_pb2 import Delta, Problems
from provisioner.errors import PeerError
from provisioner.flaps import Move, moves
from provisioner.vitals import entries, folded, known
from provisioner.world import VitalsKept, VitalsMoved

MOST_ENTRIES = 4096  # of vitals: far more than any machine has parts
MOST_BYTES = 256 << 10  # of vitals, and of problems: twenty times what a machine with 16 GPUs has
NOTHING, QUICK = compress(b""), 1
MOST_MOVES = 24  # deltas beside the vitals that they move


@dataclass(slots=True)
class Dials:
    """Of one stream. `told`: the problems as of the last delta, of this run of the agent or of one before."""

    machine_id: str
    run_id: bytes
    told: bytes = b""
    size: int = 0  # of the vitals as they were last kept whole
    beside: list[bytes] = field(default_factory=list)  # bedplate.v1.Delta, each
    _packed: bytes = NOTHING  # bedplate.v1.Vitals
    _problems: bytes = b""  # bedplate.v1.Problems
    _begun: bool = False

    def resume(self, vitals: bytes, problems: bytes) -> None:
        """From where an older stream of the same run has left off."""
        self.size, self._packed, self._problems = len(vitals), compress(vitals, QUICK), problems

    def take(self, delta: Delta, now: float) -> tuple[VitalsKept | VitalsMoved, tuple[Move, ...]]:
        """What is to be stored, and the problems that came or went. PeerError where there is too much."""
        if self._begun and self._fits(delta):
            place, body = len(self.beside), delta.SerializeToString()
            self.beside.append(body)
            return VitalsMoved(self.machine_id, self.run_id, delta.sequence, place, body, now), ()
        self._begun = True
        return self._whole(delta, now)

    def _fits(self, delta: Delta) -> bool:
        if delta.whole or delta.HasField("problems") or len(self.beside) >= MOST_MOVES:
            return False
        return delta.ByteSize() + sum(map(len, self.beside)) <= self.size

    def _whole(self, delta: Delta, now: float) -> tuple[VitalsKept, tuple[Move, ...]]:
        vitals = self._folded(delta)
        if entries(vitals) > MOST_ENTRIES:
            raise PeerError(f"more than {MOST_ENTRIES} entries of vitals", "SIZE")
        problems = delta.problems if delta.HasField("problems") else Problems.FromString(self._problems)
        moved = moves(Problems.FromString(self.told).problems, problems.problems)
        body, self.beside, self.told = _bounded(vitals, "vitals"), [], _bounded(problems, "problems")
        self.resume(body, self.told)
        count = len(problems.problems)
        change = VitalsKept(self.machine_id, self.run_id, delta.sequence, body, self.told, count, now)
        return change, moved

    def _folded(self, delta: Delta) -> Vitals:
        if delta.whole and not delta.gone:
            return known(delta.vitals)
        return folded(decompress(self._packed), [*(Delta.FromString(body) for body in self.beside), delta])


def _bounded(message: Vitals | Problems, what: str) -> bytes:
    body = message.SerializeToString(deterministic=True)
    if len(body) > MOST_BYTES:
        raise PeerError(f"{len(body)} bytes of {what}, and {MOST_BYTES} are the most", "SIZE")
    return body
