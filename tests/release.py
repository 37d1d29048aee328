"""The last released version as an archive in the tree: what the tests of compatibility hold this version against.

Rule 1: it stands in tests/released, so that a clone without history or tags tests as much as any other. There is one:
        the last. `make released OF=CHECKOUT` puts another in its place, when a version is begun, and at no other time.
Rule 2: it is what a wheel installs, protos included, without the captured machines and the stubs for type checkers,
        which nothing here runs. The same sources give the same bytes.
"""

import argparse
import gzip
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests/released"
SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.2 has none


def last() -> Path:
    (archive,) = FOLDER.glob("bedplate-*.tar.gz")
    return archive


def released() -> str:
    """'0.1.0'"""
    return last().name.removeprefix("bedplate-").removesuffix(".tar.gz")


def about() -> str:
    """One line for the output of tests: what this version was held against."""
    return f"{version('bedplate')} held against {released()}"


def unpacked(folder: Path) -> Path:
    """A folder for PYTHONPATH."""
    with tarfile.open(last()) as archive:
        archive.extractall(folder, **SAFELY)
    return folder


def main() -> None:
    arguments = argparse.ArgumentParser(description="Keep a version as the last released one.")
    arguments.add_argument("--of", type=Path, required=True, help="the checkout of what landed last")
    arguments.add_argument("--into", type=Path, default=FOLDER, help="write there instead")
    told = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        wheel = _wheel(told.of.resolve(), Path(scratch))
        archive = told.into / f"bedplate-{wheel.name.split('-')[1]}.tar.gz"
        _pack(wheel, Path(scratch, "archive"))
        for older in told.into.glob("bedplate-*.tar.gz"):
            older.unlink()
        archive.write_bytes(Path(scratch, "archive").read_bytes())
    sys.stdout.write(f"{archive.name}: {archive.stat().st_size // 1000} kB\n")


def _wheel(checkout: Path, into: Path) -> Path:
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--no-index"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "-w", str(into), str(checkout)], check=True)
    return next(into.glob("*.whl"))


def _pack(wheel: Path, archive: Path) -> None:
    with (
        zipfile.ZipFile(wheel) as contents,
        archive.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in sorted(contents.namelist()):
            if name.startswith("nodeagent/machines/") or name.endswith((".pyi", "/")):
                continue
            member = tarfile.TarInfo(name)
            member.size = contents.getinfo(name).file_size
            tar.addfile(member, contents.open(name))


if __name__ == "__main__":
    main()
