"""Faults by schedule: what befalls which simulated machine, when and for how long.

Rule 1: the same seed and rates give the same faults, whatever the clock, the load and the number of processes: each
        machine has a generator of its own.
Rule 2: a machine has one fault at a time. A rate says how often in an hour, while the machine is well.
Rule 3: no clock and no hands. Seconds count from when the schedule begins.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from random import Random

HOUR_S = 3600.0
MOST = 3600.0  # an hour: one a second
CHURN = "leave"
ALL = "all"
Rates = Mapping[str, float]  # kind -> times an hour, for each machine


@dataclass(frozen=True, slots=True)
class Kind:
    is_what: str  # for whoever chooses
    least_s: float  # how long it lasts, at least and at most
    most_s: float
    newcomer: bool = False  # somebody enrols: it takes a join token


KINDS: Mapping[str, Kind] = {
    "silence": Kind("its cable is out: the stream breaks without a goodbye, and nothing is heard", 60, 600),
    "mute": Kind("its connection stands, and nothing comes through: half-open", 60, 300),
    "flap": Kind("its link drops for a moment, two to six times", 10, 60),
    "reboot": Kind("the agent says goodbye and comes back with another boot id", 45, 300),
    "reimage": Kind("key and name are gone, the hardware is the same; it asks to enrol again", 120, 600, newcomer=True),
    "clone": Kind("its disk runs in a second machine as well: two with one key", 60, 600),
    "twin": Kind(
        "another machine comes up from its image: the same machine-id, a key of its own", 300, 1800, newcomer=True
    ),
    "skew": Kind("its clock is hours wrong", 300, 1800),
    "swap": Kind("powered off for a part: another NIC, GPU or mainboard", 120, 600),
    "problem": Kind("a probe has no answer, then has one again", 60, 900),
    "flicker": Kind("a probe's answer comes and goes, six times", 30, 120),
}
LEAVE = Kind("it says goodbye for good, and a new machine takes its place", 60, 600, newcomer=True)


@dataclass(frozen=True, slots=True)
class Fault:
    at_s: float
    machine: int  # its number, from 1
    kind: str
    for_s: float
    roll: int  # decides what the kind leaves open: which part, how far

    @property
    def over_s(self) -> float:
        return self.at_s + self.for_s


def rates(text: str, churn: float = 0.0) -> dict[str, float]:
    """'silence=0.5,flap=2' -> {'silence': 0.5, 'flap': 2.0}; ValueError says what is wrong with it."""
    found: dict[str, float] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = word.partition("=")
        if name not in KINDS and name != ALL:
            raise ValueError(f"no fault {name!r}; there are {', '.join(KINDS)}, and {ALL}")
        for kind in KINDS if name == ALL else (name,):
            found[kind] = rate(number, f"{name}: ")
    return {kind: often for kind, often in {**found, CHURN: churn}.items() if often}


def rate(text: str, what: str = "") -> float:
    """'0.5' -> 0.5 times an hour; ValueError where it is not a number of times."""
    try:
        often = float(text)
    except ValueError:
        often = -1.0
    if not 0 <= often <= MOST:
        raise ValueError(f"{what}must be how often in an hour, for each machine: a number from 0 to {MOST:g}")
    return often


def newcomers(chosen: Rates) -> list[str]:
    """Those of the chosen that take a join token."""
    return [kind for kind in chosen if kind_of(kind).newcomer]


def kind_of(name: str) -> Kind:
    return LEAVE if name == CHURN else KINDS[name]


def course(seed: int, machine: int, chosen: Rates) -> Iterator[Fault]:
    """What befalls one machine, without an end."""
    if not chosen:
        return
    random = Random(f"{seed}/{machine}/faults")  # noqa: S311 - a simulation
    names, weights = list(chosen), list(chosen.values())
    at_s = 0.0
    while True:
        at_s = round(at_s + random.expovariate(sum(weights) / HOUR_S), 3)
        name = random.choices(names, weights)[0]
        kind = kind_of(name)
        fault = Fault(at_s, machine, name, round(random.uniform(kind.least_s, kind.most_s), 3), random.getrandbits(32))
        yield fault
        at_s = fault.over_s


def timeline(seed: int, machines: Iterable[int], chosen: Rates, until_s: float) -> Iterator[Fault]:
    """What befalls all of them, in order."""
    courses = [course(seed, machine, chosen) for machine in machines]
    for fault in heapq.merge(*courses, key=lambda fault: (fault.at_s, fault.machine)):
        if fault.at_s > until_s:
            return
        yield fault
