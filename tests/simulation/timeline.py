"""Virtual time: what is to happen, in its order, and a log of what did."""

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random

START = 1_800_000_000.0
Line = tuple[float, tuple[object, ...]]


class Timeline:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311 - a simulation
        self.now = START
        self.log: list[Line] = []
        self.happened = 0
        self._ahead: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._count = 0

    def after(self, seconds: float, action: Callable[..., None], *arguments: object) -> None:
        self._count += 1
        heappush(self._ahead, (self.now + seconds, self._count, action, arguments))

    def at(self, moment: float, action: Callable[..., None], *arguments: object) -> None:
        """Not in the past."""
        self._count += 1
        heappush(self._ahead, (moment, self._count, action, arguments))

    def run_until(self, moment: float) -> None:
        ahead, count = self._ahead, 0
        try:
            while ahead and ahead[0][0] <= moment:
                self.now, _, action, arguments = heappop(ahead)
                count += 1
                action(*arguments)
        finally:
            self.happened += count
        self.now = moment

    def say(self, *words: object) -> None:
        self.log.append((self.now, words))

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def between(self, least: float, most: float) -> float:
        return least + (most - least) * self.random.random()

    def text(self) -> list[str]:
        """'  12.345 box-2 delta 7'"""
        return [f"{at - START:9.3f} {' '.join(map(str, words))}" for at, words in self.log]
