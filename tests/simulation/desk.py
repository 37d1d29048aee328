"""Where a person's writes come in: stands in for `service.servicer`. Each is done once, by the product's `once`.

Whoever hears nothing asks again under the same request id, perhaps in another life of the provisioner.
"""

from collections.abc import Callable, Sequence
from typing import Any

from bedplate.v1 import fleet_pb2 as pb
from provisioner.access import Caller, RefusedError
from provisioner.service import writes
from provisioner.service.finding import find
from provisioner.service.once import Once, ask
from provisioner.store import StoreError
from provisioner.world import Change
from tests.simulation.site import Site

OPERATOR = Caller(name="ann", role="operator")


class Desk:
    """Of one life."""

    def __init__(self, site: Site, heard: Callable[[str], object]) -> None:
        self.site = site
        self.store, self.settings, self.now, self.read = site.store, site.settings, site.now, site.read
        self._heard = heard
        self._once = Once(self)

    @property
    def world(self) -> Any:
        return self.site.world

    def write(self, changes: Sequence[Change]) -> Any:
        """What `once` awaits."""
        done = self.site.loop.create_future()
        self.site.submit(changes, "operator", lambda error: done.set_exception(error) if error else done.set_result([]))
        return done

    def ask(self, request: Any) -> None:
        if self.site.alive:
            self.site.loop.create_task(self._answered(request))

    async def _answered(self, request: Any) -> None:
        method, say = type(request).__name__.removesuffix("Request"), self.site.timeline.say
        kind, effect = self._effect(request)
        about = getattr(request, "replaces", "") or request.machine
        asked = ask(OPERATOR, method, request.request_id, request)
        turn = "accept" if method == "AcceptMachine" else ""
        try:
            await self._once.answer(asked, kind, lambda: find(self.world, about).id, effect, turn=turn)
        except RefusedError as refused:
            say("operator", refused.line)
            self._heard(request.request_id)
            return
        except StoreError as error:
            say("operator", method, about, str(error))
            return
        say("operator", method, about, "as", request.request_id)
        self.site.invariants.outward.answered(request.request_id)
        self._heard(request.request_id)
        self.site.judge(about)

    def _effect(self, request: Any) -> tuple[Any, Callable[[str], Any]]:
        def on(name: str) -> Any:
            facts = find(self.world, name)
            match request:
                case pb.ForgetMachineRequest():
                    return writes.forget(self, OPERATOR, facts)
                case pb.RevokeMachineRequest():
                    return writes.revoke(self, OPERATOR, facts)
                case pb.AcceptMachineRequest(replaces=""):
                    return writes.accept(self, OPERATOR, facts, writes.clash)
                case _:
                    newcomer = find(self.world, request.machine)
                    return writes.replace_machine(self, OPERATOR, newcomer, facts, writes.clash)

        return getattr(pb, type(request).__name__.replace("Request", "Response")), on
