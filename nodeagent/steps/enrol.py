"""Ask the provisioner to let this machine in."""

from dataclasses import dataclass
from typing import ClassVar

from nodeagent.decision import Cost
from nodeagent.steps import IdentityDoor


@dataclass(frozen=True, slots=True)
class Enrol:
    cost: ClassVar[Cost] = Cost.NOTHING

    async def take(self, door: IdentityDoor, /) -> None:
        await door.enrol()
