"""Packs the captured machines into the wheel: an archive each, for they are full of links and a wheel holds none.

`nodeagent/shipped.py` unpacks them. The same machines give the same bytes. Two builds at once do not meet.
"""

import gzip
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class MachinesHook(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return  # a checkout has the folders
        self._folder = tempfile.TemporaryDirectory(prefix="bedplate-machines-")  # gone with the builder
        packed = Path(self._folder.name)
        for manifest in sorted(Path(self.root, "tests/machines").glob("*/capture.json")):
            archive = packed / f"{manifest.parent.name}.tar.gz"
            _pack(manifest.parent, archive)
            build_data["force_include"][str(archive)] = f"nodeagent/machines/{archive.name}"


def _pack(machine: Path, archive: Path) -> None:
    with (
        archive.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in sorted(machine.rglob("*")):
            tar.add(path, str(path.relative_to(machine)), recursive=False, filter=_plain)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without owner and time; readable by whoever unpacks it."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.isdir() else 0o644
    return member
