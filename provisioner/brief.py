"""One machine, or one join token, in brief: from facts to the messages that people and tools get. Pure; the phase is
computed here, whenever somebody asks.
"""

from google.protobuf.timestamp_pb2 import Timestamp

from bedplate.v1 import fleet_pb2
from provisioner.facts import machine_of
from provisioner.phase import phase
from provisioner.world import Facts, TokenFacts, World

NANOS = 1_000_000_000


def moment(seconds: float | None) -> Timestamp | None:
    if seconds is None:
        return None
    whole, nanos = divmod(round(seconds * NANOS), NANOS)
    return Timestamp(seconds=whole, nanos=nanos)


def machine(facts: Facts, world: World, now: float, silent_after_s: float) -> fleet_pb2.Machine:
    word, because = phase(facts, world, now, silent_after_s)
    return fleet_pb2.Machine(
        machine_id=facts.id,
        incarnation=facts.incarnation,
        hostname=facts.hostname,
        phase=word,
        because=because,
        product=facts.product,
        serial=facts.serial,
        gpu_count=facts.gpu_count,
        gpu_model=facts.gpu_model,
        rdma_count=facts.rdma_count,
        os=facts.os,
        kernel=facts.kernel,
        agent_version=facts.agent_version,
        problem_count=facts.problem_count,
        asked_at=moment(facts.asked_at),
        accepted_at=moment(facts.accepted_at),
        last_heard_at=moment(now if world.connected(facts) else facts.last_heard_at),
        revision=facts.revision,
        inventory_digest=facts.inventory_digest,
        peer=facts.peer,
        clock_skew_s=facts.clock_skew_s,
    )


def token(facts: TokenFacts) -> fleet_pb2.Token:
    return fleet_pb2.Token(
        token_id=facts.id,
        created_at=moment(facts.created_at),
        expires_at=moment(facts.expires_at),
        uses_allowed=facts.uses_allowed,
        uses=len(facts.used_by),
        review=facts.review,
        revoked_at=moment(facts.revoked_at),
        created_by=facts.created_by,
        machine_id=machine_of(facts.id),
    )
