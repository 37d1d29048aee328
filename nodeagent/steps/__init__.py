"""What the agent can do to this machine: one file a step, and each is data that also knows how.

Rule: a step takes its door as an argument and nothing else; the door is a Protocol here, and the agent supplies it.
"""

from typing import Protocol


class IdentityDoor(Protocol):
    """The way to this machine's certificate. BedplateError where it did not come."""

    async def enrol(self) -> None:
        """Ask to be let in, with the join token. Afterwards there is an identity, or the word to wait."""

    async def renew(self) -> None:
        """Get a younger certificate with the one that there is."""
