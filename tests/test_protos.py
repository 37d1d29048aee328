"""What is generated from the protos is current, and the protos are clean."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def test_the_generated_python_and_the_reference_are_those_of_the_protos(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "protos/generate.py", "--into", str(tmp_path)], cwd=ROOT, check=True)
    fresh = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    stale = [name for name, text in sorted(fresh.items()) if (ROOT / name).read_text() != text]
    assert not stale, f"run `make protos`: {stale}"
    committed = {str(path.relative_to(ROOT)) for path in (ROOT / "protos/bedplate").rglob("*_pb2*.py*")}
    assert committed - {name for name in committed if "__pycache__" in name} == fresh.keys() - {
        "docs/api.md",
        "docs/events.schema.json",
    }


def test_the_protos_are_clean() -> None:
    lint = subprocess.run([BIN / "buf", "lint", "protos"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert lint.stdout + lint.stderr == ""


def test_each_method_and_each_service_says_what_it_is() -> None:
    silent = [
        f"{path.name}: {line.strip()}"
        for path in sorted((ROOT / "protos").rglob("*.proto"))
        for above, line in pairwise(path.read_text().splitlines())
        if line.strip().startswith(("rpc ", "service ")) and not above.strip().startswith("//")
    ]
    assert not silent
