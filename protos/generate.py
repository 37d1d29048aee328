"""Generates what the protos imply: the Python beside them and the reference in docs/api.md; and the schema of events.

`make protos` runs it.

Rule 1: what is generated is committed, so that nobody needs a compiler to read, install or type-check.
Rule 2: the same protos give the same bytes, so that a test can say whether the committed files are current.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import document
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from provisioner import cloudevents

PROTOS = Path(__file__).resolve().parent
GENERATORS = ("python_out=", "grpc_python_out=", "mypy_out=quiet:", "mypy_grpc_out=quiet:")


def main() -> None:
    arguments = argparse.ArgumentParser(description="Generate Python, docs/api.md and docs/events.schema.json.")
    arguments.add_argument("--into", type=Path, default=PROTOS.parent, help="write below this folder instead")
    into = arguments.parse_args().into
    (into / "protos").mkdir(parents=True, exist_ok=True)
    (into / "docs").mkdir(parents=True, exist_ok=True)
    _protoc(*(f"--{generator}{into / 'protos'}" for generator in GENERATORS))
    (into / "docs/api.md").write_text(document.api(_described(), PROTOS.parent))
    (into / "docs/events.schema.json").write_text(json.dumps(cloudevents.schema(), indent=2) + "\n")


def _described() -> FileDescriptorSet:
    """The protos as data, with their comments."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "descriptors")
        _protoc("--include_source_info", f"--descriptor_set_out={path}")
        return FileDescriptorSet.FromString(path.read_bytes())


def _protoc(*options: str) -> None:
    """Protoc finds its plugins in PATH, and they stand beside this interpreter."""
    files = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *options, *files]
    subprocess.run(command, cwd=PROTOS, env={**os.environ, "PATH": path}, check=True)


if __name__ == "__main__":
    main()
