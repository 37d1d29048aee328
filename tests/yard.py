"""A site whose root is to change, with the commands that change it."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.running import BIN, Program, Site, site


@dataclass
class Yard:
    """A site whose root is to change, with its machines."""

    place: Site
    provisioner: Program

    def ca(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "provisioner"), "--config", str(self.place.config), "ca", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )

    def go_on(self, *arguments: str) -> None:
        done = self.ca("rotate", "--yes", *arguments)
        assert done.returncode == 0, done.stderr

    def came(self) -> str:
        """'1 of 2'"""
        return self.ca("show").stdout.split(" machines came")[0].splitlines()[-1]

    def new_credential(self, name: str, role: str) -> None:
        """Made on the host, and used from then on."""
        folder = self.place.folder / f"{name}-anew"
        made = [str(BIN / "provisioner"), "--config", str(self.place.config), "credential", name]
        subprocess.run([*made, "--role", role, "--out", str(folder)], check=True, capture_output=True, timeout=60)
        address = f"127.0.0.1:{self.place.port}"
        self.place.bedplate("context", "add", name, "--address", address, "--credentials", str(folder), "--use")

    def machine(self, product: str) -> dict[str, Any]:
        (found,) = [one for one in self.place.machines() if product in one["product"]]
        return found

    def present(self) -> bool:
        return all(one["phase"] == "PHASE_PRESENT" for one in self.place.machines())

    def token(self, name: str, *arguments: str) -> Path:
        path = self.place.folder / name
        path.touch(mode=0o600)
        path.write_text(self.place.bedplate("token", "create", *arguments).stdout)
        return path


@contextlib.contextmanager
def yard(folder: Path, **settings: object) -> Iterator[Yard]:
    place = site(folder, silent_after_s=5, **settings)
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        yield Yard(place, provisioner)


def connected(program: Program) -> None:
    program.wait_for("STATUS=connected to")
