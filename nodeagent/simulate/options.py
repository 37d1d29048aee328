"""What a person asks of `nodeagent simulate`, checked."""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nodeagent import shipped
from nodeagent.schedule import KINDS, rate, rates

MAX_MACHINES = 10_000
MAX_PROCESSES = 64
A_PROCESS = 500  # machines: gRPC looks at all tasks of its process when a channel is closed
MOST_S = 3600.0
LOOK_S = 0.006  # of a processor, that a look takes: measured with ten thousand machines
EPILOG = """\
examples:
  nodeagent simulate --machines 8 --state DIR --join-token-file FILE
  nodeagent simulate --machines 2000 --processes 4 --state DIR --join-token-file FILE
  … --faults silence=0.5,reboot=0.2    each machine falls silent every other hour, and reboots every fifth
  … --faults all=1 --hour 600          every kind once an hour, and an hour lasts ten minutes
  … --churn 0.05                       in an hour one machine in twenty leaves, and a new one comes
  … --faults all=1 --plan 2            what would happen in the first two hours, as JSON lines; nothing runs

faults, with what one does to a machine and for how long:
"""


@dataclass(frozen=True, slots=True)
class Options:
    machines: int
    seed: int
    state: Path
    join_token: str
    join_token_file: str
    models: tuple[str, ...]
    tick_s: float
    once: bool
    rates: dict[str, float]
    hour_s: float
    processes: int
    share: tuple[int, int]  # the second of four: (2, 4)
    led: bool  # by another process
    plan_hours: float | None
    quiet: bool
    events: Path | None
    asked: bool  # only whether a join token is wanted

    @property
    def wants_token(self) -> bool:
        return self.plan_hours is None and not (self.join_token or self.join_token_file)

    def late(self, processors: int) -> str:
        """What is said beforehand where so many looks are more than the host can take; empty where they are not."""
        wanted = self.machines / self.tick_s * LOOK_S
        if wanted <= processors:
            return ""
        least = math.ceil(self.machines * LOOK_S / processors * 2)  # the provisioner wants something, too
        has = "1 processor" if processors == 1 else f"{processors} processors"
        return f"they want {wanted:.0f} processors, and this host has {has}: they will be late; try --tick {least}"

    @property
    def crowding(self) -> float:
        """How many times longer than a few machines so many take to say goodbye: their processes share the host's."""
        return max(1.0, self.processes / 4)

    @property
    def numbers(self) -> range:
        """Of the machines of this process: every so many-th, so that each has some of every model."""
        share, of = self.share
        return range(share, self.machines + 1, of)

    def name(self, number: int) -> str:
        return f"sim{self.seed}-{number:03}"


def options(argv: Sequence[str]) -> Options:
    """SystemExit with a line where something is wrong."""
    parser = _parser()
    given = parser.parse_args(argv)
    try:
        chosen = rates(given.faults, given.churn)
    except ValueError as error:
        parser.error(f"argument --faults: {error}")
    return Options(
        machines=given.machines,
        seed=given.seed,
        state=given.state,
        join_token=given.join_token,
        join_token_file=str(given.join_token_file or ""),
        models=tuple(given.models or shipped.names()),
        tick_s=given.tick,
        once=given.once,
        rates=chosen,
        hour_s=given.hour,
        processes=min(given.machines, given.processes or _processes(given.machines)),
        share=given.share or (1, 1),
        led=given.share is not None,
        plan_hours=given.plan,
        quiet=given.quiet,
        events=given.events,
        asked=given.wants_token,
    )


def shared(whole: Options, number: int) -> Options:
    """The part of the process of that number, from 1."""
    return replace(whole, share=(number, whole.processes))


def _processes(machines: int) -> int:
    return -(-machines // A_PROCESS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "nodeagent simulate",
        description="Agents of captured machines in disguise, over the real protocol, until Ctrl-C.",
        epilog=EPILOG + "\n".join(_kind(name) for name in KINDS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _machines(parser)
    _faults(parser)
    parser.add_argument(
        "--processes",
        type=_whole(MAX_PROCESSES),
        metavar="P",
        help="how many carry them (default: one for 500)",
    )
    parser.add_argument("--share", type=_share, help=argparse.SUPPRESS)
    parser.add_argument("--wants-token", action="store_true", help=argparse.SUPPRESS)
    return parser


def _kind(name: str) -> str:
    kind = KINDS[name]
    return f"  {name:8}  {kind.is_what} ({kind.least_s:g} to {kind.most_s:g} s)"


def _machines(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--machines", type=_whole(MAX_MACHINES), default=8, metavar="N", help="how many (default: 8)")
    add("--seed", type=int, default=1, metavar="S", help="who they are, and how they fare (default: 1)")
    token = parser.add_mutually_exclusive_group()
    token.add_argument("--join-token", default="", metavar="TOKEN", help="what `bedplate token create` printed")
    token.add_argument("--join-token-file", type=Path, metavar="FILE", help="a file that holds it, of mode 0600")
    add(
        "--state", type=Path, default=Path("simulated"), metavar="DIR", help="their keys; continues there (./simulated)"
    )
    add("--models", type=_models, metavar="A,B", help=f"of these only: {', '.join(shipped.names())}")
    add(
        "--tick",
        type=_number(0.01, MOST_S, "seconds"),
        default=10.0,
        metavar="SECONDS",
        help="between two looks (default: 10)",
    )
    add("--once", action="store_true", help="end as soon as all are connected and stored")


def _faults(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--faults", default="", metavar="KIND=RATE,…", help="RATE: how often in an hour, for each machine; see below")
    add(
        "--churn",
        type=_rate,
        default=0.0,
        metavar="RATE",
        help="how often in an hour each machine leaves for good, and a new one takes its place",
    )
    add(
        "--hour",
        type=_number(1.0, 86400.0, "seconds"),
        default=3600.0,
        metavar="SECONDS",
        help="how long an hour of the schedule lasts (default: 3600)",
    )
    add(
        "--plan",
        type=_number(0.0, 1000.0, "hours"),
        metavar="HOURS",
        help="print the schedule of so many hours, and end",
    )
    add("--quiet", action="store_true", help="do not tell each fault")
    add("--events", type=Path, metavar="FILE", help="append each fault to this file, as a JSON line")


def _whole(most: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be 1 to {most}")
        return int(text)

    return whole


def _number(least: float, most: float, unit: str) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be {least:g} to {most:g} {unit}")
        return value

    return number


def _rate(text: str) -> float:
    try:
        return rate(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _share(text: str) -> Any:
    return tuple(map(int, text.split("/")))


def _models(text: str) -> list[str]:
    unknown = set(text.split(",")) - set(shipped.names())
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no captured machine {', '.join(sorted(unknown))}; there are {', '.join(shipped.names())}"
        )
    return text.split(",")
