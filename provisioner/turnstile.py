"""How many calls come in, and from whom: the guard lets each pass here, and whoever is too fast is told when to return.

Rule 1: who holds a certificate is counted by its name; a stranger by its address, and all strangers together.
Rule 2: a call that is a little early waits; one that is much too early is refused with a time (google.rpc.RetryInfo),
        spread so that those who were refused together do not come back together.
Rule 3: nobody's haste is another's wait: nothing here is shared by those who hold certificates.
Rule 4: what waits to be read is in the peer's memory but for the 64 KiB that HTTP/2 lets come unasked, and what is read
        is bounded: of those who hold certificates a few at a time, the others wait; of strangers in number.
"""

import asyncio
import contextlib
import ipaddress
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from provisioner.access import NOBODY, Caller, RefusedError
from provisioner.config import Config
from provisioner.limits import Bucket, Buckets, Places, Rate
from provisioner.turns import Turns

PATIENCE_S: Final = 2.0  # a call that is so early waits here
BURST_S: Final = 10.0  # so many seconds' calls may come at once
STREAMS: Final = Rate(0.5, 20)  # that one machine opens: more than any back-off or two hosts with one name make
STREAMS_AT_ONCE: Final = 4  # of one machine: one that is, and those that wait to take its place
RENEW: Final = "/bedplate.v1.Uplink/Renew"
RENEWALS: Final = Rate(0.1, 10)  # of one machine's certificate, each a signature
AT_ONCE: Final = 4  # calls of one person that are worked at; its others wait for their turn
UNDER_WAY: Final = 2000  # calls of one person or address, those that wait for their turn too
UNDER_WAY_OF_A_MACHINE: Final = 16  # an agent has one
READ_AT_ONCE: Final = 16  # requests of one person that have not come whole: 4 MiB each at most
READ_AT_ONCE_OF_A_MACHINE: Final = 2
UNREAD_OF_AN_ADDRESS: Final = 256  # requests of strangers that have not come whole: 64 KiB each at most
UNREAD_OF_STRANGERS: Final = 1000  # of all together
REFLECTION: Final = "/ServerReflectionInfo"
REFLECTIONS: Final = 4  # of one name or address: a stream on which both speak, and a message may have 4 MiB
FULL_AGAIN_S: Final = 5.0
PLACE_AGAIN_S: Final = 30.0


@dataclass(slots=True)
class Turnstile:
    """One for both ports of a provisioner. `clock` only goes forward."""

    config: Config
    clock: Callable[[], float] = time.monotonic
    _calls: Buckets = field(init=False)
    _addresses: Buckets = field(init=False)
    _strangers: Bucket = field(init=False)
    _streams: Buckets = field(default_factory=lambda: Buckets(STREAMS))
    _renewals: Buckets = field(default_factory=lambda: Buckets(RENEWALS))
    _machines: Places = field(default_factory=lambda: Places(STREAMS_AT_ONCE))
    _watches: Places = field(init=False)
    _turns: Turns = field(default_factory=lambda: Turns(AT_ONCE))
    _under_way: Places = field(default_factory=lambda: Places(UNDER_WAY))
    _under_way_of_machines: Places = field(default_factory=lambda: Places(UNDER_WAY_OF_A_MACHINE))
    _reads: Turns = field(default_factory=lambda: Turns(READ_AT_ONCE))
    _reads_of_machines: Turns = field(default_factory=lambda: Turns(READ_AT_ONCE_OF_A_MACHINE))
    _unread: Places = field(default_factory=lambda: Places(UNREAD_OF_AN_ADDRESS))
    _unread_of_all: Places = field(default_factory=lambda: Places(UNREAD_OF_STRANGERS))
    _reflections: Places = field(default_factory=lambda: Places(REFLECTIONS))

    def __post_init__(self) -> None:
        config = self.config
        self._calls = Buckets(_rate(config.calls_per_s))
        self._addresses = Buckets(_rate(config.enrol_calls_per_s_address))
        self._strangers = Bucket(_rate(config.enrol_calls_per_s))
        self._watches = Places(config.watches)

    def passing(self, method: str, who: Caller, peer: str, *, stays: bool) -> "Passing":
        """For as long as the call runs. `stays`: it is a stream. RefusedError where it is to come back later."""
        return Passing(self, method, who, peer, stays)

    async def enter(self, method: str, who: Caller, peer: str, *, stays: bool) -> tuple[Places, str]:
        """The place that the call has from now on, and under which name."""
        doing = f"cannot call {method.rpartition('/')[2]}"
        if who == NOBODY:
            await self._stranger(doing, address_of(peer))
        elif who.machine_id and (stays or method == RENEW):
            self._machine(doing, who, stays=stays)
        else:
            await self._by_name(doing, who)
        places, name, most = self._place(method, who, peer, stays=stays)
        if not places.enter(name):
            raise later("PLACES", f"{doing}: {most}", PLACE_AGAIN_S if stays else FULL_AGAIN_S)
        return places, name

    def reading(self, who: Caller, peer: str) -> contextlib.AbstractAsyncContextManager[None]:
        """While the request comes. Who holds a certificate waits behind its own; a stranger is told to come back."""
        if who == NOBODY:
            return self._unread_by(address_of(peer))
        return (self._reads_of_machines if who.machine_id else self._reads).of(str(who))

    @contextlib.asynccontextmanager
    async def _unread_by(self, address: str) -> AsyncIterator[None]:
        """First by its address, as with the rate."""
        with contextlib.ExitStack() as stack:
            for places, name, whose in ((self._unread, address, address), (self._unread_of_all, "", "newcomers")):
                if not places.enter(name):
                    line = f"cannot read the request: {places.most} of {whose} have not come whole yet"
                    raise later("PLACES", line, FULL_AGAIN_S)
                stack.callback(places.leave, name)
            yield

    def turn(self, who: Caller, *, stays: bool) -> contextlib.AbstractAsyncContextManager[None]:
        """People ask what looks at all machines: one who asks a thousand times waits behind nobody but itself."""
        person = who.role and not who.machine_id and not stays
        return self._turns.of(str(who)) if person else contextlib.nullcontext()

    def _place(self, method: str, who: Caller, peer: str, *, stays: bool) -> tuple[Places, str, str]:
        """Where the call is held while it runs, under which name, and what is said where there is no room."""
        name = str(who) if who.role else address_of(peer)
        if not stays:
            places = self._under_way_of_machines if who.machine_id else self._under_way
            return places, name, f"{name} has {places.most} calls under way, and may have no more"
        if who.machine_id:
            return self._machines, who.machine_id, f"{who} opens too many streams at once"
        places = self._reflections if method.endswith(REFLECTION) else self._watches
        return places, name, f"{name} has {places.most} streams open, and may have no more"

    async def _stranger(self, doing: str, address: str) -> None:
        """First by its address: one that is too fast alone takes nothing of what is for all."""
        now = self.clock()
        wait_s, taken = self._addresses.take(address, now, patience_s=PATIENCE_S)
        if not taken:
            raise later("ADDRESS_TOO_FAST", f"{doing}: too many calls come from {address}", wait_s)
        if (all_s := self._strangers.wait_s(now)) > PATIENCE_S:
            raise later("STRANGERS_TOO_FAST", f"{doing}: too many newcomers call at once", all_s)
        self._strangers.take(now)
        await _pause(max(wait_s, all_s))

    def _machine(self, doing: str, who: Caller, *, stays: bool) -> None:
        wait_s, taken = (self._streams if stays else self._renewals).take(who.machine_id, self.clock())
        if not taken:
            raise later("MACHINE_TOO_FAST", f"{doing}: {who} does so too often", wait_s)

    async def _by_name(self, doing: str, who: Caller) -> None:
        wait_s, taken = self._calls.take(str(who), self.clock(), patience_s=PATIENCE_S)
        if not taken:
            line = f"{doing}: {who} makes more than {self.config.calls_per_s:g} calls a second"
            raise later("CALLER_TOO_FAST", line, wait_s)
        await _pause(wait_s)


@dataclass(slots=True)
class Passing:
    """A generator would be shorter; there is one for each stream that is open, and this is a kilobyte less."""

    turnstile: Turnstile
    method: str
    who: Caller
    peer: str
    stays: bool
    place: tuple[Places, str] | None = None

    async def __aenter__(self) -> None:
        self.place = await self.turnstile.enter(self.method, self.who, self.peer, stays=self.stays)

    async def __aexit__(self, *_: object) -> None:
        if self.place:
            places, name = self.place
            places.leave(name)


async def _pause(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


def later(reason: str, line: str, wait_s: float) -> RefusedError:
    """Refused, with a time to come back: not before there is room, and not all together."""
    spread_s = max(1.0, wait_s) * random.uniform(1.0, 2.0)  # noqa: S311 - spread, no secret
    wait = Duration()
    wait.FromMilliseconds(int(spread_s * 1000))
    info = error_details_pb2.RetryInfo(retry_delay=wait)
    said = f"{line}; come back in {spread_s:.0f} s"
    return RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, said, info)


def address_of(peer: str) -> str:
    """'ipv4:10.0.0.7:41234' -> '10.0.0.7'; of IPv6 the /64 that one host has all of: 'ipv6:%5B2001:db8::1%5D:1'"""
    host = peer.partition(":")[2].rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host or peer
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped or ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _rate(per_s: float) -> Rate:
    return Rate(per_s, max(1.0, per_s * BURST_S))
