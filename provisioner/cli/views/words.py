"""Small words that several views share: ages, sizes, speeds, phases.

Nothing here reads a clock: `now` is seconds since 1970, as the caller's clock had it.
"""

import math
from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from bedplate.v1.fleet_pb2 import Phase

PHASES: Mapping[int, tuple[str, str]] = {
    Phase.PHASE_PENDING: ("pending", "yellow"),
    Phase.PHASE_ACCEPTED: ("accepted", "cyan"),
    Phase.PHASE_PRESENT: ("present", "green"),
    Phase.PHASE_SILENT: ("silent", "red"),
}
PHASE_NAMES = tuple(name for name, _ in PHASES.values())

MINUTE, HOUR, DAY = 60, 3600, 86400
A_MOMENT_S = 5
TWO = 2


def phase(value: int) -> tuple[str, str]:
    """Name and colour. None is that of a machine that is no more; one that is not known here yet is a number."""
    return PHASES.get(value, (f"phase {value}", "")) if value else ("forgotten", "dim")


def seconds(stamp: Timestamp) -> float:
    return stamp.seconds + stamp.nanos / 1e9


def span(duration_s: float) -> str:
    """8100 -> '2h', 95 -> '95s': the largest unit of which there are two. '?' for what is no duration."""
    if not math.isfinite(duration_s):
        return "?"
    for unit_s, letter in ((DAY, "d"), (HOUR, "h"), (MINUTE, "m")):
        if duration_s >= TWO * unit_s:
            return f"{int(duration_s // unit_s)}{letter}"
    return f"{int(max(duration_s, 0))}s"


def ago(stamp: Timestamp, now: float) -> str:
    """'now', '95s ago', '3d ago'. A clock that lags behind the provisioner's says 'now' too."""
    age = now - seconds(stamp)
    return "now" if age < A_MOMENT_S else f"{span(age)} ago"


def ahead(stamp: Timestamp, now: float) -> str:
    """'in 55m', or how long ago it was."""
    left = seconds(stamp) - now
    # To the nearer minute: an hour that began a second ago is not 59 minutes.
    return f"in {span(left + MINUTE / 2 if left > TWO * MINUTE else left)}" if left > 0 else ago(stamp, now)


def instant(stamp: Timestamp) -> str:
    """'2026-11-23 11:47:04Z'; '- -' for one that is beyond all years."""
    try:
        return stamp.ToJsonString().partition(".")[0].removesuffix("Z").replace("T", " ") + "Z"
    except ValueError:
        return "- -"


def clock(stamp: Timestamp) -> str:
    """'11:47:04Z'"""
    return instant(stamp).partition(" ")[2]


def binary(size: int) -> str:
    """2164663517184 -> '2.0 TiB', 17179869184 -> '16 GiB': memory."""
    return _scaled(float(size), 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"))


def decimal(size: int) -> str:
    """1920383410176 -> '1.9 TB': disks, as they are sold."""
    return _scaled(float(size), 1000, ("B", "kB", "MB", "GB", "TB", "PB"))


def _scaled(size: float, step: int, units: tuple[str, ...]) -> str:
    power = 0
    while size >= step * 0.9995 and power < len(units) - 1:
        size, power = size / step, power + 1
    short = size < 10 and power  # noqa: PLR2004 - one digit before the point wants one behind it
    return f"{size:.1f} {units[power]}" if short else f"{size:.0f} {units[power]}"


def speed(gigabits: float) -> str:
    """400 -> '400 Gb/s', 0.1 -> '100 Mb/s'"""
    return f"{gigabits:g} Gb/s" if gigabits >= 1 else f"{gigabits * 1000:g} Mb/s"


def count(number: int, one: str, many: str = "") -> str:
    """1, 'machine' -> '1 machine'; 1234 -> '1,234 machines'"""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def model(name: str) -> str:
    """'NVIDIA H100 80GB HBM3' -> 'H100 80GB HBM3': in a narrow column the vendor goes without saying."""
    return name.removeprefix("NVIDIA ")
