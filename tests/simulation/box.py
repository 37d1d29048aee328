"""The hardware of one machine and its dials. What a scan would find is in `snapshot`."""

import hashlib
from random import Random

from bedplate.v1.enrolment_pb2 import Evidence
from bedplate.v1.snapshot_pb2 import (
    FilesystemVitals,
    GpuVitals,
    HostVitals,
    Identity,
    Inventory,
    LinkVitals,
    Problem,
    Snapshot,
    Vitals,
)

GIB = 1 << 30


class Box:
    def __init__(self, name: str, random: Random) -> None:
        self.name = name
        self.random = random
        self.evidence = Evidence(
            identity=Identity(
                hostname=name,
                product="PG-8",
                product_serial=f"J{random.getrandbits(40):010x}",
                product_uuid=f"{random.getrandbits(64):016x}-4000",
                board_serial=f"B{random.getrandbits(40):010x}",
            ),
            permanent_macs=[f"a0:88:c2:{random.getrandbits(8):02x}:{random.getrandbits(8):02x}:0{n}" for n in (1, 2)],
        )
        self.vitals = Vitals(
            host=HostVitals(load_1m=1.0, memory_available_bytes=64 * GIB),
            links={"eth0": LinkVitals(carrier=True), "ib0": LinkVitals(carrier=True)},
            gpus={"GPU-0": GpuVitals(celsius=40.0, watts=80.0)},
            filesystems={"/": FilesystemVitals(free_bytes=100 * GIB)},
        )
        self.problems: list[str] = []
        self.kernel = "6.1"
        self.reboot()
        self.look_inside()

    def reboot(self) -> None:
        self.vitals.host.boot_id = f"{self.random.getrandbits(32):08x}"

    def clone_of(self, other: "Box") -> None:
        """Another box that shows what that one shows."""
        self.evidence.CopyFrom(other.evidence)
        self.look_inside()

    def look_inside(self) -> None:
        """The inventory, as it is after the hardware or the system changed."""
        self.inventory = Inventory(identity=self.evidence.identity)
        self.inventory.os.kernel = self.kernel
        self.body = self.inventory.SerializeToString(deterministic=True)
        self.digest = hashlib.sha256(self.body).digest()

    def swap_a_part(self) -> str:
        """Now and then back to what was there before: an inventory that is stored already."""
        part = self.random.choice(("kernel", "board", "nic"))
        number = self.random.randrange(3)
        if part == "kernel":
            self.kernel = f"6.{number}"
        elif part == "board":
            self.evidence.identity.board_serial = f"B-{self.name}-{number}"
        else:
            first, second = self.random.randbytes(2)
            self.evidence.permanent_macs[0] = f"a0:88:c2:{first:02x}:{second:02x}:09"
        self.look_inside()
        return part

    def turn(self, problem: str) -> None:
        """It appears, or clears."""
        there = problem in self.problems
        self.problems = [one for one in self.problems if one != problem] if there else [*self.problems, problem]

    def live(self) -> None:
        """Some time went by: most dials tremble within their bands, a few leave them."""
        random, vitals = self.random, self.vitals
        vitals.host.load_1m = max(0.0, vitals.host.load_1m + random.uniform(-0.4, 0.4))
        what = random.randrange(12)
        if what < 3:
            vitals.gpus["GPU-0"].celsius = random.choice((40.0, 41.0, 55.0, 70.0))
        elif what == 3:
            vitals.links["eth0"].carrier_up_count += 1
        elif what == 4:
            if "ib0" in vitals.links:
                del vitals.links["ib0"]
            else:
                vitals.links["ib0"].carrier = True
        elif what == 5:
            self.turn("gpus")
        elif what == 6:
            vitals.filesystems["/"].free_bytes = random.randrange(1, 100) * GIB
        elif what == 7:
            vitals.gpus["GPU-1"].watts = random.uniform(50, 700)

    def snapshot(self, at: float) -> Snapshot:
        snapshot = Snapshot(vitals=self.vitals, problems=[Problem(probe=name) for name in self.problems])
        snapshot.taken_at.FromNanoseconds(int(at * 1e9))
        return snapshot
