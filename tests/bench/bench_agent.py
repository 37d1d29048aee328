"""What the agent costs a machine that has better things to do: processor, memory, and the time until it sees anything.

Measured on the real programs: a provisioner and the agent of this host, connected over mTLS, on a 10 s tick. Beside it,
where Debian's prometheus-node-exporter is installed, that one, scraped every 10 s, over the same time.
"""

import contextlib
import os
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from threading import Event

from tests.running import agent, free_ports, site

WATCH_S = float(os.environ.get("BENCH_SECONDS", "60"))
TICK_S = 10.0
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAUSE = Event()


def figures() -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = site(folder)
        with place.run() as provisioner:
            provisioner.wait_for("READY=1")
            token = place.token("--uses", "1")
            first_s = statistics.median(_first_snapshot(folder / f"start-{number}") for number in range(5))
            with agent(folder / "agent", token, tick_s=TICK_S) as program, _exporter() as exporter:
                program.wait_for("STATUS=connected to")
                PAUSE.wait(5)  # the enrolment is over, and what was needed for it is gone
                processor, beside = _over(WATCH_S, program.pid, exporter)
                memory = sum(_pss_mib(pid) for pid in _family(program.pid))
    measured = [
        ("agent, idle on a 10 s tick, connected: processor", 100 * processor, "% of a core", 0.2),
        ("agent: memory (PSS), all its processes", memory, "MiB", 60.0),
        ("agent: start to first snapshot", first_s, "s", 1.5),
    ]
    found = [{"name": n, "value": v, "unit": u, "aim": a, "ok": v <= a} for n, v, u, a in measured]
    if beside is not None:
        peer = "peer: prometheus-node-exporter, scraped every 10 s: processor"
        found.append({"name": peer, "value": 100 * beside, "unit": "% of a core", "aim": None, "ok": None})
    return found


def _first_snapshot(folder: Path) -> float:
    """Seconds from exec to READY, which is told after the first snapshot."""
    begin = time.perf_counter()
    with agent(folder, None) as program:
        program.wait_for("READY=1")
        return time.perf_counter() - begin


def _over(seconds: float, pid: int, exporter: tuple[int, str] | None) -> tuple[float, float | None]:
    """Shares of a core that the agent and the exporter took."""
    before = _seconds(pid)
    beside = _seconds(exporter[0]) if exporter else 0.0
    begin = time.perf_counter()
    while (gone := time.perf_counter() - begin) < seconds:
        PAUSE.wait(min(TICK_S, seconds - gone))
        if exporter:
            urllib.request.urlopen(exporter[1], timeout=5).read()  # noqa: S310 - our own, on loopback
    span = time.perf_counter() - begin
    other = (_seconds(exporter[0]) - beside) / span if exporter else None
    return (_seconds(pid) - before) / span, other


def _family(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += _family(int(child))
    return found


def _seconds(pid: int) -> float:
    """Processor time of the process, its children, and those that it has waited for."""
    total = 0.0
    for one in _family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += sum(int(value) for value in fields[11:15]) / CLOCK_TICKS
    return total


def _pss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


@contextlib.contextmanager
def _exporter() -> Iterator[tuple[int, str] | None]:
    program = shutil.which("prometheus-node-exporter")
    if program is None:
        yield None
        return
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [program, f"--web.listen-address=127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}/metrics"
        for _ in range(100):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(url, timeout=1).read()
                break
            PAUSE.wait(0.1)
        yield process.pid, url
    finally:
        process.terminate()
        process.wait()
