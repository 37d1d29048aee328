"""Events at a broker: in order, at least once, whatever becomes of the broker; and what is retained there."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bedplate.v1 import fleet_pb2 as pb
from provisioner.config import Mqtt
from provisioner.world import Accepted, Change, Forgotten, Met, Noted, Parted, SilenceNoted
from tests.broker import Broker, Heard, Road, listening, road
from tests.outgoing import because_of, delivering, noted, settled, sinks, troubled
from tests.served import Served, asked, present, served

EVENTS = "bedplate/v1/events/#"


@pytest.fixture
def broker(tmp_path: Path) -> Any:
    with Broker(tmp_path) as made:
        yield made


def _mqtt(port: int, **settings: Any) -> Mqtt:
    return Mqtt(host="127.0.0.1", port=port, tls=False, **settings)


@contextlib.asynccontextmanager
async def _fleet(folder: Path, *changes: Change) -> AsyncIterator[Served]:
    async with asyncio.timeout(50), served(folder, changes) as here:
        yield here


async def _write(here: Served, first: int, last: int) -> list[str]:
    """So many events; what they say."""
    events = [noted(number) for number in range(first, last + 1)]
    await here.write(*events)
    return [event.because for event in events]


def test_events_arrive_in_order_as_cloud_events(tmp_path: Path, broker: Broker) -> None:
    async def main() -> Heard:
        async with (
            _fleet(tmp_path, asked(1)) as here,
            listening(broker.port, EVENTS) as heard,
            delivering(here, sinks(here, mqtt=_mqtt(broker.port))),
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


def test_a_broker_that_is_away_for_an_hour_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An hour of a fleet in trouble: more events than any batch or queue holds, all of them while nobody listens."""
    settings = f"allow_anonymous true\npersistence true\npersistence_location {tmp_path}/\n"
    kept = {"identifier": "automation", "clean_start": False, "properties": _an_hour()}

    async def main(broker: Broker) -> None:
        async with _fleet(tmp_path, asked(1)) as here, delivering(here, sinks(here, mqtt=_mqtt(broker.port))) as outbox:
            async with listening(broker.port, EVENTS, **kept) as heard:
                before = await _write(here, 1, 3)
                await heard.until(lambda: len(heard.messages) == 3)
            await settled(outbox)
            broker.stop()
            away = await _write(here, 4, 5003)
            await troubled(outbox)
            assert outbox.standing()[0].backlog == 5000
            broker.start()
            async with listening(broker.port, EVENTS, **kept) as again:
                await again.until(lambda: because_of(again.last) == away[-1:])
                await settled(outbox)
        events = {json.loads(payload)["id"]: payload for payload in (*heard.payloads(EVENTS), *again.payloads(EVENTS))}
        assert because_of(list(events.values())) == [*before, *away], "each once by its id, in order"

    caplog.set_level(logging.INFO, "provisioner")
    with Broker(tmp_path, settings) as broker:
        asyncio.run(main(broker))
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("mqtt: ")]
    assert len(said) <= 3, said
    assert said[-1] == "mqtt: events go out again"


def _an_hour() -> Any:
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 3600
    return properties


def test_a_broker_killed_with_events_under_way_gets_them_again_under_the_same_ids(tmp_path: Path) -> None:
    async def main(broker: Broker) -> None:
        async with (
            _fleet(tmp_path, asked(1)) as here,
            road(broker.port) as way,
            delivering(here, sinks(here, mqtt=_mqtt(way.port))) as outbox,
        ):
            async with listening(broker.port, EVENTS) as first:
                said = await _write(here, 1, 3000)
                await first.until(lambda: len(first.messages) > 50)
                way.open = False  # nobody comes back before somebody listens
                broker.kill()
                await troubled(outbox)
            place = outbox.standing()[0].revision
            broker.start()
            async with listening(broker.port, EVENTS) as second:
                way.open = True
                await settled(outbox)
                await second.until(lambda: because_of(second.last) == said[-1:])
        again = second.payloads(EVENTS)
        assert json.loads(again[0])["data"]["revision"] == place + 1, "what the broker had not confirmed comes again"
        assert because_of(again) == said[-len(again) :], "in order, without a gap"
        ids = {json.loads(payload)["id"] for payload in (*first.payloads(EVENTS), *again)}
        assert len(ids) == len({*first.payloads(EVENTS), *again}), "the same event is the same bytes"

    with Broker(tmp_path) as broker:
        asyncio.run(main(broker))


def test_a_provisioner_that_died_before_it_noted_a_delivery_delivers_again(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        async with _fleet(tmp_path, asked(1)) as here, listening(broker.port, EVENTS) as heard:
            mqtt = _mqtt(broker.port)
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


def test_how_each_machine_stands_is_retained_until_it_is_forgotten(tmp_path: Path, broker: Broker) -> None:
    topic = "bedplate/v1/machines/m-0002/state"

    async def main() -> None:
        async with (
            _fleet(tmp_path, asked(1), *present(2)) as here,
            listening(broker.port, topic) as heard,
            delivering(here, sinks(here, mqtt=_mqtt(broker.port))),
        ):
            await heard.until(lambda: len(heard.messages) == 1)
            await here.write(
                Parted("m-0002", "s-2", "no keepalive", 1_799_999_995.0),
                SilenceNoted("m-0002", silent=True, at=1_800_000_060.0),
            )
            await heard.until(lambda: len(heard.messages) == 2)
            async with listening(broker.port, "bedplate/v1/#") as late:
                await late.until(lambda: len(late.messages) == 3)
                retained = {str(one.topic): json.loads(bytes(one.payload)) for one in late.messages}
            await here.write(Met("m-0002", "s-3", 1, b"r" * 16, "0.1.0", "boot", "10.0.0.8", 0.0, 1.8e9))
            await heard.until(lambda: len(heard.messages) == 3)
            await here.write(Forgotten("m-0002", 9.0))
            await heard.until(lambda: len(heard.messages) == 4)
            async with listening(broker.port, "bedplate/v1/machines/+/state") as last:
                await last.until(lambda: len(last.messages) == 1)
        assert retained["bedplate/v1/provisioner/state"]["state"] == "online"
        assert retained["bedplate/v1/machines/m-0001/state"]["phase"] == "pending"
        silent = retained[topic]
        assert (silent["phase"], silent["hostname"], silent["problem_count"]) == ("silent", "gpu-02", 0)
        assert silent["because"] == "its stream ended at 2027-01-15T07:59:55Z (no keepalive); nothing heard since"
        assert [json.loads(payload)["phase"] for payload in heard.payloads(topic)[:3]] == [
            "present",
            "silent",
            "present",
        ]
        assert heard.payloads(topic)[3] == b""
        assert str(last.messages[0].topic) == "bedplate/v1/machines/m-0001/state"

    asyncio.run(main())


def test_a_state_that_did_not_change_is_not_published_again(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        async with (
            _fleet(tmp_path, *present(1)) as here,
            listening(broker.port, "bedplate/v1/machines/#") as heard,
            delivering(here, sinks(here, mqtt=_mqtt(broker.port))),
        ):
            await heard.until(lambda: len(heard.messages) == 1)
            await here.write(Met("m-0001", "s-9", 1, b"r" * 16, "0.2.0", "boot", "10.0.0.7", 0.0, 1.8e9))
            await here.write(Accepted("m-0001", 5.0))
            await here.write(asked(2))
            await heard.until(lambda: len(heard.messages) == 2)
        assert str(heard.messages[1].topic) == "bedplate/v1/machines/m-0002/state"

    asyncio.run(main())


def test_an_end_is_told_as_such_and_no_last_will_is_called_up(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        async with _fleet(tmp_path) as here, listening(broker.port, "bedplate/v1/provisioner/state") as heard:
            async with delivering(here, sinks(here, mqtt=_mqtt(broker.port))):
                await heard.until(lambda: len(heard.messages) == 1)
            await heard.until(lambda: len(heard.messages) == 2)
        told = [json.loads(bytes(one.payload)) for one in heard.messages]
        assert [(one["state"], one["epoch"]) for one in told] == [("online", 1), ("offline", 1)]

    asyncio.run(main())


def test_a_road_that_breaks_calls_up_the_last_will(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        topic = "bedplate/v1/provisioner/state"
        async with (
            _fleet(tmp_path) as here,
            road(broker.port) as way,
            listening(broker.port, topic) as heard,
            delivering(here, sinks(here, mqtt=_mqtt(way.port))),
        ):
            await heard.until(lambda: len(heard.messages) == 1)
            way.cut()
            await heard.until(lambda: len(heard.messages) == 2)
            way.open = True
            await heard.until(lambda: len(heard.messages) == 3)
        states = [json.loads(bytes(one.payload))["state"] for one in heard.messages[:3]]
        assert states == ["online", "offline", "online"]

    asyncio.run(main())


def test_why_events_wait_is_one_call(tmp_path: Path, broker: Broker) -> None:
    async def main(way: Road, here: Served) -> pb.GetStatusResponse:
        way.open = False
        async with delivering(here, sinks(here, mqtt=_mqtt(way.port))) as outbox:
            await _write(here, 1, 2)
            await troubled(outbox)
            here.sinks = outbox.standing
            answer: pb.GetStatusResponse = await here.stub(role="viewer").GetStatus(pb.GetStatusRequest())
            return answer

    async def whole() -> pb.GetStatusResponse:
        async with _fleet(tmp_path, asked(1)) as here, road(broker.port) as way:
            return await main(way, here)

    answer = asyncio.run(whole())
    (told,) = answer.sinks
    assert (told.name, told.backlog, told.lost, told.working) == ("mqtt", 2, 0, False)
    assert "broker 127.0.0.1:" in told.because
    assert told.because.endswith("; 2 events wait, and it is tried again")
    assert answer.event_source.startswith("urn:bedplate:fleet:")
