"""A disk that lost its power: built again, call by call, as it may be found afterwards."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.power.recording import Call

SECTOR = 512
Keep = Callable[[], bool]  # whether this piece had reached the disk


@dataclass(slots=True, eq=False)
class File:
    durable: bytes = b""
    pending: list[Call] = field(default_factory=list)  # since it was last synced

    def sync(self) -> None:
        self.durable, self.pending = self.found(lambda: True), []

    def found(self, keep: Keep) -> bytes:
        """What is in it after the cut."""
        body = bytearray(self.durable)
        for call in self.pending:
            if call.op == "w":
                for start, piece in _sectors(call):
                    if keep():
                        body.extend(bytes(max(0, start - len(body))))
                        body[start : start + len(piece)] = piece
            elif keep():
                body = body[: call.length].ljust(call.length, b"\0")
        return bytes(body)


def _sectors(call: Call) -> Iterator[tuple[int, bytes]]:
    start, end = call.offset, call.offset + len(call.data)
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        yield start, call.data[start - call.offset : stop - call.offset]
        start = stop


@dataclass(slots=True)
class Disk:
    """Names lead to files; a folder is a name that leads to none."""

    now: dict[str, File | None] = field(default_factory=dict)
    durable: dict[str, File | None] = field(default_factory=dict)
    pending: list[tuple[str, Call, File | None]] = field(default_factory=list)  # the folder, what was done, with what
    inodes: dict[int, File] = field(default_factory=dict)

    def do(self, call: Call) -> None:
        match call.op:
            case "c":
                self.inodes[call.inode] = File()
                self._rename(call, self.inodes[call.inode])
            case "w" | "t":
                self.inodes[call.inode].pending.append(call)
            case "f":
                self.inodes[call.inode].sync()
            case "d":
                self._sync(call.name)
            case "r" | "u" | "m":
                self._rename(call, self.now.get(call.name))
            case _:
                pass

    def _rename(self, call: Call, file: File | None) -> None:
        _apply(self.now, call, file)
        self.pending.append((_folder(call.name), call, file))

    def _sync(self, folder: str) -> None:
        for where, call, file in self.pending:
            if where == folder:
                _apply(self.durable, call, file)
        self.pending = [one for one in self.pending if one[0] != folder]

    def found(self, keep: Keep) -> dict[str, bytes | None]:
        """What may be there after the cut, by name; None is a folder."""
        names, stopped = dict(self.durable), set[str]()
        for folder, call, file in self.pending:
            if folder not in stopped and keep():
                _apply(names, call, file)
            else:
                stopped.add(folder)
        return {name: file.found(keep) if file else None for name, file in names.items() if _reachable(name, names)}


def _apply(names: dict[str, File | None], call: Call, file: File | None) -> None:
    if call.op in "ru":
        names.pop(call.name, None)
    if call.op != "u":
        names[call.other or call.name] = file


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _reachable(name: str, names: dict[str, File | None]) -> bool:
    folder = _folder(name)
    return not folder or (folder in names and _reachable(folder, names))


def nothing() -> bool:
    """Nothing that was not synced had reached the disk."""
    return False


def everything() -> bool:
    """All of it had, as if the power had stayed."""
    return True


def some(random: Random) -> Keep:
    """Each piece by chance, at odds that are drawn for each cut."""
    odds = random.choice((0.1, 0.5, 0.9))
    return lambda: random.random() < odds


def put(found: dict[str, bytes | None], folder: Path) -> None:
    """As files that real code can open."""
    folder.mkdir(mode=0o700)
    for name, body in sorted(found.items()):
        path = folder / name
        if body is None:
            path.mkdir(mode=0o700)
        else:
            path.touch(mode=0o600)
            path.write_bytes(body)
