"""What a scan read of a machine: enough of it to read the same again.

Rule 1: a thing is read once. Two probes that ask for the same file see the same bytes, as they will in the replay.
Rule 2: paths are real ones, with no link in them; the links that were followed stand apart.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

# Stands in a captured folder that has nothing else in it, for git keeps no empty folder; no name that a machine has.
NOTHING = ".nothing"


@dataclass(frozen=True, slots=True)
class Record:
    """Filled by the root that it is attached to, from several threads."""

    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    there: dict[str, bool] = field(default_factory=dict)  # seen, and perhaps not read; True for a folder
    refused: dict[str, int] = field(default_factory=dict)  # what could not be read, with the errno
    _listings: dict[str, list[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def file(self, place: str, read: Callable[[], bytes]) -> bytes:
        known = self.files.get(place)
        return self.files.setdefault(place, read()) if known is None else known

    def listing(self, base: str, place: str) -> list[str]:
        """All names in a folder: each of them is a link, a folder or a file to the replay, too."""
        with self._lock:
            names = self._listings.get(place)
            if names is None:
                names = self._listings[place] = self._list(base, place)
            return names

    def _list(self, base: str, place: str) -> list[str]:
        names = []
        with os.scandir(base + place) as entries:
            for entry in entries:
                path = f"{place}/{entry.name}" if place else entry.name
                if entry.is_symlink():
                    self.links[path] = os.readlink(base + path)  # noqa: PTH115 - paths are strings here, as in the root
                else:
                    self.there.setdefault(path, entry.is_dir(follow_symlinks=False))
                names.append(entry.name)
        self.there[place] = True
        return names
