"""What comes to be where a newcomer is let in, or put to wait: the facts, the events, the entry in the audit. Pure.

Rule 1: who writes is whoever holds the join token, from some address: more is not known of somebody who has no
        certificate yet.
Rule 2: the entry is made in the world in which the newcomer was looked at: what it says was there before it.
"""

from typing import Final

from bedplate.v1.enrolment_pb2 import Evidence
from provisioner.admission import Admit, Newcomer
from provisioner.audited import Write, audited
from provisioner.world import Accepted, Asked, Change, Noted, TokenUsed, World

ROLE: Final = "token"
METHOD: Final = "Enrol"


def arrival(newcomer: Newcomer, admission: Admit, world: World, now: float, silent_after_s: float) -> list[Change]:
    """Of one to whom this world has said that."""
    identity = Evidence.FromString(newcomer.evidence).identity
    name, hostname, because = admission.machine_id, identity.hostname, _because(admission)
    asked = Asked(
        machine_id=name,
        incarnation=admission.incarnation,
        key_sha256=newcomer.key_sha256,
        evidence=newcomer.evidence,
        hostname=hostname,
        product=identity.product,
        serial=identity.product_serial,
        token_id=newcomer.token_id,
        waits_because="" if admission.accepted else admission.because,
        at=now,
        again=name in world.machines and world.machines[name].forgotten_at is None,
    )
    changes: list[Change] = [
        asked,
        TokenUsed(newcomer.token_id, newcomer.key_sha256, name, now),
        Noted("machine.asked", name, hostname, because, f"machine {name}", now),
    ]
    if admission.accepted:
        changes.append(Accepted(name, now))
        changes.append(Noted("machine.accepted", name, hostname, admission.because, "provisioner", now))
    write = Write(newcomer.token_id, ROLE, METHOD, peer=newcomer.peer)
    changes.append(audited(write, world, changes, now, silent_after_s))
    return changes


def _because(admission: Admit) -> str:
    outcome = "was let in" if admission.accepted else f"waits for a person: {admission.because}"
    return f"it asked to enrol, incarnation {admission.incarnation}, and {outcome}"
