"""What people change: pure. Each function reads the world and says the answer, and the changes that make it true.

Rule 1: what is so already is a success without effect: asked twice is asked once.
Rule 2: every effect leaves an event that says who did it.
Rule 3: who comes first keeps its identity: a machine whose evidence is an enrolled one's is not let in beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from bedplate.v1 import fleet_pb2 as pb
from provisioner import tokens
from provisioner.access import Caller
from provisioner.admission import Newcomer, admit
from provisioner.service import messages
from provisioner.service.ledger import Ledger
from provisioner.service.refusals import invalid, not_found, precondition
from provisioner.world import (
    Accepted,
    Change,
    Facts,
    Forgotten,
    Noted,
    TokenFacts,
    TokenMade,
    TokenRevoked,
    World,
    machine_after,
)

HOUR_S, TTL_MOST_S = 3600.0, 90 * 86400.0
MOST_USES = 1_000_000

Clash = Callable[[Facts, World], str]  # why this machine may not be let in; empty where it may


def clash(facts: Facts, world: World) -> str:
    """Why this machine may not be let in: what it showed is an enrolled machine's. Empty where it may."""
    others = {key: other for key, other in world.machines.items() if key != facts.id and other.accepted_at is not None}
    enrolled = {key: other for key, other in others.items() if other.forgotten_at is None}
    newcomer = Newcomer(facts.key_sha256, facts.evidence, "", review=False)
    verdict = admit(newcomer, replace(world, machines=enrolled), facts.id)
    return "" if verdict.accepted else verdict.because


def accept(
    ledger: Ledger, who: Caller, facts: Facts, clashes: Clash
) -> tuple[pb.AcceptMachineResponse, Sequence[Change]]:
    if facts.accepted_at is not None:
        return pb.AcceptMachineResponse(machine=messages.machine(facts, ledger)), ()
    if because := clashes(facts, ledger.world):
        line = f"cannot accept machine {facts.id}: {because}; if it takes that one's place, forget that one first"
        raise precondition("EVIDENCE_COLLIDES", facts.id, line)
    now = ledger.now()
    change = Accepted(facts.id, now)
    noted = Noted("machine.accepted", facts.id, facts.hostname, f"{who} let it in", str(who), now)
    after = machine_after(facts, change, facts.revision)
    return pb.AcceptMachineResponse(machine=messages.machine(after, ledger)), (change, noted)


def forget(ledger: Ledger, who: Caller, facts: Facts) -> tuple[pb.ForgetMachineResponse, Sequence[Change]]:
    now = ledger.now()
    change = Forgotten(facts.id, now)
    because = f"{who} had it forgotten: its certificate of incarnation {facts.incarnation} is worth nothing"
    noted = Noted("machine.forgotten", facts.id, facts.hostname, because, str(who), now)
    after = machine_after(facts, change, facts.revision)
    return pb.ForgetMachineResponse(machine=messages.machine(after, ledger)), (change, noted)


def create_token(
    ledger: Ledger, who: Caller, request: pb.CreateTokenRequest
) -> tuple[pb.CreateTokenResponse, Sequence[Change]]:
    ttl_s = request.ttl.ToNanoseconds() / 1e9 if request.HasField("ttl") else HOUR_S
    if not 1.0 <= ttl_s <= TTL_MOST_S:
        raise invalid("ttl", f"cannot create token: ttl is {ttl_s:g} s, and must be between 1 s and 90 days")
    if request.uses_allowed > MOST_USES:
        raise invalid("uses_allowed", f"cannot create token: uses_allowed is more than {MOST_USES}; 0 is any number")
    minted, now, settings = tokens.mint(), ledger.now(), ledger.settings
    made = TokenMade(
        minted.token_id, minted.secret_sha256, now, now + ttl_s, request.uses_allowed, request.review, str(who)
    )
    uses = f"for {made.uses_allowed} machines" if made.uses_allowed else "for any number of machines"
    review = ", each to be looked at by a person" if made.review else ""
    noted = Noted("token.created", "", "", f"{who} made join token {made.token_id} {uses}{review}", str(who), now)
    facts = TokenFacts(
        made.token_id,
        made.secret_sha256,
        made.created_at,
        made.expires_at,
        made.uses_allowed,
        made.review,
        made.created_by,
    )
    join_token = tokens.encode(minted, [settings.config.enrol_dial], settings.ca_sha256)
    return pb.CreateTokenResponse(token=messages.token(facts), join_token=join_token), (made, noted)


def revoke_token(ledger: Ledger, who: Caller, token_id: str) -> tuple[pb.RevokeTokenResponse, Sequence[Change]]:
    facts = ledger.world.tokens.get(token_id)
    if facts is None:
        raise not_found("token", token_id[:100])
    if facts.revoked_at is not None:
        return pb.RevokeTokenResponse(token=messages.token(facts)), ()
    now = ledger.now()
    noted = Noted("token.revoked", "", "", f"{who} ended join token {token_id}", str(who), now)
    after = replace(facts, revoked_at=now)
    return pb.RevokeTokenResponse(token=messages.token(after)), (TokenRevoked(token_id, now), noted)
