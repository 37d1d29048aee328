"""The door to the machine: its files, and the few questions that no file answers.

Rule 1: a probe sees a machine only through a Host, so that a captured machine answers like a live one.
Rule 2: an answer is plain data as JSON has it, in these shapes; a key that is not known is left out or null:

    uname        {"hostname", "kernel", "architecture"}
    cpu          {"cores", "threads"}
    memory       {"total_bytes", "available_bytes"}
    boot         {"booted_at_s"}
    filesystems  [{"mount", "device", "type", "read_only", "size_bytes", "free_bytes"}], those on disks
    links        [{"name", "index", "kind", "mac", "permanent_mac", "mtu", "controller", "addresses": ["10.0.0.2/24"],
                   "default_route"}], as rtnetlink has them
    nvml         what the NVML worker says

Rule 3: nobody behind a door is an answer too: `Unanswered`, with why.
Rule 4: what a library costs in memory is paid by those who ask: the doors import when they are used.
"""

import errno
import json
import os
import re
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from nodeagent.errors import BedplateError, Unanswered
from nodeagent.root import Root

Door = Callable[[], Any]

FORMAT = 1
MANIFEST = "capture.json"
MAX_BYTES = 16 << 20  # of an answer of a captured machine
MOUNT_POINT = 4  # the field of mountinfo, counted from 0
CODES = {name: code for code, name in errno.errorcode.items()}


@dataclass(frozen=True, slots=True)
class Host:
    """One machine, live or captured."""

    root: Root
    ask: Callable[[str], Any]
    clock_ns: Callable[[], int]  # since 1970, by the machine's own clock

    def view(self) -> "Host":
        """The same machine for one probe: what it could not read is noted for it alone."""
        return replace(self, root=self.root.view())


def live(doors: Mapping[str, Door] | None = None, *, root: Root | None = None) -> Host:
    """The host that we run on. `doors` adds to the standard ones or replaces them: an NVML worker comes in here."""
    table = {**DOORS, **(doors or {})}

    def ask(name: str) -> Any:
        if name not in table:
            raise Unanswered("ABSENT", f"cannot ask {name}: this agent has no such door")
        return table[name]()

    return Host(root or Root(), ask, time.time_ns)


def replayed(folder: Path) -> Host:
    """The machine that `nodeagent capture` wrote into this folder."""
    manifest = _manifest(folder)
    refused = {path: CODES.get(name, errno.EIO) for path, name in manifest.get("refused", {}).items()}
    taken_at = Timestamp()
    try:
        taken_at.FromJsonString(manifest["taken_at"])
    except (KeyError, TypeError, ValueError) as error:
        raise BedplateError(f"cannot read capture {folder}: {MANIFEST} has no usable taken_at: {error}") from error
    at_ns = taken_at.ToNanoseconds()
    return Host(Root(folder, refused=refused), lambda name: _recorded_answer(folder, name), lambda: at_ns)


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(_content(folder / MANIFEST))
    except FileNotFoundError as error:
        cause = f"it has no {MANIFEST}; make one with nodeagent capture DIR"
        raise BedplateError(f"cannot read capture {folder}: {cause}") from error
    except NotADirectoryError as error:
        raise BedplateError(f"cannot read capture {folder}: it is not a folder") from error
    except OSError as error:
        raise BedplateError(f"cannot read capture {folder}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BedplateError(f"cannot read capture {folder}: {MANIFEST} is not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BedplateError(f"cannot read capture {folder}: {MANIFEST} is not of format {FORMAT}")
    refused = manifest.get("refused", {})
    if not isinstance(refused, dict) or not all(isinstance(name, str) for name in refused.values()):
        raise BedplateError(f"cannot read capture {folder}: refused in {MANIFEST} does not say which file, and why")
    return manifest


def _content(path: Path) -> bytes:
    """A capture may be from anybody: what is no file, leads elsewhere or has no end is an OSError."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {MAX_BYTES >> 20} MiB")
    return content


def _recorded_answer(folder: Path, name: str) -> Any:
    try:
        answer = json.loads(_content(folder / "answers" / f"{name}.json"))
    except FileNotFoundError:
        raise Unanswered("ABSENT", f"cannot ask {name}: the capture has no answer to it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Unanswered("FAILED", f"cannot ask {name}: the capture's answer is unusable: {error}") from error
    match answer:
        case {"unanswered": {"kind": str(kind), "detail": str(detail)}}:
            raise Unanswered(kind, detail)
        case _:
            return answer


def _uname() -> dict[str, Any]:
    name = os.uname()
    return {"hostname": name.nodename, "kernel": name.release, "architecture": name.machine}


def _cpu() -> dict[str, Any]:
    import psutil  # noqa: PLC0415 - rule 4

    return {"cores": psutil.cpu_count(logical=False), "threads": psutil.cpu_count()}


def _memory() -> dict[str, Any]:
    import psutil  # noqa: PLC0415 - rule 4

    memory = psutil.virtual_memory()
    return {"total_bytes": memory.total, "available_bytes": memory.available}


def _boot() -> dict[str, Any]:
    """Out of two clocks, not out of /proc/stat, which takes the kernel milliseconds on a machine of many processors."""
    return {"booted_at_s": round(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))}


def _filesystems() -> list[dict[str, Any]]:
    import psutil  # noqa: PLC0415 - rule 4

    found = []
    frozen = read_only_disks(Path("/proc/self/mountinfo").read_bytes())
    for mount in psutil.disk_partitions(all=False):
        try:
            size = os.statvfs(mount.mountpoint)
        except OSError:
            continue  # unmounted meanwhile, or not for us
        found.append(
            {
                "mount": mount.mountpoint,
                "device": mount.device,
                "type": mount.fstype,
                "read_only": mount.mountpoint in frozen,
                "size_bytes": size.f_blocks * size.f_frsize,
                "free_bytes": size.f_bavail * size.f_frsize,
            }
        )
    return found


def read_only_disks(mountinfo: bytes) -> frozenset[str]:
    """Mount points whose file system itself is read-only. That a mount of it is says nothing: a service manager shows
    its services a read-only view of a healthy disk. Source: proc(5), mountinfo: the last field is the superblock's.

    Whoever may mount may name the place: of blanks the kernel escapes the space, the tab and the end of a line alone.
    """
    fields = [line.split(b" ") for line in mountinfo.split(b"\n")]
    return frozenset(
        os.fsdecode(_unescaped(each[MOUNT_POINT]))
        for each in fields
        if len(each) > MOUNT_POINT and b"ro" in each[-1].split(b",")
    )


def _unescaped(path: bytes) -> bytes:
    r"""b'/mnt/a\040b' -> b'/mnt/a b'"""
    return re.sub(rb"\\([0-3][0-7]{2})", lambda octal: bytes([int(octal[1], 8)]), path)


def _links() -> list[dict[str, Any]]:
    from nodeagent.rtnetlink import links  # noqa: PLC0415 - rule 4: 24 MiB

    return links()


DOORS: Mapping[str, Door] = {
    "boot": _boot,
    "cpu": _cpu,
    "filesystems": _filesystems,
    "links": _links,
    "memory": _memory,
    "uname": _uname,
}
