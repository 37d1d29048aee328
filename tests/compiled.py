"""Small libraries in C that tests need, compiled once for each version of their source."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BUILT = Path(__file__).parents[1] / "build" / "tests"


def library(source: Path, *flags: str) -> Path:
    """Several test processes may build it at the same time."""
    key = hashlib.sha256(source.read_bytes() + " ".join(flags).encode()).hexdigest()[:16]
    made = BUILT / f"{source.stem}-{key}.so"
    if not made.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        handle, fresh = tempfile.mkstemp(dir=BUILT)
        os.close(handle)
        options = ["-shared", "-fPIC", "-O1", "-pthread", *flags]
        subprocess.run([*_compiler(), *options, "-o", fresh, str(source)], check=True)
        Path(fresh).replace(made)
    return made


def _compiler() -> list[str]:
    """The system's, or the one that comes as a Python package."""
    return ["cc"] if shutil.which("cc") else [sys.executable, "-m", "ziglang", "cc"]
