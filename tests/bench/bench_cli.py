"""How long a person waits for the command line: from the start of the process to its last line.

Measured on the real programs: a provisioner whose store knows 2,000 machines, asked over mTLS.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from provisioner.store import Store
from provisioner.world import Accepted, Asked, Change, InventoryKept
from tests.running import BIN, Site, site

MACHINES = 2000
RUNS = 9


def figures() -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory() as name:
        place = site(Path(name))
        _fill(place)
        with place.run() as provisioner:
            provisioner.wait_for("READY=1")
            told = place.bedplate("machines").stdout.splitlines()
            assert told[-1].startswith(f"{MACHINES:,} machines"), told[-1]
            listed_s = _median(place, "machines")
            filtered_s = _median(place, "machines", "--filter", "gpus>=8 hostname~rack1", "-o", "json")
        help_s = _median(place, "--help")
    bare_s = _median(place, "-c", "pass", program=sys.executable)
    measured: list[tuple[str, float, float | None]] = [
        ("bedplate --help", help_s, 0.2),
        (f"bedplate machines over {MACHINES:,} machines", listed_s, 0.6),
        (f"bedplate machines --filter … -o json over {MACHINES:,} machines", filtered_s, None),
        ("beside it: the interpreter alone", bare_s, None),
    ]
    return [
        {"name": n, "value": round(v, 3), "unit": "s", "aim": a, "ok": None if a is None else v <= a}
        for n, v, a in measured
    ]


def _median(place: Site, *arguments: str, program: str = str(BIN / "bedplate")) -> float:
    environment = {**os.environ, "XDG_CONFIG_HOME": str(place.folder / "xdg")}
    taken = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        subprocess.run([program, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment)
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def _fill(place: Site) -> None:
    store = Store.open(place.folder / "provisioner/bedplate.db")
    try:
        store.begin_epoch()
        store.write(list(_changes(time.time())))
    finally:
        store.close()


def _changes(now: float) -> Iterator[Change]:
    """Machines that were heard a while ago: so that each has a sentence that is worth reading."""
    for number in range(MACHINES):
        name, digest = f"m-{number:08d}", number.to_bytes(32, "big")
        yield Asked(
            machine_id=name,
            incarnation=1,
            key_sha256=digest,
            evidence=b"",
            hostname=f"gpu-{number:04}.rack{number // 8}",
            product="NVIDIA DGX H100",
            serial=f"{number:013}",
            token_id="t-1",
            waits_because="",
            at=now - 7200,
        )
        yield Accepted(machine_id=name, at=now - 7200)
        yield InventoryKept(
            machine_id=name,
            digest=digest,
            body=b"",
            hostname=f"gpu-{number:04}.rack{number // 8}",
            product="NVIDIA DGX H100",
            serial=f"{number:013}",
            gpu_count=8,
            gpu_model="NVIDIA H100 80GB HBM3",
            rdma_count=12,
            os="Ubuntu 24.04.2 LTS",
            kernel="6.8.0-60-generic",
            at=now - 3600,
        )
