"""Events at a broker: in order, at least once, whatever becomes of the broker."""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from bedplate.v1 import fleet_pb2 as pb
from provisioner.world import Noted
from tests.broker import Broker, Heard, Road, listening, road
from tests.outgoing import because_of, delivering, fleet, noted, plain, settled, sinks, troubled
from tests.served import Served, asked

pytestmark = pytest.mark.slow

EVENTS = "bedplate/v1/events/#"


@pytest.fixture
def broker(tmp_path: Path) -> Any:
    with Broker(tmp_path) as made:
        yield made


async def _write(here: Served, first: int, last: int) -> list[str]:
    """So many events; what they say."""
    events = [noted(number) for number in range(first, last + 1)]
    await here.write(*events)
    return [event.because for event in events]


def test_events_arrive_in_order_as_cloud_events(tmp_path: Path, broker: Broker) -> None:
    async def main() -> Heard:
        async with (
            fleet(tmp_path, asked(1)) as here,
            listening(broker.port, EVENTS) as heard,
            delivering(here, sinks(here, mqtt=plain(broker.port))),
        ):
            said = await _write(here, 1, 250)
            await here.write(Noted("machine.problem.appeared", "m-0001", "gpu-01", "rdma mlx5_4/1", "x", 1.0, 7))
            await here.write(Noted("token.created", "", "", "alice made a token", "alice (admin)", 2.0))
            await heard.until(lambda: len(heard.messages) >= 252)
        assert because_of(heard.payloads(f"{EVENTS[:-1]}m-0001/machine/changed")) == said
        return heard

    heard = asyncio.run(main())
    problem, token = heard.messages[-2:]
    assert str(problem.topic) == "bedplate/v1/events/m-0001/machine/problem/appeared"
    assert str(token.topic) == "bedplate/v1/events/fleet/token/created"
    told = json.loads(bytes(problem.payload))
    assert (told["type"], told["subject"]) == ("io.bedplate.machine.problem.appeared.v1", "m-0001")
    assert (told["data"]["incarnation"], told["data"]["count"]) == (1, 7)
    assert "subject" not in json.loads(bytes(token.payload))
    assert (problem.qos, problem.retain) == (1, False)
    properties: Any = problem.properties
    assert properties.ContentType == "application/cloudevents+json; charset=utf-8"
    assert properties.PayloadFormatIndicator == 1


@pytest.mark.slow
def test_a_broker_killed_with_events_under_way_gets_them_again_under_the_same_ids(tmp_path: Path) -> None:
    async def main(broker: Broker) -> None:
        async with (
            fleet(tmp_path, asked(1)) as here,
            road(broker.port) as way,
            delivering(here, sinks(here, mqtt=plain(way.port))) as outbox,
        ):
            async with listening(broker.port, EVENTS) as first:
                said = await _write(here, 1, 3000)
                await first.until(lambda: len(first.messages) > 50)
                way.open = False  # nobody comes back before somebody listens
                broker.kill()
                await troubled(outbox)
            (due, *_) = here.fleet.store.events(after=outbox.standing()[0].revision)
            broker.start()
            async with listening(broker.port, EVENTS) as second:
                way.open = True
                await settled(outbox)
                await second.until(lambda: because_of(second.last) == said[-1:])
        again = second.payloads(EVENTS)
        assert json.loads(again[0])["data"]["revision"] == due.revision, "what the broker had not confirmed comes again"
        assert because_of(again) == said[-len(again) :], "in order, without a gap"
        ids = {json.loads(payload)["id"] for payload in (*first.payloads(EVENTS), *again)}
        assert len(ids) == len({*first.payloads(EVENTS), *again}), "the same event is the same bytes"

    with Broker(tmp_path) as broker:
        asyncio.run(main(broker))


def test_no_more_is_under_way_than_the_broker_takes(tmp_path: Path) -> None:
    async def main(broker: Broker) -> None:
        async with (
            fleet(tmp_path, *(asked(number) for number in range(20))) as here,
            listening(broker.port, EVENTS) as heard,
            delivering(here, sinks(here, mqtt=plain(broker.port))),
        ):
            said = await _write(here, 1, 200)
            await heard.until(lambda: len(heard.messages) == 200)
        assert because_of(heard.payloads(EVENTS)) == said

    with Broker(tmp_path, "allow_anonymous true\nmax_inflight_messages 1\n") as broker:
        asyncio.run(main(broker))
    assert "Receive maximum" not in (tmp_path / "mosquitto.log").read_text(), "whoever exceeds it is thrown out"


def test_a_broker_that_says_nothing_is_told_in_a_line(tmp_path: Path) -> None:
    async def main(port: int) -> None:
        async with fleet(tmp_path, asked(1)) as here, delivering(here, sinks(here, mqtt=plain(port))) as outbox:
            await _write(here, 1, 1)
            await troubled(outbox)
            assert outbox.standing()[0].because == (
                f"cannot reach broker 127.0.0.1:{port}: no answer within 3 s; 1 event waits, and it is tried again"
            )

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        asyncio.run(main(silent.getsockname()[1]))


def test_a_provisioner_that_died_before_it_noted_a_delivery_delivers_again(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        async with fleet(tmp_path, asked(1)) as here, listening(broker.port, EVENTS) as heard:
            mqtt = plain(broker.port)
            async with delivering(here, sinks(here, mqtt=mqtt), dies=True):
                await _write(here, 1, 5)
                await heard.until(lambda: len(heard.messages) >= 5)
            async with delivering(here, sinks(here, mqtt=mqtt)) as outbox:
                await _write(here, 6, 6)
                await settled(outbox)
            async with delivering(here, sinks(here, mqtt=mqtt)):
                await _write(here, 7, 7)
                await heard.until(lambda: len(heard.messages) >= 12)
        told = heard.payloads(EVENTS)
        assert told[:5] == told[5:10], "again, the same bytes, and so the same ids"
        assert because_of(told[10:]) == ["event 6", "event 7"], "its end has noted how far it came"

    asyncio.run(main())


def test_why_events_wait_is_one_call(tmp_path: Path, broker: Broker) -> None:
    async def main(way: Road, here: Served) -> pb.GetStatusResponse:
        way.open = False
        async with delivering(here, sinks(here, mqtt=plain(way.port))) as outbox:
            await _write(here, 1, 2)
            await troubled(outbox)
            here.sinks = outbox.standing
            answer: pb.GetStatusResponse = await here.stub(role="viewer").GetStatus(pb.GetStatusRequest())
            return answer

    async def whole() -> pb.GetStatusResponse:
        async with fleet(tmp_path, asked(1)) as here, road(broker.port) as way:
            return await main(way, here)

    answer = asyncio.run(whole())
    (told,) = answer.sinks
    assert (told.name, told.backlog, told.lost, told.working) == ("mqtt", 2, 0, False)
    assert "broker 127.0.0.1:" in told.because
    assert told.because.endswith("; 2 events wait, and it is tried again")
    assert answer.event_source.startswith("urn:bedplate:fleet:")
