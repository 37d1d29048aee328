"""One simulated machine's hardware and system: what a scan would find, and what happens to it.

Rule 1: the same name and model are the same individual; what happens to it is decided by the number that is handed in.
Rule 2: what the provisioner is told is what stands here: a part that is swapped has another serial number everywhere.
"""

from hashlib import sha256
from random import Random

from google.protobuf.message import Message

from bedplate.v1.snapshot_pb2 import Gpu, Inventory, Link, Problem, Snapshot
from nodeagent.course import Course
from nodeagent.scrub import disguise
from nodeagent.standin import stand_in
from nodeagent.topology import topology

UUID = "00000000-0000-4000-8000-000000000000"
QUESTIONS = ("gpus", "gpu_vitals", "rdma", "disks", "pci_links")  # probes that may go without an answer
MAINBOARD = (("board_serial", "serial"), ("product_uuid", "uuid"))


class Box:
    def __init__(self, name: str, model: Snapshot, seed: str) -> None:
        self.name = name
        self._seed = seed
        self._changes = 0
        snapshot = individual(model, name)
        self._captured = tuple(snapshot.problems)
        self.problems: tuple[Problem, ...] = self._captured
        self._course = Course(snapshot.vitals, Random(f"{seed}/course"))  # noqa: S311 - a simulation
        self._look(snapshot.inventory)

    def snapshot(self) -> Snapshot:
        """The dials a tick later. Without an inventory: those who need its bytes find them in `inventory`."""
        return Snapshot(vitals=self._course.tick(), problems=self.problems)

    def reboot(self, now: float) -> None:
        host = self._course.start.host
        host.boot_id = self._other("uuid", UUID)
        host.booted_at_s = int(now)

    def reimage(self, now: float) -> None:
        """The same hardware, another system."""
        self.reboot(now)
        inventory = Inventory.FromString(self.inventory)
        inventory.identity.machine_id = self._other("uuid", UUID).replace("-", "")
        self._look(inventory)

    def image_of(self, other: "Box", *, hostname: bool) -> None:
        """It runs a copy of the other's system: /etc/machine-id is that one's, and with `hostname` the name."""
        inventory, theirs = Inventory.FromString(self.inventory), Inventory.FromString(other.inventory).identity
        inventory.identity.machine_id = theirs.machine_id
        if hostname:
            inventory.identity.hostname = theirs.hostname
        self._look(inventory)

    def swap(self, roll: int) -> str:
        """Another part of the same make; which one, in words."""
        inventory = Inventory.FromString(self.inventory)
        parts: list[Message] = [inventory.identity]
        parts += [link for link in inventory.links if link.permanent_mac]
        parts += inventory.gpus
        part = parts[roll % len(parts)]
        match part:
            case Link():
                what = self._nic(part, inventory)
            case Gpu():
                what = self._gpu(part)
            case _:
                what = self._mainboard(inventory)
        inventory.topology.CopyFrom(topology(inventory))
        self._look(inventory)
        return what

    def fail(self, roll: int) -> str:
        """A probe has no answer from now on; which one, and why."""
        kinds = (Problem.KIND_TIMEOUT, Problem.KIND_LOST, Problem.KIND_FAILED)
        said = ("no answer within 5 s", "it was there, and is gone", "the driver's answer makes no sense")
        probe, which = QUESTIONS[roll % len(QUESTIONS)], roll // len(QUESTIONS) % len(kinds)
        problem = Problem(probe=probe, kind=kinds[which], detail=f"cannot ask {probe}: {said[which]}")
        self.problems = (*self._captured, problem)
        return problem.detail

    def mend(self) -> None:
        self.problems = self._captured

    # -- inside ----------------------------------------------------------------------------------------------------

    def _mainboard(self, inventory: Inventory) -> str:
        for name, kind in MAINBOARD:
            if value := getattr(inventory.identity, name):
                setattr(inventory.identity, name, self._other(kind, value))
        return "mainboard"

    def _nic(self, link: Link, inventory: Inventory) -> str:
        salt = self._salt()
        link.permanent_mac = stand_in("mac", link.permanent_mac, salt)
        link.mac = stand_in("mac", link.mac, salt)
        for device in inventory.rdma_devices:
            if device.pci_address == link.pci_address:
                device.node_guid = stand_in("guid", device.node_guid, salt)
        return f"NIC {link.name}"

    def _gpu(self, gpu: Gpu) -> str:
        vitals, before = self._course.start.gpus, gpu.uuid
        gpu.uuid = self._other("uuid", gpu.uuid)
        if gpu.serial:
            gpu.serial = self._other("serial", gpu.serial)
        if before in vitals:
            vitals[gpu.uuid].CopyFrom(vitals[before])
            del vitals[before]
        return f"GPU {gpu.pci_address}"

    def _other(self, kind: str, value: str) -> str:
        return stand_in(kind, value, self._salt())

    def _salt(self) -> str:
        self._changes += 1
        return f"{self.name}/{self._changes}"

    def _look(self, inventory: Inventory) -> None:
        self.inventory = inventory.SerializeToString(deterministic=True)
        self.digest = sha256(self.inventory).digest()


def individual(model: Snapshot, name: str) -> Snapshot:
    """A machine of that model that is called so; the same for the same name."""
    snapshot = disguise(model, name)
    snapshot.inventory.identity.hostname = name
    snapshot.vitals.host.boot_id = stand_in("uuid", UUID, name)
    return snapshot
