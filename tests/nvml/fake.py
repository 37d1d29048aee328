"""NVIDIA's library without NVIDIA: built from fake.c, each test with a copy and a profile of its own."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.compiled import library

HERE = Path(__file__).parent
H100 = (HERE / "h100.profile").read_text()


@dataclass(frozen=True, slots=True)
class Fake:
    """A library in a folder, beside the profile that it answers from."""

    library: Path

    def says(self, profile: str) -> None:
        """From now on; a library that is loaded sees the change with its next call."""
        fresh = self.library.with_name("profile.new")
        fresh.write_text(profile)
        fresh.replace(self.library.with_name("profile"))


def fake(folder: Path, profile: str = H100, *, old: bool = False) -> Fake:
    """`old` is a library that lacks what came with later drivers."""
    folder.mkdir(exist_ok=True)
    library = folder / "libnvidia-ml.so.1"
    it = Fake(library)
    it.says(profile)
    shutil.copy(built("-DOLD") if old else built(), library)
    return it


def machine(folder: Path, addresses: list[str], *, driver: bool = True) -> Path:
    """The part of /sys and /proc that shows these GPUs."""
    for address in addresses:
        device = folder / "sys/bus/pci/devices" / address
        device.mkdir(parents=True)
        (device / "vendor").write_text("0x10de\n")
        (device / "class").write_text("0x030200\n")
        if driver:
            (folder / "proc/driver/nvidia/gpus" / address).mkdir(parents=True)
    return folder


def built(*flags: str) -> Path:
    """Compiled once for each version of the source."""
    return library(HERE / "fake.c", "-Wl,-soname,libnvidia-ml.so.1", *flags)
