"""Runs the benchmarks and says how far each figure is from its aim: `make bench`, or `python -m tests.bench NAME…`.

Rule 1: the folder is the registry: each `bench_*.py` has `figures()`, a list of {name, value, unit, aim, ok}. An aim is
        a bound, of which `ok` says whether it is kept, or None where the figure only stands beside another.
Rule 2: the table shows ratios, for seconds mean nothing without the machine; build/bench.json has both, and its name.
Rule 3: an aim that is missed is said, and exit status 1 says it too; what could not be measured is said as well.
"""

import importlib
import json
import os
import platform
import sys
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULT = HERE.parent.parent / "build/bench.json"
Figure = dict[str, object]


def main(wanted: list[str]) -> int:
    names = [path.stem for path in sorted(HERE.glob("bench_*.py"))]
    found: list[Figure] = []
    broken = 0
    for name in names:
        if wanted and name.removeprefix("bench_") not in wanted:
            continue
        print(f"{name.removeprefix('bench_')} …", file=sys.stderr, flush=True)
        try:
            found += importlib.import_module(f"tests.bench.{name}").figures()
        except Exception:  # noqa: BLE001 - one benchmark that breaks does not take the others along
            traceback.print_exc()
            broken += 1
    machine = f"{platform.node()}, {os.cpu_count()} x {_processor()}"
    print(f"\n{machine}\n")
    print("\n".join(_row(figure) for figure in found))
    _write([{**figure, "machine": machine} for figure in found])
    missed = sum(figure["ok"] is False for figure in found)
    print(f"\n{len(found)} figures, {missed} off their aim, {broken} benchmarks broken; {os.path.relpath(RESULT)}")
    return 1 if missed or broken else 0


def _row(figure: Figure) -> str:
    value, aim, unit = figure["value"], figure["aim"], figure["unit"]
    beside = f"{value / aim:5.2f} of {aim:g}" if isinstance(aim, int | float) and aim else "    -"
    verdict = {True: "ok", False: "MISSED", None: ""}[figure["ok"]]
    return f"{figure['name']:<70} {value:10.3g} {unit:<12} {beside:<14} {verdict}".rstrip()


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _write(figures: list[Figure]) -> None:
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
