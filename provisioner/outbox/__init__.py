"""The outbox: takes events out of the store to whoever is configured to get them, at least once and in order.

Rule 1: the table of events is the outbox. A sink has a place in it, which moves only after the sink has confirmed.
Rule 2: each sink is a task of its own. One that is away, slow or refuses holds up no other, and no writer.
Rule 3: memory is bounded by the batch, not by the outage.
Rule 4: nothing is passed over: what a sink refuses is tried again until it is taken, and `bedplate status` says so.
"""

from provisioner.outbox.feed import Feed, Standing
from provisioner.outbox.outbox import Outbox, Sink
from provisioner.outbox.sinks import configured

__all__ = ["Feed", "Outbox", "Sink", "Standing", "configured"]
