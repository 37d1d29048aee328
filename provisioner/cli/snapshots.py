"""Snapshots in files: what `nodeagent snapshot -o json` printed, or the folder of a captured machine."""

import json
import sys
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError

from bedplate.v1.snapshot_pb2 import Inventory, Snapshot, Topology
from provisioner.cli.refusals import USAGE, RefusedError

LARGEST_BYTES = 64 << 20
GOLDEN = "golden/snapshot.json"
CURE = "give it what `nodeagent snapshot -o json` prints"


def is_file(source: str) -> bool:
    return source == "-" or "/" in source or source.endswith(".json") or Path(source).exists()


def read(source: str) -> Snapshot:
    """A bare inventory or topology is taken as a snapshot that holds no more."""
    try:
        document = json.loads(_text(source))
    except (ValueError, RecursionError) as error:  # of JSON, and of UTF-8
        raise RefusedError(f"cannot read snapshot {source}: it is not JSON: {error}; {CURE}", USAGE) from error
    if not isinstance(document, dict):
        raise RefusedError(f"cannot read snapshot {source}: it is not an object; {CURE}", USAGE)
    try:
        snapshot = _parsed(document)
    except (ParseError, TypeError) as error:  # TypeError: what should be an object is a number, or nothing
        raise RefusedError(f"cannot read snapshot {source}: {error}; {CURE}", USAGE) from error
    if not snapshot.HasField("inventory"):
        raise RefusedError(f"cannot read snapshot {source}: it holds no inventory; {CURE}", USAGE)
    return snapshot


def _parsed(document: dict[str, Any]) -> Snapshot:
    """What a younger agent wrote besides is passed over."""
    if "parts" in document:
        return Snapshot(inventory=Inventory(topology=ParseDict(document, Topology(), ignore_unknown_fields=True)))
    if "snapshot" in document:  # `bedplate machine show -o json`
        return ParseDict(document["snapshot"], Snapshot(), ignore_unknown_fields=True)
    if "inventory" not in document and {"identity", "topology", "os", "links"} & set(document):
        return Snapshot(inventory=ParseDict(document, Inventory(), ignore_unknown_fields=True))
    return ParseDict(document, Snapshot(), ignore_unknown_fields=True)


def _text(source: str) -> str:
    path = Path(source)
    if source != "-" and path.is_dir():
        path = path / GOLDEN
        if not path.is_file():
            advice = f"nodeagent snapshot --root {source} -o json | bedplate topology -"
            raise RefusedError(f"cannot read snapshot {source}: it holds no {GOLDEN}; try: {advice}", USAGE)
    try:
        if source == "-":
            content = sys.stdin.buffer.read(LARGEST_BYTES + 1)
        else:
            with path.open("rb") as file:
                content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise RefusedError(f"cannot read snapshot {source}: {error.strerror}", USAGE) from error
    if len(content) > LARGEST_BYTES:
        raise RefusedError(f"cannot read snapshot {source}: it is larger than {LARGEST_BYTES >> 20} MiB", USAGE)
    return content.decode()
