"""Machines made by hand: a few files in a folder, and the answers that no file gives."""

import json
from pathlib import Path

from nodeagent.errors import Unanswered
from nodeagent.host import Host
from nodeagent.root import Root

AT_NS = 1_700_000_000_000_000_000


def plant(folder: Path, files, links=None) -> Path:
    """Writes files (text or bytes) and links below a folder."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    for path, target in (links or {}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).symlink_to(target)
    return folder


def machine(folder: Path, files=None, links=None, answers=None, refused=None) -> Host:
    """A host over such a folder; a question that it has no answer to is absent."""
    plant(folder, files or {}, links)

    def ask(name: str):
        if name not in (answers or {}):
            raise Unanswered("ABSENT", f"cannot ask {name}: nobody is there")
        return (answers or {})[name]

    return Host(Root(folder, refused=refused), ask, lambda: AT_NS)


def captured(folder: Path, files, links=None, answers=None) -> Path:
    """The same as a captured machine in its folder."""
    manifest = {"format": 1, "taken_at": "2026-01-02T03:04:05Z", "scrubbed": False}
    told = {f"answers/{name}.json": json.dumps(answer) for name, answer in (answers or {}).items()}
    return plant(folder, {"capture.json": json.dumps(manifest), **told, **files}, links)
