"""What a scan takes: all of a captured 8-GPU machine from its folder, and a tick on this host that sees nothing new.

Also a program of its own: `python tests/bench/bench_scan.py`.
"""

import statistics
import time
from pathlib import Path

from nodeagent.host import live, replayed
from nodeagent.observe import Observer, scan

MACHINE = Path(__file__).parent.parent / "machines/h100"
SCANS = 15
TICKS = 30
TICK_S = 10.0


def figures() -> list[dict[str, object]]:
    return [
        _figure("full scan of a captured 8-GPU, 12-HCA, 200-PCI-device machine", _scan_ms(), aim=150),
        _figure("CPU of a tick's probes on this host, nothing new", _tick_cpu_ms(), aim=10),
    ]


def _figure(name: str, value: float, aim: float) -> dict[str, object]:
    return {"name": name, "value": round(value, 2), "unit": "ms", "aim": aim, "ok": value <= aim}


def _scan_ms() -> float:
    """The median, each time through a new root: nothing is remembered from the one before but the kernel's cache."""
    scan(replayed(MACHINE))
    return 1000 * statistics.median(_seconds_of_a_scan() for _ in range(SCANS))


def _seconds_of_a_scan() -> float:
    began = time.perf_counter()
    scan(replayed(MACHINE))
    return time.perf_counter() - began


def _tick_cpu_ms() -> float:
    """Over five minutes of ticks, so that probes of a slower beat have their share."""
    observer = Observer(live())
    observer.observe(0.0)
    began = time.process_time()
    for tick in range(1, TICKS + 1):
        observer.observe(tick * TICK_S)
    return 1000 * (time.process_time() - began) / TICKS


if __name__ == "__main__":
    for figure in figures():
        print(figure)
