"""Get a younger certificate while there is a good one."""

from dataclasses import dataclass
from typing import ClassVar

from nodeagent.decision import Cost
from nodeagent.steps import IdentityDoor


@dataclass(frozen=True, slots=True)
class Renew:
    cost: ClassVar[Cost] = Cost.NOTHING

    async def take(self, door: IdentityDoor, /) -> None:
        await door.renew()
