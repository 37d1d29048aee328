"""What a write leaves in the audit: pure; and the audit as a list.

Rule 1: an entry tells the fields that the write changed, of the messages that people get of machines and tokens: they
        hold no secret. The answer, in which the secret of a new token is shown, is not looked at.
Rule 2: what is computed anew whenever somebody asks (the sentence, when it was last heard) is no part of it.
"""

import json
from collections.abc import Iterable, Sequence
from typing import TypeVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from bedplate.v1 import fleet_pb2 as pb
from provisioner import paging
from provisioner.access import Caller
from provisioner.chain import Entry
from provisioner.service import messages
from provisioner.service.finding import find
from provisioner.service.ledger import Ledger
from provisioner.service.refusals import invalid
from provisioner.world import Audited, Change, CredentialRevoked, Facts, TokenFacts, World

M = TypeVar("M", bound=Message)
COMPUTED = ("because", "last_heard_at", "revision", "peer")
LONGEST_NAME = 128
MOST = (1 << 63) - 1
NANOS = 1_000_000_000


def audited(  # noqa: PLR0913, PLR0917 - who, what, which, of whom, and what came of it
    ledger: Ledger, who: Caller, method: str, request_id: str, about: str, changes: Sequence[Change]
) -> Audited:
    """The entry of this write; `about` is its subject. A write that changed nothing leaves one too, with no state."""
    machine_ids = _named(changes, "machine_id")
    token_ids = _named(changes, "token_id")
    world = ledger.world
    before = _part(world, machine_ids, token_ids)
    after = before.after((world.revision, change) for change in changes)
    had, has = _told(before, after, machine_ids, token_ids, ledger)
    _taken_back(changes, had, has)
    machine_id = next(iter(machine_ids), about if about in world.machines else "")
    return Audited(who.name, who.role, method, request_id, machine_id, _json(had), _json(has), ledger.now())


def _named(changes: Iterable[Change], field: str) -> list[str]:
    return list(dict.fromkeys(name for change in changes if (name := getattr(change, field, ""))))


def _part(world: World, machine_ids: Iterable[str], token_ids: Iterable[str]) -> World:
    """The world, with only these in it: a fleet is large, and a write concerns one machine."""
    machines = {name: world.machines[name] for name in machine_ids if name in world.machines}
    tokens = {name: world.tokens[name] for name in token_ids if name in world.tokens}
    return World(world.epoch, world.started_at, world.revision, machines, tokens)


def _told(
    before: World, after: World, machine_ids: Iterable[str], token_ids: Iterable[str], ledger: Ledger
) -> tuple[pb.AuditState, pb.AuditState]:
    had, has = pb.AuditState(), pb.AuditState()
    for name in machine_ids:
        was = _machine(before.machines.get(name), ledger)
        now = _machine(after.machines.get(name), ledger)
        _differing(was, now, "machine_id")
        had.machines.extend([was] if was else [])
        has.machines.extend([now] if now else [])
    for name in token_ids:
        old, new = _token(before.tokens.get(name)), _token(after.tokens.get(name))
        _differing(old, new, "token_id")
        had.tokens.extend([old] if old else [])
        has.tokens.extend([new] if new else [])
    return had, has


def _taken_back(changes: Iterable[Change], had: pb.AuditState, has: pb.AuditState) -> None:
    for change in changes:
        if isinstance(change, CredentialRevoked):
            was = pb.AuditCertificate(name=change.name, serial_number=change.serial_number)
            now = pb.AuditCertificate(revoked_at=messages.moment(change.at))
            now.MergeFrom(was)
            had.certificates.append(was)
            has.certificates.append(now)


def _machine(facts: Facts | None, ledger: Ledger) -> pb.Machine | None:
    """None where it is forgotten, or not there yet."""
    if facts is None or facts.forgotten_at is not None:
        return None
    told = messages.machine(facts, ledger)
    for name in COMPUTED:
        told.ClearField(name)  # type: ignore[arg-type]  # a field's name, from a table
    return told


def _token(facts: TokenFacts | None) -> pb.Token | None:
    return messages.token(facts) if facts else None


def _differing(was: M | None, now: M | None, key: str) -> None:
    """Leaves the key, and the fields in which they differ."""
    if was is None or now is None:
        return
    for field in was.DESCRIPTOR.fields:
        if field.name != key and getattr(was, field.name) == getattr(now, field.name):
            was.ClearField(field.name)
            now.ClearField(field.name)


def _json(state: pb.AuditState) -> str:
    """Empty for no state at all."""
    found = MessageToDict(state, preserving_proto_field_name=True)
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False) if found else ""


def listed(ledger: Ledger, request: pb.ListAuditRequest) -> pb.ListAuditResponse:
    if len(request.who) > LONGEST_NAME:
        raise invalid("who", f"cannot list the audit: who has more than {LONGEST_NAME} characters")
    machine_id = _machine_id(ledger.world, request.machine) if request.machine else ""
    since = _nanoseconds(request.since) if request.HasField("since") else None
    until = _nanoseconds(request.until) if request.HasField("until") else None
    size, newest_first = paging.size(request.page_size), request.newest_first
    listing = ("audit", request.who, machine_id, str(since), str(until), str(newest_first))
    place = paging.key_of(listing, request.page_token, int)
    found, head = ledger.store.audit(
        after=0 if newest_first else min(place or 0, MOST),
        before=place if newest_first else None,
        who=request.who,
        machine_id=machine_id,
        since_ns=since,
        until_ns=until,
        limit=size + 1,
        newest_first=newest_first,
    )
    return pb.ListAuditResponse(
        entries=[_entry(one) for one in found[:size]],
        next_page_token=paging.token(listing, found[size - 1].sequence) if len(found) > size else "",
        head_sequence=head.sequence,
        head_sha256=head.sha256,
    )


def _machine_id(world: World, name: str) -> str:
    """Of a machine that was forgotten, the whole id finds it: the audit outlives it."""
    return name if name in world.machines else find(world, name).id


def _nanoseconds(at: Timestamp) -> int:
    """Also of one that is none: further away than the store can say is as good as for ever."""
    return max(-MOST, min(at.seconds * NANOS + at.nanos, MOST))


def _entry(kept: Entry) -> pb.AuditEntry:
    at = Timestamp()
    at.FromNanoseconds(kept.at_ns)
    return pb.AuditEntry(
        sequence=kept.sequence,
        at=at,
        who=kept.who,
        role=kept.role,
        method=kept.method,
        request_id=kept.request_id,
        machine_id=kept.machine_id,
        before=kept.before,
        after=kept.after,
        previous_sha256=kept.previous_sha256,
        sha256=kept.sha256,
    )
