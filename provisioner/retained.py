"""The retained messages of a broker: how each machine stands, as one who subscribes today is told at once.

Rule 1: everything that decides what is retained is in this file, and it does nothing.
Rule 2: no clock. A sentence that ages by the second would be published by the second: times stand here as they were,
        and a machine is silent once it was noted to be (`vigil`), which is in the second after it is.
Rule 3: what was published is remembered, and only what differs is published; of ten changes meanwhile the last counts.
Rule 4: a machine that was forgotten has an empty message: that ends what is retained.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from provisioner.world import Facts, World

NOTHING = b""


@dataclass(frozen=True, slots=True)
class Topics:
    """Where messages go: 'bedplate/v1/…'."""

    prefix: str

    @property
    def provisioner(self) -> str:
        return f"{self.prefix}/v1/provisioner/state"

    def machine(self, machine_id: str) -> str:
        return f"{self.prefix}/v1/machines/{machine_id}/state"

    def event(self, kind: str, machine_id: str) -> str:
        """'bedplate/v1/events/m-4kq7zt2x/machine/problem/appeared'"""
        return f"{self.prefix}/v1/events/{machine_id or 'fleet'}/{kind.replace('.', '/')}"


def due(world: World, published: Mapping[str, bytes], after: int = 0) -> Iterator[tuple[str, bytes]]:
    """Machines whose message differs from the one that was published, among those that changed after a revision, in the
    order in which they changed. After a connection nothing is known of what the broker has: `published` is empty then.
    """
    for facts in sorted((one for one in world.machines.values() if one.revision > after), key=lambda one: one.revision):
        message = state(facts, world)
        if published.get(facts.id) != message:
            yield facts.id, message


def state(facts: Facts, world: World) -> bytes:
    """A machine's retained message: JSON, or nothing."""
    if facts.forgotten_at is not None:
        return NOTHING
    phase, because = _phase(facts, world)
    found: dict[str, Any] = {
        "machine_id": facts.id,
        "incarnation": facts.incarnation,
        "hostname": facts.hostname,
        "phase": phase,
        "because": because,
        "product": facts.product,
        "serial": facts.serial,
        "gpu_count": facts.gpu_count,
        "gpu_model": facts.gpu_model,
        "problem_count": facts.problem_count,
    }
    return msgspec.json.encode(found)


def provisioner_state(word: str, epoch: int, version: str, source: str) -> bytes:
    """'online' while it is connected, 'offline' from the broker as its last will."""
    return msgspec.json.encode({"state": word, "epoch": epoch, "version": version, "source": source})


def _phase(facts: Facts, world: World) -> tuple[str, str]:
    if facts.accepted_at is None:
        return "pending", f"waits for a person{f': {facts.waits_because}' if facts.waits_because else ''}"
    if world.connected(facts):
        return "present", f"its stream is open{f', from {facts.peer}' if facts.peer else ''}"
    if facts.last_heard_at is None:
        return "accepted", "let in, and not heard yet"
    why = f" ({facts.parted_because})" if facts.parted_because else ""
    ended = f"its stream ended at {Timestamp(seconds=int(facts.last_heard_at)).ToJsonString()}{why}"
    return ("silent", f"{ended}; nothing heard since") if facts.silent_noted else ("present", ended)
