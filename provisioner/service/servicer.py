"""The servicer: one method a line of the proto, each a translation. The guard in `access` stands before all of them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from bedplate.v1 import fleet_pb2 as pb
from bedplate.v1.fleet_pb2_grpc import FleetServicer as Servicer
from bedplate.v1.snapshot_pb2 import Inventory
from bedplate.v1.uplink_pb2 import Problems
from provisioner.access import Caller, caller
from provisioner.brief import moment
from provisioner.calls import CutOff, nothing_to_cut
from provisioner.cloudevents import source_of
from provisioner.explain import explain, problem_lines
from provisioner.issued import ISSUING, Credential, issued
from provisioner.service import audit, lists, messages, people, watching, writes
from provisioner.service.finding import find
from provisioner.service.ledger import Ledger
from provisioner.service.once import Once, ask
from provisioner.service.reading import PATIENCE_S, read_by
from provisioner.service.refusals import invalid, precondition, refusing
from provisioner.world import Change, Facts

CUT_OFF_S = 2.0
REPLACED = "another host took this machine's place; its certificate is worth nothing"


class Cutting(Protocol):
    """An answer after which a stream of that machine is over."""

    @property
    def machine(self) -> pb.Machine: ...


class FleetServicer(Servicer):
    """bedplate.v1.Fleet. Raises RefusedError, which the guard makes into the call's status."""

    def __init__(  # noqa: PLR0913 - what it needs, by name
        self,
        ledger: Ledger,
        cut_off: CutOff = nothing_to_cut,
        clashes: writes.Clash = writes.clash,
        *,
        patience_s: float = PATIENCE_S,
        judge: Callable[[], object] = int,
        sinks: Callable[[], Sequence[messages.Standing]] = tuple,
    ) -> None:
        self._ledger = ledger
        self._patience_s = patience_s
        self._judge = judge  # who may not go on by now, goes
        self._sinks = sinks
        self._cut_off = cut_off
        self._clashes = clashes
        self._once = Once(ledger)

    # -- reading ---------------------------------------------------------------------------------------------------

    async def ListMachines(self, request: pb.ListMachinesRequest, _: Any) -> pb.ListMachinesResponse:
        with refusing():
            return await self._ledger.survey(lists.machines, self._ledger, request)

    async def GetMachine(self, request: pb.GetMachineRequest, _: Any) -> pb.GetMachineResponse:
        with refusing():
            facts, store = find(self._ledger.world, request.machine), self._ledger.store
            inventory = await self._inventory(facts)
            vitals = await self._ledger.read(store.vitals, facts.id)
            return pb.GetMachineResponse(
                machine=messages.machine(facts, self._ledger), snapshot=messages.snapshot(inventory, vitals)
            )

    async def GetMachineTopology(self, request: pb.GetMachineTopologyRequest, _: Any) -> pb.GetMachineTopologyResponse:
        with refusing():
            facts = find(self._ledger.world, request.machine)
            inventory = await self._inventory(facts)
            if inventory is None:
                line = f"cannot show the topology of {facts.id}: its inventory has not come yet"
                raise precondition("NO_INVENTORY", facts.id, line)
            topology = Inventory.FromString(inventory).topology
            return pb.GetMachineTopologyResponse(machine=messages.machine(facts, self._ledger), topology=topology)

    async def ExplainMachine(self, request: pb.ExplainMachineRequest, _: Any) -> pb.ExplainMachineResponse:
        with refusing():
            ledger = self._ledger
            facts = find(ledger.world, request.machine)
            vitals = await ledger.read(ledger.store.vitals, facts.id)
            problems = problem_lines(Problems.FromString(vitals.problems)) if vitals else []
            now, conduct = ledger.now(), ledger.conduct.lines(facts.id, ledger.now())
            silent_after_s = ledger.settings.silent_after_s
            told = explain(facts, ledger.world, now, silent_after_s, problems=problems, conduct=conduct)
            return pb.ExplainMachineResponse(
                machine=messages.machine(facts, ledger),
                because=told.because,
                evidence=told.evidence,
                advice=told.advice,
            )

    async def ListEvents(self, request: pb.ListEventsRequest, _: Any) -> pb.ListEventsResponse:
        with refusing():
            return await self._ledger.survey(lists.events, self._ledger, request)

    async def ListTokens(self, request: pb.ListTokensRequest, _: Any) -> pb.ListTokensResponse:
        with refusing():
            return lists.tokens(self._ledger, request)

    async def ListAudit(self, request: pb.ListAuditRequest, _: Any) -> pb.ListAuditResponse:
        with refusing():
            return await self._ledger.survey(audit.listed, self._ledger, request)

    async def ListCredentials(self, request: pb.ListCredentialsRequest, _: Any) -> pb.ListCredentialsResponse:
        return people.listed(await self._credentials(), request.name)

    async def GetStatus(self, _: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        world, who, conduct = self._ledger.world, caller(context), self._ledger.conduct
        sinks = await self._ledger.read(self._sinks)
        return pb.GetStatusResponse(
            version=self._ledger.settings.version,
            epoch=world.epoch,
            caller=who.name,
            role=who.role,
            machines=len(world.known),
            revision=world.revision,
            started_at=moment(world.started_at),
            event_source=source_of(self._ledger.store.fleet, self._ledger.settings.config.event_source),
            sinks=[messages.sink(standing) for standing in sinks],
            refused=conduct.refused,
            cut_off=conduct.cut_off,
            slowed_s=conduct.slowed_s,
            broken_off=conduct.broken_off,
            ports=messages.ports(conduct.arrivals),
        )

    async def _inventory(self, facts: Facts) -> bytes | None:
        if not facts.inventory_digest:
            return None
        return await self._ledger.read(self._ledger.store.inventory, facts.inventory_digest)

    # -- watching --------------------------------------------------------------------------------------------------

    async def WatchMachines(  # type: ignore[override]  # it writes by itself, for it has to know how long that takes
        self, request: pb.WatchMachinesRequest, context: Any
    ) -> None:
        with refusing():
            await read_by(context, watching.machines(self._ledger, request), self._patience_s)

    async def WatchEvents(  # type: ignore[override]
        self, request: pb.WatchEventsRequest, context: Any
    ) -> None:
        with refusing():
            await read_by(context, watching.events(self._ledger, request), self._patience_s)

    # -- writing ---------------------------------------------------------------------------------------------------

    async def AcceptMachine(self, request: pb.AcceptMachineRequest, context: Any) -> pb.AcceptMachineResponse:
        who, ledger = caller(context), self._ledger
        with refusing():
            if request.replaces and request.beside:
                raise invalid("beside", "cannot accept: a machine is another one, or takes its place; not both")
            return await self._once.answer(
                ask(who, "AcceptMachine", request.request_id, request),
                pb.AcceptMachineResponse,
                lambda: find(ledger.world, request.replaces or request.machine).id,  # whose place it is about
                lambda name: self._accept(who, name, request),
                turn="accept",  # of two that show the same hardware, the second is to see that the first is in
                sequel=self._cutting(REPLACED) if request.replaces else None,
            )

    def _accept(
        self, who: Caller, name: str, request: pb.AcceptMachineRequest
    ) -> tuple[pb.AcceptMachineResponse, Sequence[Change]]:
        ledger = self._ledger
        facts = find(ledger.world, name)
        if request.replaces:
            newcomer = find(ledger.world, request.machine)
            return writes.replace_machine(ledger, who, newcomer, facts, self._clashes)
        beside = find(ledger.world, request.beside) if request.beside else None
        return writes.accept(ledger, who, facts, self._clashes, beside)

    async def RevokeMachine(self, request: pb.RevokeMachineRequest, context: Any) -> pb.RevokeMachineResponse:
        who, ledger = caller(context), self._ledger
        with refusing():
            return await self._once.answer(
                ask(who, "RevokeMachine", request.request_id, request),
                pb.RevokeMachineResponse,
                lambda: find(ledger.world, request.machine).id,
                lambda name: writes.revoke(ledger, who, find(ledger.world, name)),
                sequel=self._cutting("this machine's certificate was revoked"),
            )

    async def RekeyMachine(self, request: pb.RekeyMachineRequest, context: Any) -> pb.RekeyMachineResponse:
        who, ledger = caller(context), self._ledger
        with refusing():
            return await self._once.answer(
                ask(who, "RekeyMachine", request.request_id, request),
                pb.RekeyMachineResponse,
                lambda: find(ledger.world, request.machine).id,
                lambda name: writes.rekey(ledger, who, find(ledger.world, name), request),
            )

    async def ForgetMachine(self, request: pb.ForgetMachineRequest, context: Any) -> pb.ForgetMachineResponse:
        who, ledger = caller(context), self._ledger
        with refusing():
            return await self._once.answer(
                ask(who, "ForgetMachine", request.request_id, request),
                pb.ForgetMachineResponse,
                lambda: find(ledger.world, request.machine).id,
                lambda name: writes.forget(ledger, who, find(ledger.world, name)),
                sequel=self._cutting("this machine was forgotten; enrol it again with a new join token"),
            )

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Any) -> pb.CreateTokenResponse:
        who = caller(context)
        with refusing():
            return await self._once.answer(
                ask(who, "CreateToken", request.request_id, request),
                pb.CreateTokenResponse,
                lambda: request.request_id,
                lambda _: writes.create_token(self._ledger, who, request),
            )

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Any) -> pb.RevokeTokenResponse:
        who = caller(context)
        with refusing():
            return await self._once.answer(
                ask(who, "RevokeToken", request.request_id, request),
                pb.RevokeTokenResponse,
                lambda: request.token_id,
                lambda name: writes.revoke_token(self._ledger, who, name),
            )

    async def RevokeCredential(self, request: pb.RevokeCredentialRequest, context: Any) -> pb.RevokeCredentialResponse:
        who, found = caller(context), await self._credentials()
        with refusing():
            what = people.subject(request)
            return await self._once.answer(
                ask(who, "RevokeCredential", request.request_id, request),
                pb.RevokeCredentialResponse,
                lambda: what.name or what.serial_number,
                lambda _: people.revoke(self._ledger, who, what, found),
                sequel=self._judged,
            )

    async def _judged(self, _: pb.RevokeCredentialResponse) -> None:
        self._judge()

    async def _credentials(self) -> list[Credential]:
        ledger = self._ledger
        with refusing():
            entries = await ledger.read(ledger.store.audit_of, ISSUING)
        return issued(entries, ledger.world.revoked, ledger.now())

    def _cutting(self, because: str) -> Callable[[Cutting], Awaitable[None]]:
        return lambda response: self._cut(response.machine, because)

    async def _cut(self, machine: pb.Machine, because: str) -> None:
        """A peer that does not read must not hold up the answer; the guard refuses it from now on anyway."""
        facts = self._ledger.world.machines[machine.machine_id]
        if facts.forgotten_at is None and (facts.session or facts.incarnation != machine.incarnation):
            return  # it is back in a younger life: an answer from long ago was asked for again
        try:
            async with asyncio.timeout(CUT_OFF_S):
                await self._cut_off(machine.machine_id, because)
        except TimeoutError:
            return
