"""What survives a power cut: the store as `provisioner.store.Store` is used, without a file.

Rule: a batch is there whole once `write` returned, and not at all where it raised. What `World.after` makes of it is
the product's own; only bodies and histories are kept here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bedplate.v1.uplink_pb2 import Delta
from provisioner.store import StoreError
from provisioner.store.rows import Seen, VitalsRow
from provisioner.vitals import folded
from provisioner.world import Asked, Change, InventoryKept, VitalsKept, VitalsMoved, World


@dataclass(slots=True)
class Platter:
    """Shared by all lives of the provisioner."""

    world: World = field(default_factory=lambda: World(epoch=0, started_at=0.0))
    rows: dict[str, VitalsRow] = field(default_factory=dict)
    seen: dict[str, dict[bytes, None]] = field(default_factory=dict)
    bodies: dict[bytes, bytes] = field(default_factory=dict)
    full: bool = False

    def empty(self) -> None:
        """There is room again."""
        self.full = False


class Disk:
    """One life's handle."""

    def __init__(self, platter: Platter) -> None:
        self.platter = platter
        self.world = platter.world

    def begin_epoch(self) -> int:
        self.platter.world = replace(self.platter.world, epoch=self.platter.world.epoch + 1)
        return self.platter.world.epoch

    def load(self, started_at: float) -> World:
        self.world = self.platter.world = replace(self.platter.world, started_at=started_at)
        return self.world

    def write(self, changes: Sequence[Change]) -> list[int]:
        if not changes:
            return []
        if self.platter.full:
            raise StoreError("cannot write store: No space left on device")
        if self.platter.world is not self.world:
            raise StoreError("cannot write store: another provisioner has taken it over")
        first = self.world.revision + 1
        numbered = list(enumerate(changes, first))
        after = self.world.after(numbered)
        self._put_down(changes)
        self.world = self.platter.world = after
        return [number for number, _ in numbered]

    def _put_down(self, changes: Sequence[Change]) -> None:
        platter = self.platter
        for change in changes:
            match change:
                case VitalsKept():
                    row = VitalsRow(change.run_id, change.sequence, change.vitals, change.problems, change.at)
                    platter.rows[change.machine_id] = row
                case VitalsMoved():
                    row = platter.rows[change.machine_id]
                    vitals = folded(row.vitals, [Delta.FromString(change.delta)]).SerializeToString(deterministic=True)
                    platter.rows[change.machine_id] = replace(
                        row, sequence=change.sequence, vitals=vitals, at=change.at
                    )
                case Asked():
                    platter.rows.pop(change.machine_id, None)
                case InventoryKept():
                    if change.body is not None:
                        platter.bodies[change.digest] = change.body
                    elif change.digest not in platter.bodies:
                        raise AssertionError("an inventory without a body, and none is stored")
                    platter.seen.setdefault(change.machine_id, {})[change.digest] = None
                case _:
                    pass

    def vitals(self, machine_id: str) -> VitalsRow | None:
        return self.platter.rows.get(machine_id)

    def inventory(self, digest: bytes) -> bytes | None:
        return self.platter.bodies.get(digest)

    def history(self, machine_id: str) -> list[Seen]:
        return [Seen(digest, 0.0, 0.0) for digest in self.platter.seen.get(machine_id, ())]
