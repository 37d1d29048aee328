"""How long it takes until a problem of one machine is an event for those who watch, while two thousand report.

Each problem is another machine's. One clock is read where it is sent and where it is heard: by a reader of
`Fleet.WatchEvents`, and by a subscriber at Debian's Mosquitto.
"""

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiomqtt
import grpc

from bedplate.v1.fleet_pb2 import WatchEventsRequest
from bedplate.v1.fleet_pb2_grpc import FleetStub
from tests.broker import PROGRAM, Broker
from tests.load.measure import Stage, stage
from tests.load.site import machine_id

MACHINES, PER_S, SECONDS = 2000, 400.0, 25.0
PROBLEMS_PER_S, LATE_S = 16.0, 10.0
MOST_S = 1.0
APPEARED = "machine.problem.appeared"
Heard = dict[str, float]  # machine -> when


def figures() -> list[dict[str, object]]:
    if not Path(PROGRAM).exists():
        print(f"events: {PROGRAM} is not installed, and no MQTT subscriber is measured")
        with stage(MACHINES) as place:
            return asyncio.run(_measured(place, None))
    with tempfile.TemporaryDirectory() as name, Broker(Path(name)) as broker:
        settings = {"mqtt.host": "127.0.0.1", "mqtt.port": broker.port, "mqtt.tls": False}
        with stage(MACHINES, **settings) as place:
            return asyncio.run(_measured(place, broker.port))


async def _measured(place: Stage, broker: int | None) -> list[dict[str, object]]:
    watched, subscribed = Heard(), Heard()
    with place.crowd() as crowd:
        await asyncio.to_thread(crowd.ask, "connect", port=place.place.port, machines=MACHINES)
        await asyncio.to_thread(crowd.ask, "settle", limit_s=30.0)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(_beside(lambda: _watch(place, watched)))
            if broker:
                await stack.enter_async_context(_beside(lambda: _subscribe(broker, subscribed)))
            await asyncio.sleep(3)
            load = {"per_s": PER_S, "seconds": SECONDS, "problems_per_s": PROBLEMS_PER_S}
            told = (await asyncio.to_thread(crowd.ask, "pace", **load))["problems"]
            await asyncio.sleep(LATE_S)
    sent = {machine_id(int(number)): at for number, at in told.items()}
    found = [_figure("a gRPC watcher", sent, watched)]
    return [*found, _figure("an MQTT subscriber", sent, subscribed)] if broker else found


def _figure(whose: str, sent: Heard, heard: Heard) -> dict[str, object]:
    missing = sent.keys() - heard.keys()
    assert not missing, f"{len(missing)} of {len(sent)} problems were not heard of by {whose} within {LATE_S} s"
    late = sorted(heard[name] - at for name, at in sent.items())
    p99 = late[int(0.99 * len(late))]
    print(f"events: {whose}: {len(late)} problems, median {late[len(late) // 2]:.3f} s, p99 {p99:.3f} s")
    name = f"a machine's problem to event at {whose}, {MACHINES:,} machines reporting {PER_S:g}/s: p99"
    return {"name": name, "value": p99, "unit": "s", "aim": MOST_S, "ok": p99 <= MOST_S}


@contextlib.asynccontextmanager
async def _beside(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _watch(place: Stage, heard: Heard) -> None:
    async with grpc.aio.secure_channel(f"127.0.0.1:{place.place.port}", place.admin()) as channel:
        async for message in FleetStub(channel).WatchEvents(WatchEventsRequest(only_new=True)):
            if message.event.kind == APPEARED:
                heard.setdefault(message.event.machine_id, time.time())


async def _subscribe(port: int, heard: Heard) -> None:
    async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe("bedplate/v1/events/+/machine/problem/appeared", qos=1)
        async for message in client.messages:
            heard.setdefault(json.loads(bytes(message.payload))["subject"], time.time())
