"""What a process of the simulation tells: to the terminal itself, or to the process that leads it, as JSON lines."""

import msgspec


class Status(msgspec.Struct, tag="status", frozen=True):
    machines: int = 0
    enrolled: int = 0
    connected: int = 0
    settled: int = 0
    tried: int = 0  # connected, or told why not
    why: str = ""  # the first that is not connected: 'sim1-003: cannot reach …'


class Happened(msgspec.Struct, tag="happened", frozen=True):
    at_s: float  # of the schedule
    machine: str
    fault: str
    for_s: float
    says: str


class Ended(msgspec.Struct, tag="ended", frozen=True):
    goodbyes: int


class Failed(msgspec.Struct, tag="failed", frozen=True):
    error: str


Told = Status | Happened | Ended | Failed
