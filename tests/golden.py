"""What each captured machine is expected to look like, as text beside it: `golden/snapshot.json`, `golden/matrix.txt`.

`python tests/golden.py [NAME…]` writes them anew from the captures: on purpose, and to be read in the diff.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.json_format import MessageToJson

from bedplate.v1.snapshot_pb2 import Snapshot
from nodeagent.host import replayed
from nodeagent.observe import scan
from nodeagent.topology import matrix

MACHINES = Path(__file__).parent / "machines"


def names() -> list[str]:
    return sorted(manifest.parent.name for manifest in MACHINES.glob("*/capture.json"))


def golden(name: str) -> Path:
    return MACHINES / name / "golden"


def texts(snapshot: Snapshot) -> dict[str, str]:
    """File name -> what it should hold."""
    return {
        "snapshot.json": MessageToJson(snapshot, preserving_proto_field_name=True, sort_keys=True, indent=1) + "\n",
        "matrix.txt": matrix(snapshot.inventory.topology) + "\n",
    }


def write(machines: Iterable[str]) -> None:
    for name in machines:
        golden(name).mkdir(exist_ok=True)
        for file, text in texts(scan(replayed(MACHINES / name))).items():
            path = golden(name) / file
            before = path.read_text() if path.exists() else None
            path.write_text(text)
            sys.stdout.write(f"{'unchanged' if before == text else 'written  '} {path}\n")


if __name__ == "__main__":
    write(sys.argv[1:] or names())
