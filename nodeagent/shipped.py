"""The captured machines that come with the package: folders in a checkout, archives in an installed wheel.

Rule: whoever asks for one gets a folder that `host.replayed` reads, and does not see which of the two it was.
"""

import tarfile
from pathlib import Path
from typing import Any

from nodeagent.errors import BedplateError

MACHINES = Path(__file__).parent / "machines"
ARCHIVE = ".tar.gz"
SAFELY: Any = (
    {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}
)  # Python 3.11.2 has none; the archives are ours


def names() -> list[str]:
    return sorted({path.name.removesuffix(ARCHIVE) for path in MACHINES.glob("*") if _is_machine(path)})


def folder(name: str, scratch: Path) -> Path:
    """The machine's folder; below `scratch`, a folder of the caller's, where it has to be unpacked first."""
    if name not in names():
        raise BedplateError(f"cannot find captured machine {name!r}: there are {', '.join(names()) or 'none'}")
    if (MACHINES / name).is_dir():
        return MACHINES / name
    unpacked = scratch / name
    try:
        if not unpacked.exists():
            with tarfile.open(MACHINES / f"{name}{ARCHIVE}") as archive:
                archive.extractall(unpacked, **SAFELY)  # noqa: S202 - what we packed ourselves
    except (OSError, tarfile.TarError) as error:
        raise BedplateError(f"cannot unpack captured machine {name}: {error}") from error
    return unpacked


def _is_machine(path: Path) -> bool:
    return path.name.endswith(ARCHIVE) or (path / "capture.json").exists()
