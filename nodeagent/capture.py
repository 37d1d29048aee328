"""A captured machine: all that one scan read, as a folder that replays to the same snapshot.

Rule 1: the scan that fills the capture is the scan that is reported: nothing is read beside it.
Rule 2: a folder that has something in it is not touched.
Rule 3: where scrubbing was asked for, no unscrubbed byte reaches the disk or the wire.
"""

import errno
import io
import json
import secrets
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from bedplate.v1.snapshot_pb2 import Snapshot
from nodeagent.errors import BedplateError, Unanswered
from nodeagent.host import FORMAT, MANIFEST, Host
from nodeagent.observe import scan
from nodeagent.record import NOTHING, Record
from nodeagent.scrub import (
    Scrubber,
    at_home,
    file_kind,
    known_in_answer,
    known_in_files,
    known_in_snapshot,
    scrubbed_answer,
)

CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Capture:
    """A machine as it will lie in its folder: files by path, links by path, and the snapshot that it gives."""

    snapshot: Snapshot
    files: Mapping[str, bytes]
    links: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Answers:
    """Asks each question once, and keeps what came back: an answer, or that there was none."""

    ask: Callable[[str], Any]
    given: dict[str, Any] = field(default_factory=dict)
    locks: dict[str, threading.Lock] = field(default_factory=dict)

    def __call__(self, name: str) -> Any:
        with self.locks.setdefault(name, threading.Lock()):
            if name not in self.given:
                self.given[name] = self._answer(name)
        match self.given[name]:
            case {"unanswered": {"kind": kind, "detail": detail}}:
                raise Unanswered(kind, detail)
            case answer:
                return answer

    def all(self) -> dict[str, Any]:
        """With those that have not come back."""
        return {name: self.given.get(name, _late(name)) for name in sorted(self.locks)}

    def _answer(self, name: str) -> Any:
        try:
            return json.loads(json.dumps(self.ask(name)))
        except Unanswered as error:
            return {"unanswered": {"kind": error.kind, "detail": error.detail}}


def _late(name: str) -> dict[str, Any]:
    detail = f"cannot ask {name}: no answer while the capture was made"
    return {"unanswered": {"kind": "TIMEOUT", "detail": detail}}


def capture(host: Host, *, scrub: bool, salt: str | None = None) -> Capture:
    """Scans the machine and keeps what the scan saw. Without a salt nobody can make the same stand-ins again."""
    record, answers = Record(), _Answers(host.ask)
    at_ns = host.clock_ns()
    snapshot = scan(Host(host.root.recording(record), answers, lambda: at_ns))
    files, links = _laid_out(record)
    given = answers.all()
    refused = {place: errno.errorcode.get(code, "EIO") for place, code in sorted(record.refused.items())}
    if scrub:
        scrubber = _scrubber(snapshot, files, given, salt or secrets.token_hex(16))
        files = {_path(path, scrubber): _content(path, data, scrubber) for path, data in files.items()}
        links = {_path(path, scrubber): _path(target, scrubber) for path, target in links.items()}
        refused = {_path(path, scrubber): code for path, code in refused.items()}
        given = {name: _scrubbed_answer(name, answer, scrubber) for name, answer in given.items()}
    manifest = _manifest(at_ns, refused, scrubbed=scrub)
    answered = {f"answers/{name}.json": _json(answer) for name, answer in given.items()}
    return Capture(snapshot, {MANIFEST: _json(manifest), **answered, **files}, links)


def _manifest(at_ns: int, refused: Mapping[str, str], *, scrubbed: bool) -> dict[str, Any]:
    taken_at = Timestamp()
    taken_at.FromNanoseconds(at_ns)
    return {
        "format": FORMAT,
        "taken_at": taken_at.ToJsonString(),
        "agent_version": version("bedplate"),
        "scrubbed": scrubbed,
        "provenance": {"kind": "recorded", "note": "nodeagent capture"},
        "refused": refused,
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True).encode() + b"\n"


def _laid_out(record: Record) -> tuple[dict[str, bytes], dict[str, str]]:
    """What to write so that a root over it sees what the scan saw."""
    places = record.there.items()
    files = {place: b"" for place, folder in places if not folder} | record.files
    links = {place: _inward(place, target) for place, target in sorted(record.links.items())}
    above = {str(folder) for path in (*files, *links) for folder in PurePosixPath(path).parents}
    bare = {f"{place}/{NOTHING}": b"" for place, folder in places if folder and place not in above | {""}}
    return dict(sorted((files | bare).items())), links


def _inward(place: str, target: str) -> str:
    """A link's target, relative and not above the folder of the capture."""
    depth = place.count("/")
    if target.startswith("/"):
        return "../" * depth + target.lstrip("/")
    parts = target.split("/")
    up = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    return "/".join(parts[max(0, up - depth) :]) or "."


def _scrubber(snapshot: Snapshot, files: Mapping[str, bytes], given: Mapping[str, Any], salt: str) -> Scrubber:
    known = known_in_snapshot(snapshot) | known_in_files(files)
    known |= {value: kind for answer in given.values() for value, kind in known_in_answer(answer)}
    return Scrubber(known, salt, frozenset(part for path in files for part in path.split("/")))


def _path(path: str, scrubber: Scrubber) -> str:
    return "/".join(scrubber.text(part) for part in path.split("/"))


def _content(path: str, data: bytes, scrubber: Scrubber) -> bytes:
    text = data.decode("utf-8", "surrogateescape")
    kind = file_kind(path)
    other = scrubber.whole(kind, text) if kind else scrubber.text(text, addresses=at_home(path))
    return other.encode("utf-8", "surrogateescape")


def _scrubbed_answer(name: str, answer: Any, scrubber: Scrubber) -> Any:
    return scrubbed_answer(answer, scrubber, addresses=at_home(f"answers/{name}.json"))


def refuse_full(folder: Path) -> None:
    """Before anything is scanned: a folder that has something in it is not touched."""
    try:
        if folder.exists() and any(folder.iterdir()):
            raise BedplateError(f"cannot write capture {folder}: it is not empty; name a new folder")
    except OSError as error:
        raise BedplateError(f"cannot write capture {folder}: {error.strerror}") from error


def write(taken: Capture, folder: Path) -> None:
    """Into a folder that is not there yet, or is empty."""
    refuse_full(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, data in taken.files.items():
            _ready(folder / path).write_bytes(data)
        for path, target in taken.links.items():
            _ready(folder / path).symlink_to(target)
    except OSError as error:
        raise BedplateError(f"cannot write capture {folder}: {error.strerror}") from error


def _ready(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def tar(taken: Capture) -> Iterator[bytes]:
    """As a tar file, in pieces that fit a message."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for path, data in taken.files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
            yield from _full_pieces(held)
        for path, target in taken.links.items():
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
            yield from _full_pieces(held)
    yield from _full_pieces(held)
    yield held.getvalue()


def _full_pieces(held: io.BytesIO) -> Iterator[bytes]:
    """Takes out what fills pieces; what is left begins the next one."""
    data = held.getvalue()
    whole = len(data) - len(data) % CHUNK_BYTES
    if whole:
        yield from (data[at : at + CHUNK_BYTES] for at in range(0, whole, CHUNK_BYTES))
        held.seek(0)
        held.truncate()
        held.write(data[whole:])


def capture_tar(host: Host, *, scrub: bool) -> Iterator[bytes]:
    """Scans now, and gives the capture as a tar file, in pieces."""
    return tar(capture(host, scrub=scrub))
