"""What a plan comes to: nothing to do, wait, or steps; each with the one sentence that says why.

Rule 1: every decision carries its sentence, and the same sentence reaches the log, the API and the terminal.
Rule 2: a plan lists all that is still ahead; only its first step is taken before the world is observed afresh.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Generic, Protocol, TypeVar


class Cost(IntEnum):
    """What a step disturbs, cheapest first."""

    NOTHING = 0
    A_GPU = 1
    THE_HOST = 2
    THE_DATA = 3


Door_contra = TypeVar("Door_contra", contravariant=True)


class Step(Protocol[Door_contra]):
    """One thing to do, as data that also knows how."""

    cost: ClassVar[Cost]

    async def take(self, door: Door_contra, /) -> None: ...


S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Settled:
    because: str


@dataclass(frozen=True, slots=True)
class Wait:
    because: str


@dataclass(frozen=True, slots=True)
class Todo(Generic[S]):
    steps: tuple[S, ...]
    because: str


Decision = Settled | Wait | Todo[S]
