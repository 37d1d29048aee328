"""A broker that is none, or means ill: nobody else notices; it is said, and tried again later and later."""

import asyncio
import time
from pathlib import Path

import pytest

from bedplate.v1.fleet_pb2 import ListMachinesRequest
from provisioner.bus import Broker, Message
from provisioner.config import Mqtt
from provisioner.pki import authority, new_key
from tests.hostile import endless, meeting, once
from tests.outgoing import delivering, fleet, noted, plain, sinks
from tests.receiver import receiving, tls_of
from tests.served import present

pytestmark = pytest.mark.slow
CONNACK = b"\x20\x03\x00\x00\x00"


async def _hangs_up(writer: asyncio.StreamWriter) -> None:
    writer.write(CONNACK)


BREAKS = {
    "hangs up": (_hangs_up, "the connection broke"),
    "speaks something else": (once(CONNACK + b"\xff" * 64), "it does not keep to MQTT 5"),
    "answers with a reason that there is not": (once(CONNACK + b"\x40\x03\x00\x01\x55"), "it does not keep to MQTT 5"),
    "begins a packet of a quarter of a gigabyte": (
        endless(bytes(1 << 16), first=CONNACK + b"\x32\xff\xff\xff\x7f"),
        "it begins a packet of more than 65536 bytes",
    ),
    "sends messages": (endless(b"\x30\x05\x00\x01a\x00x", first=CONNACK), "it sends what nobody has asked it for"),
    "sends messages that are to be kept": (
        endless(b"\x34\x07\x00\x01a\x00\x01\x00x" + b"\x34\x07\x00\x01a\x00\x02\x00x", first=CONNACK),
        "it sends what nobody has asked it for",
    ),
    "says that we have subscribed": (
        once(CONNACK + b"\x90\x04\x00\x01\x00\x00"),
        "it sends what nobody has asked it for",
    ),
    "sends messages of no topic and no text": (
        once(CONNACK + b"\x30\x05\x00\x02\xff\xfe\x00"),
        "it sends what nobody has asked it for",
    ),
}


@pytest.mark.parametrize("does", BREAKS)
def test_whoever_breaks_the_rules_is_left_with_a_sentence_and_met_again_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, does: str
) -> None:
    say, because = BREAKS[does]

    async def whole() -> None:
        async with fleet(tmp_path) as here, meeting(say) as (port, came):
            async with delivering(here, sinks(here, mqtt=plain(port))) as outbox:
                while len(came) < 3:  # noqa: ASYNC110 - as people look
                    await asyncio.sleep(0.01)
                (standing,) = await asyncio.to_thread(outbox.standing)
            assert because in standing.because, standing.because

    asyncio.run(whole())
    assert [record.message for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("packet", [b"\xd0\x00", b"\x40\x03\x00\x07\x00"])
def test_a_broker_that_talks_without_end_takes_nobody_s_turn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, packet: bytes, *, tls: bool
) -> None:
    async def whole() -> None:
        ca = authority(new_key(), now=time.time())
        context = tls_of(ca, tmp_path, time.time()) if tls else None
        async with (
            fleet(tmp_path, *present(1)) as here,
            receiving(tmp_path) as hook,
            meeting(endless(packet * 1000, first=CONNACK), context) as (port, came),
        ):
            mqtt = Mqtt(host="127.0.0.1", port=port, ca_file=str(tmp_path / "ca.pem")) if tls else plain(port)
            async with delivering(here, sinks(here, mqtt=mqtt, webhook=(hook.settings(),))):
                while not came:  # noqa: ASYNC110 - as people look
                    await asyncio.sleep(0.01)
                await here.write(*(noted(number) for number in range(20)))
                answer = await here.stub().ListMachines(ListMachinesRequest(), timeout=10)
                assert [one.machine_id for one in answer.machines] == ["m-0001"]
                async with asyncio.timeout(10):
                    while len(hook.posts) < 20:
                        hook.had.clear()
                        await hook.had.wait()

    asyncio.run(whole())
    assert [record.message for record in caplog.records if record.exc_info] == []


def test_a_provisioner_that_stops_while_the_broker_welcomes_it_stops(tmp_path: Path) -> None:
    """Both at once: what waits for the welcome must not forget that it was told to stop."""
    work: list[asyncio.Task[None]] = []

    async def welcome(writer: asyncio.StreamWriter) -> None:
        writer.write(CONNACK)
        await writer.drain()
        for _ in range(len(work) % 6):
            await asyncio.sleep(0)
        work[-1].cancel()
        await asyncio.Event().wait()

    async def connect(port: int) -> None:
        async with Broker(plain(port), "bedplate").connected(Message("state", b"{}", "application/json")):
            await asyncio.Event().wait()

    async def whole() -> None:
        async with meeting(welcome) as (port, _):
            for _ in range(60):
                work.append(asyncio.create_task(connect(port)))
                _, hang = await asyncio.wait(work[-1:], timeout=20)
                assert not hang

    asyncio.run(whole())
