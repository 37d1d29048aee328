"""The store: what survives a power cut. Facts come in as changes, in batches; bodies go out by key.

Rule 1: callers meet `Store` and the rows here, and no SQL: another database changes nothing for them.
Rule 2: what `write` has returned for is durable, and the world that is loaded is the one that the changes made.
"""

from provisioner.store.errors import ChangeError, MeanwhileError, StoreError, UnknownInventoryError
from provisioner.store.rows import Answer, Event, Policy, Pruned, Seen, Sink, VitalsRow
from provisioner.store.store import Store

__all__ = [
    "Answer",
    "ChangeError",
    "Event",
    "MeanwhileError",
    "Policy",
    "Pruned",
    "Seen",
    "Sink",
    "Store",
    "StoreError",
    "UnknownInventoryError",
    "VitalsRow",
]
