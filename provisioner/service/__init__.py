"""bedplate.v1.Fleet, for people and tools: the edge that translates, and decides nothing that is not said here.

Rule 1: answers are read off one world; nobody waits for the store but for bodies and histories.
Rule 2: a write leaves its effect and its answer in one transaction: the same request id gets the same bytes again.
Rule 3: a watch keeps a place and no queue: a slow reader gets the newest state late, and costs no memory.
"""

from provisioner.service.ledger import Ledger
from provisioner.service.servicer import FleetServicer

__all__ = ["FleetServicer", "Ledger"]
