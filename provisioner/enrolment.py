"""The door for newcomers, and younger certificates for those who are in: gRPC edge, decides nothing by itself.

Rule 1: requests that arrive while others are being written are decided some at a time, each in the world that those
        before it make, and written as one transaction: two requests of one key are one machine, and the last use of a
        token is given once. Nothing waits but on the store.
Rule 2: what is answered is durable: a certificate leaves only after it is written that it was issued, and that its
        machine was let in, with the entry in the audit.
Rule 3: a key that is known needs no token, for its CSR proves it: so a pending machine polls, a machine whose answer
        was lost asks again, and one that was off for longer than its certificate lasts comes back by itself.
Rule 4: once it is written that somebody is a machine again, in its next life, the stream of the life before ends:
        before the newcomer is answered, so that it finds nobody in its place.
Rule 5: where a person's word comes in between, as that a token is revoked, the round is decided again, in halves: whom
        it is not about hears nothing of it, and who is left alone with it is told to try again.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from bedplate.v1.enrolment_pb2 import Credentials, EnrolRequest, EnrolResponse, Pending
from bedplate.v1.enrolment_pb2_grpc import EnrolmentServicer as Servicer
from provisioner import tokens
from provisioner.access import Caller, RefusedError, standing
from provisioner.admission import Newcomer, admit, known, pending
from provisioner.arrival import arrival
from provisioner.calls import CutOff, nothing_to_cut
from provisioner.config import Config
from provisioner.errors import BedplateError
from provisioner.facts import machine_of
from provisioner.pki import CsrError, Issued, MachineIdentity, csr_key, key_sha256
from provisioner.ports import host_of
from provisioner.store import MeanwhileError
from provisioner.world import Asked, Certified, Change, Facts, Noted, World

DAY_S: Final = 86400.0
EVIDENCE_BYTES: Final = 16 << 10
TEXT_BYTES: Final = 128  # of a token's name, its secret, a version
ASK_AGAIN_S: Final = 15.0
FULL_AGAIN_S: Final = 60.0
STORE_AGAIN_S: Final = 10.0
OVER: Final = "another key was let in as this machine; its older certificate is worth nothing"
ROUND: Final = 64  # requests decided in one go: each looks at all machines, and everybody else waits meanwhile


Answer = EnrolResponse | RefusedError


class Settings(Protocol):
    @property
    def config(self) -> Config: ...


class Ledger(Protocol):
    """What this door needs of the fleet."""

    @property
    def world(self) -> World: ...
    @property
    def settings(self) -> Settings: ...
    def now(self) -> float: ...
    def write(self, changes: Sequence[Change], /) -> Awaitable[list[int]]: ...


class Issuer(Protocol):
    """What this door needs of the CA."""

    @property
    def roots_pem(self) -> bytes: ...
    def issue_machine(self, csr_der: bytes, who: MachineIdentity, *, lifetime_s: float, now: float) -> Issued: ...


@dataclass(frozen=True, slots=True)
class _Ask:
    request: EnrolRequest
    key_sha256: bytes
    peer: str
    answer: "asyncio.Future[Answer]"


class EnrolmentServicer(Servicer):
    """bedplate.v1.Enrolment. Its guard turns a RefusedError into the call's status."""

    def __init__(self, ledger: Ledger, authority: Issuer, cut_off: CutOff = nothing_to_cut) -> None:
        self._ledger = ledger
        self._authority = authority
        self._cut_off = cut_off
        self._asks: list[_Ask] = []
        self._rounds: asyncio.Task[None] | None = None

    async def Enrol(
        self, request: EnrolRequest, context: grpc.aio.ServicerContext[EnrolRequest, EnrolResponse]
    ) -> EnrolResponse:
        return await self.enrol(request, host_of(context.peer()))

    async def enrol(self, request: EnrolRequest, peer: str = "") -> EnrolResponse:
        """RefusedError where there is no way in."""
        _bounded(request)
        try:
            key = key_sha256(csr_key(request.csr))
        except CsrError as error:
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "CSR", str(error), _violation("csr", error)) from error
        ask = _Ask(request, key, peer, asyncio.get_running_loop().create_future())
        self._asks.append(ask)
        if self._rounds is None:
            self._rounds = asyncio.create_task(self._run_rounds(), name="enrolment")
        answer = await asyncio.shield(ask.answer)  # one that hangs up meanwhile takes nothing back
        if isinstance(answer, RefusedError):
            raise answer
        return answer

    async def _run_rounds(self) -> None:
        try:
            while self._asks:
                asks, self._asks = self._asks[:ROUND], self._asks[ROUND:]
                await self._round(asks)
        finally:
            self._rounds = asyncio.create_task(self._run_rounds(), name="enrolment") if self._asks else None

    async def _round(self, asks: Sequence[_Ask]) -> None:
        """Decide them in their order, write all of it at once, answer."""
        answers: list[Answer] = [RefusedError(grpc.StatusCode.INTERNAL, "BUG", "cannot enrol: the door broke")] * len(
            asks
        )
        try:
            answers = await self._answered(asks)
        finally:
            for ask, answer in zip(asks, answers, strict=True):
                ask.answer.set_result(answer)

    async def _answered(self, asks: Sequence[_Ask]) -> list[Answer]:
        try:
            return await self._written(*self._decided(asks))
        except MeanwhileError as error:
            if len(asks) == 1:
                return [_unsaid(error)]
        middle = len(asks) // 2
        return [*await self._answered(asks[:middle]), *await self._answered(asks[middle:])]

    def _decided(self, asks: Sequence[_Ask]) -> tuple[list[Change], list[Answer]]:
        world, changes, answers = self._ledger.world, list[Change](), list[Answer]()
        for ask in asks:
            try:
                more, response = self._decide(ask, world)
            except RefusedError as refused:
                answers.append(refused)
                continue
            world = world.after((world.revision, change) for change in more)
            changes += more
            answers.append(response)
        return changes, answers

    async def _written(self, changes: list[Change], answers: list[Answer]) -> list[Answer]:
        try:
            if changes:
                await self._ledger.write(changes)
        except MeanwhileError:
            raise
        except BedplateError as error:
            return [answer if isinstance(answer, RefusedError) else _unsaid(error) for answer in answers]
        for change in changes:
            if isinstance(change, Asked) and change.incarnation > 1:
                await self._cut_off(change.machine_id, OVER)
        return answers

    def _decide(self, ask: _Ask, world: World) -> tuple[list[Change], EnrolResponse]:
        if facts := known(ask.key_sha256, world):
            return self._answer(facts, ask)
        now = self._ledger.now()
        changes = self._newcomer(ask, world, now)
        after = world.after((world.revision, change) for change in changes)
        machine_id = next(change.machine_id for change in changes if isinstance(change, Asked))
        more, response = self._answer(after.machines[machine_id], ask)
        return [*changes, *more], response

    def _newcomer(self, ask: _Ask, world: World, now: float) -> list[Change]:
        token = world.tokens.get(ask.request.token_id)
        flaw = tokens.flaw(token, ask.request.token_secret, ask.key_sha256, now)
        if flaw is not None or token is None:
            reason, line = (flaw.reason, flaw.line) if flaw else ("TOKEN_UNKNOWN", "")
            raise RefusedError(grpc.StatusCode.UNAUTHENTICATED, reason, line)
        evidence = ask.request.evidence.SerializeToString(deterministic=True)
        fresh = next(name for name in iter(_fresh_id, "") if name not in world.machines)
        newcomer = Newcomer(ask.key_sha256, evidence, token.id, token.review, machine_of(token.id), ask.peer)
        admission = admit(newcomer, world, fresh)
        if not admission.accepted and pending(world) >= self._ledger.settings.config.pending_limit:
            line = "too many machines wait for a person; accept or forget some with `bedplate machine`"
            raise RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "PENDING_FULL", line, _retry(FULL_AGAIN_S))
        return arrival(newcomer, admission, world, now, self._ledger.settings.config.silent_after_s)

    def _answer(self, facts: Facts, ask: _Ask) -> tuple[list[Change], EnrolResponse]:
        """What a machine that is known gets: its certificate, or the word to wait."""
        if facts.accepted_at is None:
            because = f"waits for a person: {facts.waits_because}"
            waiting = Pending(machine_id=facts.id, because=because, retry_after_s=ASK_AGAIN_S)
            return [], EnrolResponse(pending=waiting)
        now = self._ledger.now()
        who = MachineIdentity(facts.id, facts.incarnation)
        issued = _issue(self._ledger, self._authority, ask.request.csr, who, now)
        changes: list[Change] = [_certified(who, issued, now)]
        if facts.certified_at is None:
            because = f"its first certificate in incarnation {facts.incarnation} was issued"
            changes.append(Noted("machine.enrolled", facts.id, facts.hostname, because, f"machine {facts.id}", now))
        return changes, EnrolResponse(credentials=_credentials(self._ledger, self._authority, who, issued))


class Renewals:
    """Younger certificates for machines that hold a good one."""

    def __init__(self, ledger: Ledger, authority: Issuer) -> None:
        self._ledger = ledger
        self._authority = authority

    async def renew(self, caller: Caller, csr: bytes) -> Credentials:
        """RefusedError where the caller is no machine that stands, or the CSR gets nothing."""
        who = MachineIdentity(caller.machine_id, caller.incarnation)
        if refused := standing(who, self._ledger.world):
            raise refused
        now = self._ledger.now()
        try:
            issued = _issue(self._ledger, self._authority, csr, who, now)
        except CsrError as error:
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "CSR", str(error), _violation("csr", error)) from error
        holder = known(issued.key_sha256, self._ledger.world)
        if holder is not None and holder.id != who.machine_id:
            line = f"cannot renew the certificate of {who.machine_id}: the key is another machine's; make a new one"
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "KEY_TAKEN", line)
        try:
            await self._ledger.write([_certified(who, issued, now)])
        except BedplateError as error:
            raise _unsaid(error) from error
        if refused := standing(who, self._ledger.world):
            raise refused  # it was revoked meanwhile: what was issued is worth nothing
        return _credentials(self._ledger, self._authority, who, issued)


def _issue(ledger: Ledger, authority: Issuer, csr: bytes, who: MachineIdentity, now: float) -> Issued:
    return authority.issue_machine(csr, who, lifetime_s=ledger.settings.config.certificate_days * DAY_S, now=now)


def _certified(who: MachineIdentity, issued: Issued, now: float) -> Certified:
    return Certified(who.machine_id, issued.key_sha256, issued.serial_number, issued.not_after, now, who.incarnation)


def _credentials(ledger: Ledger, authority: Issuer, who: MachineIdentity, issued: Issued) -> Credentials:
    return Credentials(
        machine_id=who.machine_id,
        incarnation=who.incarnation,
        certificate_pem=issued.certificate_pem,
        ca_pem=authority.roots_pem,
        uplink_addresses=[ledger.settings.config.dial],
    )


def _fresh_id() -> str:
    return "m-" + tokens.random_name()


def _bounded(request: EnrolRequest) -> None:
    """A newcomer is a stranger: what it may send is small. The CSR's own limit is the CA's."""
    checks: tuple[tuple[str, int, int], ...] = (
        ("token_id", len(request.token_id), TEXT_BYTES),
        ("token_secret", len(request.token_secret), TEXT_BYTES),
        ("agent_version", len(request.agent_version), TEXT_BYTES),
        ("evidence", request.evidence.ByteSize(), EVIDENCE_BYTES),
    )
    for field, size, limit in checks:
        if size > limit:
            line = f"cannot enrol: {field} has {size} bytes, and may have {limit}"
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "TOO_LARGE", line, _violation(field, line))


def _unsaid(error: BedplateError) -> RefusedError:
    return RefusedError(grpc.StatusCode.UNAVAILABLE, "STORE", str(error), _retry(STORE_AGAIN_S))


def _violation(field: str, description: object) -> Any:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field=field, description=str(description))
    return bad


def _retry(seconds: float) -> Any:
    return error_details_pb2.RetryInfo(retry_delay=Duration(seconds=int(seconds)))
