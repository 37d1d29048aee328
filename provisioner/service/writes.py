"""What people change: pure. Each function reads the world and says the answer, and the changes that make it true.

Rule 1: what is so already is a success without effect: asked twice is asked once.
Rule 2: every effect leaves an event that says who did it.
Rule 3: who comes first keeps its identity: a machine whose evidence is an enrolled one's is not let in beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from bedplate.v1 import fleet_pb2 as pb
from provisioner import brief, tokens
from provisioner.access import Caller
from provisioner.admission import foreign
from provisioner.evidence import kinds
from provisioner.service import messages
from provisioner.service.ledger import Ledger
from provisioner.service.refusals import invalid, not_found, precondition
from provisioner.world import (
    REVOKED,
    Accepted,
    Asked,
    Change,
    Facts,
    Forgotten,
    Noted,
    Parted,
    Revoked,
    TokenFacts,
    TokenMade,
    TokenRevoked,
    World,
    machine_after,
)

HOUR_S, TTL_MOST_S = 3600.0, 90 * 86400.0
MOST_USES = 1_000_000

Clash = Callable[[Facts, World, str], str]  # why this machine may not be let in, of all but one; empty where it may


def clash(facts: Facts, world: World, but: str = "") -> str:
    """Why this machine may not be let in: what it showed is an enrolled machine's. Empty where it may."""
    others = {key: other for key, other in world.machines.items() if key != facts.id and other.accepted_at is not None}
    enrolled = {key: other for key, other in others.items() if other.forgotten_at is None}
    return foreign(facts.key_sha256, kinds(facts.evidence), replace(world, machines=enrolled), but)


def accept(
    ledger: Ledger, who: Caller, facts: Facts, clashes: Clash, beside: Facts | None = None
) -> tuple[pb.AcceptMachineResponse, Sequence[Change]]:
    """`beside` is the known machine that it is not, though both show the same."""
    if facts.accepted_at is not None:
        return pb.AcceptMachineResponse(machine=messages.machine(facts, ledger)), ()
    if because := clashes(facts, ledger.world, beside.id if beside else ""):
        say = f"if it is another machine all the same: bedplate machine accept {facts.id} --beside THAT"
        say += f"; if it takes that one's place: bedplate machine accept {facts.id} --replaces THAT"
        line = f"cannot accept machine {facts.id}: {because}; {say}"
        raise precondition("EVIDENCE_COLLIDES", facts.id, line)
    now = ledger.now()
    change = Accepted(facts.id, now, beside.id if beside else "")
    because = f"{who} let it in" + (f", though it shows what {beside.id} does: it is another machine" if beside else "")
    noted = Noted("machine.accepted", facts.id, facts.hostname, because, str(who), now)
    after = machine_after(facts, change, facts.revision)
    return pb.AcceptMachineResponse(machine=messages.machine(after, ledger)), (change, noted)


def replace_machine(
    ledger: Ledger, who: Caller, newcomer: Facts, old: Facts, clashes: Clash
) -> tuple[pb.AcceptMachineResponse, Sequence[Change]]:
    """The pending newcomer is the machine that is known: that goes on with its key and hardware, one life further."""
    _replaceable(newcomer, old, ledger.world, clashes)
    now, life = ledger.now(), old.incarnation + 1
    asked = Asked(
        machine_id=old.id,
        incarnation=life,
        key_sha256=newcomer.key_sha256,
        evidence=newcomer.evidence,
        hostname=newcomer.hostname,
        product=newcomer.product,
        serial=newcomer.serial,
        token_id="",
        waits_because="",
        at=now,
        again=True,
    )
    because = f"{who} let {newcomer.id} in as this machine: it is incarnation {life}, and what it was before is refused"
    gone = f"{who} said that it is machine {old.id}, and so it is from now on"
    changes: Sequence[Change] = (
        asked,
        Accepted(old.id, now),
        Forgotten(newcomer.id, now),
        Noted("machine.replaced", old.id, newcomer.hostname, because, str(who), now),
        Noted("machine.forgotten", newcomer.id, newcomer.hostname, gone, str(who), now),
    )
    after = machine_after(machine_after(None, asked, old.revision), Accepted(old.id, now), old.revision)
    return pb.AcceptMachineResponse(machine=messages.machine(after, ledger)), changes


def _replaceable(newcomer: Facts, old: Facts, world: World, clashes: Clash) -> None:
    """RefusedError where the newcomer cannot go on as that machine."""
    doing = f"cannot accept machine {newcomer.id} as {old.id}"
    if newcomer.id == old.id or newcomer.accepted_at is not None:
        raise precondition("NOT_PENDING", newcomer.id, f"{doing}: it does not wait for a person")
    if old.accepted_at is None:
        raise precondition("NOT_ENROLLED", old.id, f"{doing}: that one is not let in itself; forget it instead")
    if old.key_sha256 == REVOKED + newcomer.key_sha256:
        line = (
            f"{doing}: its key is the one that was revoked; empty the agent's state folder, so that it makes a new one"
        )
        raise precondition("KEY_REVOKED", newcomer.id, line)
    if because := clashes(newcomer, world, old.id):
        raise precondition("EVIDENCE_COLLIDES", newcomer.id, f"{doing}: {because} as well; forget one of the two first")


def revoke(ledger: Ledger, who: Caller, facts: Facts) -> tuple[pb.RevokeMachineResponse, Sequence[Change]]:
    _enrolled("revoke", facts)
    if facts.revoked:
        return pb.RevokeMachineResponse(machine=messages.machine(facts, ledger)), ()
    now = ledger.now()
    change = Revoked(facts.id, now)
    because = f"{who} revoked its certificate of incarnation {facts.incarnation}; it stays known, and its place is kept"
    noted = Noted("machine.revoked", facts.id, facts.hostname, because, str(who), now)
    open_ = ledger.world.connected(facts)  # until now: it was heard as long as that
    ended = (Parted(facts.id, facts.session, "its certificate was revoked", now),) if open_ else ()
    after = facts
    for each in (*ended, change):
        after = machine_after(after, each, facts.revision)
    return pb.RevokeMachineResponse(machine=messages.machine(after, ledger)), (*ended, change, noted)


def rekey(
    ledger: Ledger, who: Caller, facts: Facts, request: pb.RekeyMachineRequest
) -> tuple[pb.RekeyMachineResponse, Sequence[Change]]:
    """A token that is for this machine alone, once. Nothing changes for the machine until it comes by it."""
    _enrolled("rekey", facts)
    ttl_s = _ttl_s("rekey machine", request)
    minted, now = tokens.mint(facts.id), ledger.now()
    made = TokenMade(minted.token_id, minted.secret_sha256, now, now + ttl_s, 1, review=False, created_by=str(who))
    because = f"{who} made join token {made.token_id}: by it the machine may come in again once, with a new key"
    noted = Noted("machine.rekey", facts.id, facts.hostname, because, str(who), now)
    join_token = _join_token(minted, ledger)
    token = brief.token(_made(made))
    machine = messages.machine(facts, ledger)
    return pb.RekeyMachineResponse(machine=machine, token=token, join_token=join_token), (made, noted)


def _enrolled(verb: str, facts: Facts) -> None:
    if facts.accepted_at is None:
        line = f"cannot {verb} machine {facts.id}: it waits for a person and has no certificate; accept or forget it"
        raise precondition("NOT_ENROLLED", facts.id, line)


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
    ttl_s = _ttl_s("create token", request)
    if request.uses_allowed > MOST_USES:
        raise invalid("uses_allowed", f"cannot create token: uses_allowed is more than {MOST_USES}; 0 is any number")
    minted, now = tokens.mint(), ledger.now()
    made = TokenMade(
        minted.token_id, minted.secret_sha256, now, now + ttl_s, request.uses_allowed, request.review, str(who)
    )
    uses = f"for {made.uses_allowed} machines" if made.uses_allowed else "for any number of machines"
    review = ", each to be looked at by a person" if made.review else ""
    noted = Noted("token.created", "", "", f"{who} made join token {made.token_id} {uses}{review}", str(who), now)
    join_token = _join_token(minted, ledger)
    return pb.CreateTokenResponse(token=brief.token(_made(made)), join_token=join_token), (made, noted)


def _join_token(minted: tokens.Minted, ledger: Ledger) -> str:
    settings = ledger.settings
    return tokens.encode(minted, [settings.config.enrol_dial], settings.ca_sha256, settings.next_ca_sha256)


def _ttl_s(doing: str, request: pb.CreateTokenRequest | pb.RekeyMachineRequest) -> float:
    ttl_s = request.ttl.seconds + request.ttl.nanos / 1e9 if request.HasField("ttl") else HOUR_S
    if not 1.0 <= ttl_s <= TTL_MOST_S:
        raise invalid("ttl", f"cannot {doing}: ttl is {ttl_s:g} s, and must be between 1 s and 90 days")
    return ttl_s


def _made(made: TokenMade) -> TokenFacts:
    return TokenFacts(
        made.token_id,
        made.secret_sha256,
        made.created_at,
        made.expires_at,
        made.uses_allowed,
        made.review,
        made.created_by,
    )


def revoke_token(ledger: Ledger, who: Caller, token_id: str) -> tuple[pb.RevokeTokenResponse, Sequence[Change]]:
    facts = ledger.world.tokens.get(token_id)
    if facts is None:
        raise not_found("token", token_id[:100])
    if facts.revoked_at is not None:
        return pb.RevokeTokenResponse(token=brief.token(facts)), ()
    now = ledger.now()
    noted = Noted("token.revoked", "", "", f"{who} ended join token {token_id}", str(who), now)
    after = replace(facts, revoked_at=now)
    return pb.RevokeTokenResponse(token=brief.token(after)), (TokenRevoked(token_id, now), noted)
