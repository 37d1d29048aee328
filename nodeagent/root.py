"""The door to a machine's files: `/` of this host, or the folder of a captured one.

Rule 1: whatever a file does, the answer is a value or None. Vanished, empty, not UTF-8, huge and blocking files are
        ordinary here: absence is silent, and what was there and could not be read is noted.
Rule 2: no link leads out of the folder. An absolute target begins at the folder, and `..` stops there.
Rule 3: with a record attached all that was read, listed or followed is kept, and answered the same when it is asked for
        again: a capture replays to what the scan saw.

Paths are relative to the root: `sys/class/net`. This file is on the way of some thousand reads in each scan: it joins
strings and calls the kernel, and makes no objects on the way. Of a folder that is not `/` the links are followed once
and remembered: a captured machine does not re-cable itself.
"""

# An object for each of some thousand paths costs more than the reads themselves.
# ruff: noqa: PTH112, PTH115, PTH116, PTH208

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from nodeagent.record import NOTHING, Record

MAX_BYTES = 64 * 1024
MAX_HOPS = 40
MAX_NOTES = 20
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # non-blocking, so that a FIFO cannot hold us
_READ_HERE = _READ | os.O_NOFOLLOW
# The kernel's ways to say that there is no such value: sysfs answers EINVAL for the speed of a port that is down.
_ABSENT = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENODEV, errno.ENXIO, errno.EINVAL, errno.EOPNOTSUPP, 524}
)


@dataclass(frozen=True, slots=True)
class Note:
    """Something that is there and could not be read."""

    path: str
    errno: int


class Root:
    """One machine's files. `notes` holds what could not be read since this root, or this view of it, was made."""

    __slots__ = ("_base", "_direct", "_places", "_record", "_refused", "notes")

    def __init__(
        self, path: Path = Path("/"), *, refused: Mapping[str, int] | None = None, record: Record | None = None
    ) -> None:
        """`refused` names the files that the captured machine would not show, by real path, with the errno it gave."""
        self._base = os.path.realpath(path).rstrip("/") + "/"
        self._direct = self._base == "/" and record is None  # the kernel follows links itself
        self._refused = refused or {}
        self._record = record
        self._places: dict[str, str] = {"": ""}
        self.notes: list[Note] = []

    def recording(self, record: Record) -> "Root":
        """The same machine, and all that is read of it is kept."""
        return Root(Path(self._base), refused=self._refused, record=record)

    def view(self) -> "Root":
        """The same machine with notes of its own, for one reader among several."""
        view = object.__new__(Root)
        for name in ("_base", "_direct", "_places", "_record", "_refused"):
            object.__setattr__(view, name, getattr(self, name))
        view.notes = []
        return view

    def data(self, path: str) -> bytes | None:
        """The first 64 KiB of a file."""
        try:
            return self._read_direct(path) if self._direct else self._read_confined(path)
        except OSError as error:
            self._note(path, error)
            return None

    def text(self, path: str) -> str | None:
        """A file's text without the white space around it; None if it is absent, unreadable or empty."""
        data = self.data(path)
        return data.decode("utf-8", "backslashreplace").strip() or None if data else None

    def number(self, path: str) -> int | None:
        """A whole number, decimal or 0x…; None if the file says anything else."""
        text = self.text(path)
        if text is None:
            return None
        try:
            return int(text, 16) if text[:2] == "0x" else int(text)
        except ValueError:
            return None

    def natural(self, path: str, bits: int = 64) -> int | None:
        """A number that is not negative and fits into so many bits: -1 is how sysfs says that it does not know."""
        number = self.number(path)
        return number if number is not None and 0 <= number < 1 << bits else None

    def names(self, path: str) -> list[str]:
        """What a folder holds, sorted. A name that is not UTF-8 cannot be told to anybody, and is noted."""
        try:
            found = self._list(path)
        except OSError as error:
            self._note(path, error)
            return []
        names = [name for name in found if name.isascii() or _is_utf8(name)]
        if len(names) < len(found):
            self._note(path, OSError(errno.EILSEQ, ""))
        return sorted(name for name in names if name != NOTHING)

    def glob(self, pattern: str) -> list[str]:
        """Paths that match, sorted; `*`, `?` and `[…]` within one component."""
        found = [""]
        for part in pattern.split("/"):
            if any(sign in part for sign in "*?["):
                found = [f"{at}{name}/" for at in found for name in self.names(at) if fnmatchcase(name, part)]
            else:
                found = [f"{at}{part}/" for at in found]
        last = pattern.rpartition("/")[2]
        paths = [path[:-1] for path in found]
        return paths if any(sign in last for sign in "*?[") else [path for path in paths if self.exists(path)]

    def link(self, path: str) -> str | None:
        """The last component of a link's target: the driver of `…/device/driver`."""
        try:
            target = os.readlink(self._base + path) if self._direct else self._target(self._place(path))
        except OSError as error:
            self._note(path, error)
            return None
        return target.rstrip("/").rpartition("/")[2] if target else None

    def real(self, path: str) -> str:
        """The path with all links followed; the path itself where it leads nowhere."""
        if self._direct:
            return os.path.realpath(self._base + path)[1:]
        try:
            place = self._follow(path)
        except OSError as error:
            self._note(path, error)
            return path
        self._keep(place)
        return place

    def exists(self, path: str) -> bool:
        try:
            place = path if self._direct else self._follow(path)
            os.stat(self._base + place, follow_symlinks=self._direct)
        except OSError:
            return False
        self._keep(place)
        return True

    def _read_direct(self, path: str) -> bytes:
        return _read(os.open(self._base + path, _READ))

    def _read_confined(self, path: str) -> bytes:
        place = self._place(path)
        try:
            return self._read_place(place)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return self._read_place(self._follow(path))

    def _read_place(self, place: str) -> bytes:
        refusal = self._refused.get(place)
        if refusal is not None:
            raise OSError(refusal, os.strerror(refusal))
        if self._record is None:
            return _read(os.open(self._base + place, _READ_HERE))
        return self._record.file(place, lambda: _read(os.open(self._base + place, _READ_HERE)))

    def _list(self, path: str) -> list[str]:
        if self._direct:
            return os.listdir(self._base + path)
        place = self._follow(path)
        refusal = self._refused.get(place)
        if refusal is not None:
            raise OSError(refusal, os.strerror(refusal))
        if self._record is None:
            return os.listdir(self._base + place)
        return self._record.listing(self._base, place)

    def _place(self, path: str) -> str:
        """The path with the links of its folder followed, and the last component as it stands."""
        folder, _, name = path.rpartition("/")
        at = self._places.get(folder)
        if at is None:
            at = self._follow(folder)
        if name in {"", ".", ".."}:
            return self._follow(path)
        return f"{at}/{name}" if at else name

    def _follow(self, path: str, hops: int = 0) -> str:
        known = self._places.get(path)
        if known is not None:
            return known
        folder, _, name = path.rpartition("/")
        at = self._follow(folder, hops)
        if name in {"", "."}:
            place = at
        elif name == "..":
            place = at.rpartition("/")[0]
        else:
            place = self._follow_one(at, f"{at}/{name}" if at else name, hops)
        self._places[path] = place
        return place

    def _follow_one(self, at: str, place: str, hops: int) -> str:
        target = self._target(place)
        if target is None:
            return place
        if hops >= MAX_HOPS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return self._follow(target.lstrip("/") if target[:1] == "/" else f"{at}/{target}", hops + 1)

    def _target(self, place: str) -> str | None:
        """Where a link points; None for what is no link, or is not there."""
        try:
            target = os.readlink(self._base + place)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            refusal = self._refused.get(place)
            if refusal is not None and error.errno == errno.ENOENT:
                raise OSError(refusal, os.strerror(refusal)) from error
            return None
        if self._record is not None:
            self._record.links[place] = target
        return target

    def _keep(self, place: str) -> None:
        if self._record is not None and os.path.lexists(self._base + place):
            self._record.there.setdefault(place, os.path.isdir(self._base + place))

    def _note(self, path: str, error: OSError) -> None:
        code = error.errno or errno.EIO
        if code in _ABSENT:
            return
        if self._record is not None:
            self._record.refused[self._place_of_refused(path)] = code
        if len(self.notes) < MAX_NOTES and all(note.path != path for note in self.notes):
            self.notes.append(Note(path, code))

    def _place_of_refused(self, path: str) -> str:
        for place in (self._follow, self._place):
            try:
                return place(path)
            except OSError:  # the link itself, or the way to it, is what cannot be read
                continue
        return path


def _read(handle: int) -> bytes:
    try:
        data = os.read(handle, 4096)  # a sysfs value is at most a page
        if not data:
            return data
        while len(data) < MAX_BYTES:
            more = os.read(handle, MAX_BYTES - len(data))
            if not more:
                break
            data += more
        return data
    finally:
        os.close(handle)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
