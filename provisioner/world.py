"""Everything the provisioner knows, read at one instant: frozen.

Rule 1: the world changes only by changes. A change is a fact that came to be: data, written to the store first and
        applied here after it is safe there, so that what is answered is never more than what survives a power cut.
Rule 2: `World.after` and the store agree: a world loaded from the store equals the world that its changes made.
Rule 3: facts and wishes only. Phases, presence and counts are computed where they are asked for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from provisioner.changes import (
    Accepted,
    Answered,
    Asked,
    Audited,
    Certified,
    Change,
    CredentialRevoked,
    Forgotten,
    InventoryKept,
    MachineChange,
    Met,
    Noted,
    Parted,
    Revoked,
    SilenceNoted,
    TokenMade,
    TokenRevoked,
    TokenUsed,
    VitalsKept,
    VitalsMoved,
)
from provisioner.facts import REVOKED, Facts, TokenFacts, moved

__all__ = [
    "REVOKED",
    "Accepted",
    "Answered",
    "Asked",
    "Audited",
    "Certified",
    "Change",
    "CredentialRevoked",
    "Facts",
    "Forgotten",
    "InventoryKept",
    "MachineChange",
    "Met",
    "Noted",
    "Parted",
    "Revoked",
    "SilenceNoted",
    "TokenFacts",
    "TokenMade",
    "TokenRevoked",
    "TokenUsed",
    "VitalsKept",
    "VitalsMoved",
    "World",
    "machine_after",
]


@dataclass(frozen=True, slots=True)
class World:
    epoch: int
    started_at: float
    revision: int = 0
    machines: Mapping[str, Facts] = field(default_factory=dict)
    tokens: Mapping[str, TokenFacts] = field(default_factory=dict)
    machines_revision: int = 0  # of the last change that a watcher of machines would see
    events_revision: int = 0  # of the last event
    revoked: Mapping[tuple[str, str], float] = field(default_factory=dict)  # (name, "") or ("", serial number) -> when

    def after(self, changes: Iterable[tuple[int, Change]]) -> "World":
        """The world once these came to be, each with the revision that the store gave it, in order."""
        machines, tokens, revision = dict(self.machines), dict(self.tokens), self.revision
        machines_revision, events_revision = self.machines_revision, self.events_revision
        revoked = self.revoked
        for number, change in changes:
            revision = max(revision, number)
            match change:
                case VitalsMoved():  # first, for it comes a thousand times as often as all others
                    machines[change.machine_id] = moved(machines[change.machine_id], change)
                case TokenMade() | TokenRevoked() | TokenUsed():
                    tokens[change.token_id] = _token(tokens.get(change.token_id), change)
                case CredentialRevoked():
                    revoked = {**revoked, (change.name, change.serial_number): change.at}
                case Noted():
                    events_revision = number
                case Answered() | Audited():
                    pass
                case _:
                    facts = machine_after(machines.get(change.machine_id), change, number)
                    machines[change.machine_id] = facts
                    machines_revision = max(machines_revision, facts.revision)
        return World(
            self.epoch, self.started_at, revision, machines, tokens, machines_revision, events_revision, revoked
        )

    @property
    def known(self) -> list[Facts]:
        """The machines that were not forgotten."""
        return [facts for facts in self.machines.values() if facts.forgotten_at is None]

    def connected(self, facts: Facts) -> bool:
        return facts.session != "" and facts.session_epoch == self.epoch


def machine_after(facts: Facts | None, change: MachineChange, revision: int) -> Facts:  # noqa: C901, PLR0911, PLR0912 - one arm a change
    """One machine's facts once the change came to be. KeyError where it concerns a machine that nobody knows."""
    if isinstance(change, Asked):
        return _asked(change, revision)
    if facts is None:
        raise KeyError(change.machine_id)
    if facts.forgotten_at is not None:
        return facts  # it was under way when the machine was forgotten, and concerns nobody any more
    match change:
        case Accepted():
            return replace(facts, accepted_at=change.at, waits_because="", revision=revision)
        case Certified():
            if change.incarnation not in {0, facts.incarnation}:
                return facts
            return replace(facts, certified_at=change.at, key_sha256=change.key_sha256)
        case Revoked():
            return _revoked(facts, revision)
        case Forgotten():
            return replace(facts, forgotten_at=change.at, session="", revision=revision)
        case Met():
            return _met(facts, change, revision)
        case Parted():
            if facts.session != change.session:
                return facts
            return replace(facts, session="", parted_because=change.because, last_heard_at=change.at, revision=revision)
        case InventoryKept():
            return _inventory(facts, change, revision)
        case VitalsKept():
            return _vitals(facts, change, revision)
        case VitalsMoved():
            return moved(facts, change)
        case SilenceNoted():
            return replace(facts, silent_noted=change.silent, revision=revision)
        case _:
            assert_never(change)


def _asked(change: Asked, revision: int) -> Facts:
    return Facts(
        id=change.machine_id,
        incarnation=change.incarnation,
        key_sha256=change.key_sha256,
        asked_at=change.at,
        waits_because=change.waits_because,
        hostname=change.hostname,
        product=change.product,
        serial=change.serial,
        evidence=change.evidence,
        revision=revision,
    )


def _revoked(facts: Facts, revision: int) -> Facts:
    """One incarnation further: so that no certificate that it has had is of the one that it is in."""
    if facts.revoked:
        return facts
    return replace(
        facts,
        incarnation=facts.incarnation + 1,
        key_sha256=REVOKED + facts.key_sha256,
        certified_at=None,
        session="",
        parted_because="its certificate was revoked",
        revision=revision,
    )


def _vitals(facts: Facts, change: VitalsKept, revision: int) -> Facts:
    return replace(
        facts,
        run_id=change.run_id,
        sequence=change.sequence,
        problem_count=change.problem_count,
        last_heard_at=change.at,
        revision=facts.revision if change.problem_count == facts.problem_count else revision,
    )


def _met(facts: Facts, change: Met, revision: int) -> Facts:
    return replace(
        facts,
        session=change.session,
        session_epoch=change.epoch,
        run_id=change.run_id,
        sequence=facts.sequence if facts.run_id == change.run_id else 0,
        agent_version=change.agent_version,
        boot_id=change.boot_id,
        peer=change.peer,
        parted_because="",
        clock_skew_s=change.clock_skew_s,
        issuer=change.issuer,
        last_heard_at=change.at,
        revision=revision,
    )


def _inventory(facts: Facts, change: InventoryKept, revision: int) -> Facts:
    return replace(
        facts,
        inventory_digest=change.digest,
        hostname=change.hostname,
        product=change.product,
        serial=change.serial,
        gpu_count=change.gpu_count,
        gpu_model=change.gpu_model,
        rdma_count=change.rdma_count,
        os=change.os,
        kernel=change.kernel,
        last_heard_at=change.at,
        revision=revision,
    )


def _token(facts: TokenFacts | None, change: TokenMade | TokenRevoked | TokenUsed) -> TokenFacts:
    match change:
        case TokenMade():
            return TokenFacts(
                change.token_id,
                change.secret_sha256,
                change.created_at,
                change.expires_at,
                change.uses_allowed,
                change.review,
                change.created_by,
            )
        case TokenRevoked() if facts is not None:
            return replace(facts, revoked_at=facts.revoked_at or change.at)
        case TokenUsed() if facts is not None:
            return replace(facts, used_by=facts.used_by | {change.key_sha256})
        case _:
            raise KeyError(change.token_id)
