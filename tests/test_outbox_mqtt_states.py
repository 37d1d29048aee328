"""What a broker retains: how each machine stands, and whether the provisioner is there."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provisioner.world import Accepted, Forgotten, Met, Parted, SilenceNoted
from tests.broker import KEEPS, Broker, listening, retained, road
from tests.outgoing import delivering, fleet, plain, sinks, troubled
from tests.running import until
from tests.served import asked, present

pytestmark = pytest.mark.slow


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path) as made:
        yield made


def test_how_each_machine_stands_is_retained_until_it_is_forgotten(tmp_path: Path, broker: Broker) -> None:
    topic = "bedplate/v1/machines/m-0002/state"

    async def main() -> None:
        async with (
            fleet(tmp_path, asked(1), *present(2)) as here,
            listening(broker.port, topic) as heard,
            delivering(here, sinks(here, mqtt=plain(broker.port))),
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
            fleet(tmp_path, *present(1)) as here,
            listening(broker.port, "bedplate/v1/machines/#") as heard,
            delivering(here, sinks(here, mqtt=plain(broker.port))),
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
        async with fleet(tmp_path) as here, listening(broker.port, "bedplate/v1/provisioner/state") as heard:
            async with delivering(here, sinks(here, mqtt=plain(broker.port))):
                await heard.until(lambda: len(heard.messages) == 1)
            await heard.until(lambda: len(heard.messages) == 2)
        told = [json.loads(bytes(one.payload)) for one in heard.messages]
        assert [(one["state"], one["epoch"]) for one in told] == [("online", 1), ("offline", 1)]

    asyncio.run(main())


def test_a_road_that_breaks_calls_up_the_last_will(tmp_path: Path, broker: Broker) -> None:
    async def main() -> None:
        topic = "bedplate/v1/provisioner/state"
        async with (
            fleet(tmp_path) as here,
            road(broker.port) as way,
            listening(broker.port, topic) as heard,
            delivering(here, sinks(here, mqtt=plain(way.port))),
        ):
            await heard.until(lambda: len(heard.messages) == 1)
            way.cut()
            await heard.until(lambda: len(heard.messages) == 2)
            way.open = True
            await heard.until(lambda: len(heard.messages) == 3)
        states = [json.loads(bytes(one.payload))["state"] for one in heard.messages[:3]]
        assert states == ["online", "offline", "online"]

    asyncio.run(main())


SAVES = KEEPS + "autosave_interval 1\nautosave_on_changes true\n"  # at each change


@pytest.mark.parametrize(("end", "meanwhile"), [(Broker.stop, "offline"), (Broker.kill, "online")])
def test_a_broker_that_was_stopped_or_killed_says_in_the_end_that_the_provisioner_is_there(
    tmp_path: Path, end: Callable[[Broker], None], meanwhile: str
) -> None:
    """One that is stopped calls up the last will, and keeps it; one that is killed calls up nothing, and what it last
    kept is what it says until the provisioner is back.
    """
    topic, kept = "bedplate/v1/provisioner/state", tmp_path / "mosquitto.db"

    async def main(broker: Broker) -> None:
        async with (
            fleet(tmp_path, *present(1)) as here,
            road(broker.port) as way,
            delivering(here, sinks(here, mqtt=plain(way.port))) as outbox,
        ):
            async with listening(broker.port, "bedplate/v1/machines/#") as heard:
                await heard.until(lambda: len(heard.messages) == 1)
            await asyncio.to_thread(until, lambda: kept.exists() and b'"online"' in kept.read_bytes())
            way.open = False
            end(broker)
            await troubled(outbox)
            broker.start()
            assert (await retained(broker.port))[topic]["state"] == meanwhile
            async with listening(broker.port, topic) as again:
                way.open = True
                await again.until(lambda: len(again.messages) == 2)
            told = [json.loads(bytes(one.payload))["state"] for one in again.messages]
            assert told == [meanwhile, "online"]
            assert (await retained(broker.port))[topic]["state"] == "online"

    with Broker(tmp_path, SAVES.format(tmp_path)) as broker:
        asyncio.run(main(broker))
