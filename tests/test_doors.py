"""Connections at both ports: how many, and for how long somebody may hold one without saying anything."""

import asyncio
import contextlib
import time
from pathlib import Path

import grpc
import pytest

from bedplate.v1.enrolment_pb2 import EnrolRequest
from bedplate.v1.fleet_pb2 import GetStatusRequest
from provisioner import ports
from tests import attacks
from tests.crowd import Crowd, crowded, founded
from tests.http2 import OPENING, begun

pytestmark = pytest.mark.slow


async def _refused_well(crowd: Crowd) -> None:
    """A newcomer is answered: that its request is none."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await crowd.stranger().Enrol(EnrolRequest(csr=b"x"), wait_for_ready=True)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_more_connections_than_there_may_be_are_closed_and_the_other_port_notices_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        crowd = founded(tmp_path, enrol_connections=5)
        _, door = attacks.ports(crowd)
        async with crowded(crowd):
            held = [await asyncio.open_connection(*door) for _ in range(5)]
            reader, writer = await asyncio.open_connection(*door)
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 10) == b"", "one too many is closed"
            writer.close()
            assert (await crowd.person().GetStatus(GetStatusRequest())).machines == 0
            for _, one in held:
                one.transport.abort()
            async with asyncio.timeout(20):
                await _refused_well(crowd)

    asyncio.run(main())


@pytest.mark.timeout(150)
def test_whoever_holds_a_connection_and_says_nothing_loses_it(tmp_path: Path) -> None:
    """TLS that never ends, a connection without a call, a call that is begun and never said."""

    async def lost(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while await reader.read(4096):
                pass
        writer.transport.abort()
        return time.monotonic() - began

    async def main() -> None:
        crowd = founded(tmp_path)
        async with crowded(crowd):
            waits = []
            for address in attacks.ports(crowd):
                reader, writer = await asyncio.open_connection(*address)
                writer.write(attacks.HALF_A_HELLO)
                waits.append(lost(reader, writer))
            for body in (b"", begun(1)):
                reader, writer = await attacks.stranger(crowd)
                writer.write(OPENING + body)
                waits.append(lost(reader, writer))
            longest_s = (ports.HANDSHAKE_MS + ports.STRANGER_AGE_MS + ports.STRANGER_IDLE_MS) / 1000
            async with asyncio.timeout(longest_s + 30):
                held = await asyncio.gather(*waits)
            assert min(held) > 1, "not at once either"

    asyncio.run(main())
