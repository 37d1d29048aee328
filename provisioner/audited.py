"""What a write leaves in the audit: pure.

Rule 1: an entry tells the fields that the write changed, of the messages that people get of machines and tokens, and of
        a machine's standing: they hold no secret. The answer, in which the secret of a new token is shown, is not
        looked at.
Rule 2: what is computed anew whenever somebody asks (the sentence, when it was last heard) is no part of it.
Rule 3: an entry is kept for ever: what a machine says of itself is cut where no honest one is as long.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from bedplate.v1 import fleet_pb2 as pb
from provisioner import brief
from provisioner.world import Accepted, Audited, Change, CredentialRevoked, Facts, TokenFacts, World

M = TypeVar("M", bound=Message)
COMPUTED = ("because", "last_heard_at", "revision", "peer")
LONGEST = 256


@dataclass(frozen=True, slots=True)
class Write:
    """Who writes what. `about` is its subject: a machine's id, or something else; `peer` is the address from which it
    speaks for itself.
    """

    who: str
    role: str
    method: str
    request_id: str = ""
    about: str = ""
    peer: str = ""


def audited(write: Write, world: World, changes: Sequence[Change], now: float, silent_after_s: float) -> Audited:
    """The entry of this write in this world. One that changes nothing leaves one too, with no state."""
    machine_ids = _named(changes, "machine_id")
    token_ids = _named(changes, "token_id")
    before = _part(world, machine_ids, token_ids)
    after = before.after((world.revision, change) for change in changes)
    had, has = pb.AuditState(), pb.AuditState()
    for name in machine_ids:
        was, is_now = _differing(*(_machine(one, name, now, silent_after_s) for one in (before, after)))
        had.machines.extend(was)
        has.machines.extend(is_now)
        stood, stands = (_standing(one.machines.get(name)) for one in (before, after))
        if stands is not None and write.peer:
            stands.peer = write.peer
        if stood != stands:
            stood_by, stands_by = _differing(stood, stands)
            had.standings.extend(stood_by)
            has.standings.extend(stands_by)
    for name in token_ids:
        old, new = _differing(*(_token(one.tokens.get(name)) for one in (before, after)))
        had.tokens.extend(old)
        has.tokens.extend(new)
    _taken_back(changes, had, has)
    _beside(changes, world, has)
    machine_id = next(iter(machine_ids), write.about if write.about in world.machines else "")
    return Audited(write.who, write.role, write.method, write.request_id, machine_id, _json(had), _json(has), now)


def _named(changes: Iterable[Change], field: str) -> list[str]:
    return list(dict.fromkeys(name for change in changes if (name := getattr(change, field, ""))))


def _part(world: World, machine_ids: Iterable[str], token_ids: Iterable[str]) -> World:
    """The world, with only these in it: a fleet is large, and a write concerns one machine."""
    machines = {name: world.machines[name] for name in machine_ids if name in world.machines}
    tokens = {name: world.tokens[name] for name in token_ids if name in world.tokens}
    return World(world.epoch, world.started_at, world.revision, machines, tokens)


def _machine(world: World, name: str, now: float, silent_after_s: float) -> pb.Machine | None:
    """None where it is forgotten, or not there yet."""
    facts = world.machines.get(name)
    if facts is None or facts.forgotten_at is not None:
        return None
    told = brief.machine(facts, world, now, silent_after_s)
    for field in COMPUTED:
        told.ClearField(field)  # type: ignore[arg-type]  # a field's name, from a table
    return _cut(told)


def _standing(facts: Facts | None) -> pb.AuditStanding | None:
    if facts is None or facts.forgotten_at is not None:
        return None
    key = "" if facts.revoked else facts.key_sha256.hex()
    return _cut(pb.AuditStanding(machine_id=facts.id, key_sha256=key, waits_because=facts.waits_because))


def _token(facts: TokenFacts | None) -> pb.Token | None:
    return brief.token(facts) if facts else None


def _cut(told: M) -> M:
    for field, value in told.ListFields():
        if isinstance(value, str) and len(value) > LONGEST:
            setattr(told, field.name, value[: LONGEST - 1] + "…")
    return told


def _differing(was: M | None, is_now: M | None) -> tuple[list[M], list[M]]:
    """With the id, which comes first, and the fields in which they differ."""
    if was is not None and is_now is not None:
        for field in was.DESCRIPTOR.fields[1:]:
            if getattr(was, field.name) == getattr(is_now, field.name):
                was.ClearField(field.name)
                is_now.ClearField(field.name)
    return [was] if was is not None else [], [is_now] if is_now is not None else []


def _taken_back(changes: Iterable[Change], had: pb.AuditState, has: pb.AuditState) -> None:
    for change in changes:
        if isinstance(change, CredentialRevoked):
            was = pb.AuditCertificate(name=change.name, serial_number=change.serial_number)
            now = pb.AuditCertificate(revoked_at=brief.moment(change.at))
            now.MergeFrom(was)
            had.certificates.append(was)
            has.certificates.append(now)


def _beside(changes: Iterable[Change], world: World, has: pb.AuditState) -> None:
    for change in changes:
        if isinstance(change, Accepted) and change.beside:
            twin = world.machines[change.beside]
            has.beside.append(_cut(pb.Machine(machine_id=twin.id, hostname=twin.hostname)))


def _json(state: pb.AuditState) -> str:
    """Empty for no state at all."""
    found = MessageToDict(state, preserving_proto_field_name=True)
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False) if found else ""
