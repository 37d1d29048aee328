"""What a process costs, and the stage that the benches of load share: a provisioner on one core, a crowd on another.

Rule: figures are processor time and memory of the process that is measured, not seconds on a wall: those depend on
      who else uses the machine.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from tests.load.site import populate
from tests.load.talk import Asked, asked, on
from tests.running import Program, Site, site

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
HERE, THERE = 0, 1  # the core of what is measured, and the generator's


def processor_s(pid: int) -> float:
    """Of the process and all its threads."""
    values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / CLOCK_TICKS


def pss_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


@dataclass(frozen=True)
class Stage:
    place: Site
    provisioner: Program
    certificates: Path

    def admin(self) -> grpc.ChannelCredentials:
        """What a person with every role calls with."""
        folder = self.place.folder / "provisioner/admin"
        return grpc.ssl_channel_credentials(*((folder / f"{name}.pem").read_bytes() for name in ("ca", "key", "cert")))

    @contextlib.contextmanager
    def crowd(self) -> Iterator[Asked]:
        with asked("tests.load.crowd", str(self.certificates), core=THERE) as made:
            yield made

    @contextlib.contextmanager
    def sink(self) -> Iterator[Asked]:
        """The bare one, on the provisioner's core: the two are never busy at once."""
        with asked("tests.load.sink", str(self.place.folder / "provisioner"), core=HERE) as made:
            yield made


@contextlib.contextmanager
def stage(machines: int, **settings: object) -> Iterator[Stage]:
    """A provisioner on one core that knows so many machines; none is connected."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        place = site(Path(name), **settings)
        certificates = populate(place, machines)
        with on(HERE):
            provisioner = stack.enter_context(place.run())
        provisioner.wait_for("READY=1")
        yield Stage(place, provisioner, certificates)
