"""Who arrives at a port and never comes to a call is counted, and nobody else is."""

import asyncio
import contextlib
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from bedplate.v1.enrolment_pb2 import EnrolRequest
from bedplate.v1.fleet_pb2 import GetStatusRequest, GetStatusResponse
from bedplate.v1.uplink_pb2 import Hello, SessionRequest
from provisioner.arrivals import MOST, Arrivals
from provisioner.pki import authority, new_key
from tests import doors
from tests.attacks import HALF_A_HELLO, ports
from tests.crowd import Crowd, crowded, founded, known
from tests.http2 import OPENING, client
from tests.served import Clock

GOOD = "m-aaaaaaaa"
HERE = "ipv4:10.0.0.7:41234"


def test_a_connection_is_counted_once_however_often_it_calls() -> None:
    clock = Clock(0.0)
    arrivals = Arrivals(300.0, clock)
    stream = arrivals.enter(HERE)
    for clock.now in (1.0, 500.0, 1000.0):
        arrivals.leave(arrivals.enter(HERE))
    assert arrivals.called == 1, "its stream is open all the time"
    arrivals.leave(stream)
    clock.now = 1299.0
    arrivals.leave(arrivals.enter(HERE))
    assert arrivals.called == 1
    clock.now = 1899.0
    arrivals.leave(arrivals.enter(HERE))
    assert arrivals.called == 1, "gRPC may look just before that time is over, and then only after another such time"
    clock.now = 2501.0
    arrivals.leave(arrivals.enter(HERE))
    assert arrivals.called == 2, "gRPC has closed that one by now: it is another from the same place"


def test_addresses_without_end_take_no_memory_without_end() -> None:
    clock = Clock(0.0)
    arrivals = Arrivals(300.0, clock)
    streams = [arrivals.enter(f"ipv4:10.0.0.1:{port}") for port in range(100)]
    for number in range(MOST + 100):
        arrivals.leave(arrivals.enter(f"ipv4:10.0.1.1:{number}"))
    assert arrivals.called == MOST + 200
    assert (len(arrivals._open), len(arrivals._idle)) == (100, MOST)
    for stream in streams:
        arrivals.leave(stream)
    clock.now = 602.0
    arrivals.leave(arrivals.enter(HERE))
    assert (len(arrivals._open), len(arrivals._idle)) == (0, 1)


@pytest.mark.slow
def test_a_connection_that_lives_for_nearly_twice_the_idle_time_is_counted_once() -> None:
    idle_s, came = 1.0, list[str]()
    arrivals = Arrivals(idle_s)

    async def called(_: bytes, context: Any) -> bytes:
        came.append(context.peer())
        arrivals.leave(arrivals.enter(came[-1]))
        return b""

    async def main() -> None:
        server = grpc.aio.server(options=[("grpc.max_connection_idle_ms", int(idle_s * 1000))])
        handlers = {"Call": grpc.unary_unary_rpc_method_handler(called)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("any", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        loop = asyncio.get_running_loop()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            begun = loop.time()
            for at_s in (0.0, 0.9, 1.95, 2.4, 3.5):  # of which two are later than the idle time after the one before
                await asyncio.sleep(begun + at_s * idle_s - loop.time())
                await channel.unary_unary("/any/Call")(b"")
        await server.stop(0)

    asyncio.run(main())
    assert len(set(came)) < 3, "it is by that that gRPC leaves it open for longer"
    assert arrivals.called == len(set(came))


async def _comes(crowd: Crowd, port: int, octets: bytes, tls: ssl.SSLContext | None = None) -> None:
    """Connects, says that, and reads until it is closed on it."""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection(*ports(crowd)[port], ssl=tls)
        try:
            writer.write(octets)
            await reader.read()
        finally:
            writer.transport.abort()


async def _goes(crowd: Crowd, port: int) -> None:
    """Connects, and closes: a scan, or what looks whether somebody listens."""
    _, writer = await asyncio.open_connection(*ports(crowd)[port])
    writer.close()
    await writer.wait_closed()


def _strangers(crowd: Crowd, port: int) -> list[Callable[[], Awaitable[None]]]:
    """Each comes once, and to no call."""
    roots = crowd.ca.roots_pem
    ours = client(roots, doors.person(crowd.ca, "olga", "admin", now=time.time()))
    others = client(roots, doors.person(authority(new_key(), now=time.time()), "olga", "admin", now=time.time()))
    return [
        lambda: _goes(crowd, port),
        lambda: _comes(crowd, port, b"GET / HTTP/1.1\r\n\r\n"),
        lambda: _comes(crowd, port, os.urandom(4096)),
        lambda: _comes(crowd, port, HALF_A_HELLO + bytes(600)),
        lambda: _comes(crowd, port, b"GET / HTTP/1.1\r\n\r\n", client(roots)),
        lambda: _comes(crowd, port, b"GET / HTTP/1.1\r\n\r\n", others),
        lambda: _comes(crowd, port, os.urandom(4096), ours),
        lambda: _comes(crowd, port, OPENING + os.urandom(4096), ours),
    ]


async def _status(crowd: Crowd) -> GetStatusResponse:
    """As somebody sees it who has just come, by a connection of its own."""
    answer = await crowd.person("vera", "viewer").GetStatus(GetStatusRequest())
    assert isinstance(answer, GetStatusResponse)
    return answer


def _counted(status: GetStatusResponse) -> dict[str, tuple[int, int]]:
    """By port: without a call, with one."""
    return {
        port.name: (port.connections - port.connections_with_a_call, port.connections_with_a_call)
        for port in status.ports
    }


@pytest.mark.parametrize("port", [0, 1], ids=["the port of all who are known", "the port of newcomers"])
def test_who_never_comes_to_a_call_is_counted_and_who_calls_is_not_among_them(port: int, tmp_path: Path) -> None:
    crowd = founded(tmp_path / "state", known([GOOD]))

    async def main() -> None:
        async with crowded(crowd):
            stream = crowd.machine(GOOD).Session()
            await stream.write(SessionRequest(hello=Hello(run_id=b"g" * 16)))
            assert (await stream.read()).HasField("welcome")
            stranger = crowd.stranger()
            for _ in range(3):
                with pytest.raises(grpc.aio.AioRpcError):  # a call that is refused is one, and counted as that
                    await stranger.Enrol(EnrolRequest(token_id="t-none"))
            before = _counted(await _status(crowd))
            assert before == {"listen": (0, 2), "enrol_listen": (0, 1)}
            comes = _strangers(crowd, port)
            async with asyncio.timeout(40):
                for come in comes:
                    await come()
            name, other = ("listen", "enrol_listen")[:: -1 if port else 1]
            async with asyncio.timeout(10):
                while _counted(status := await _status(crowd))[name][0] < len(comes):
                    pass  # what only connected may be taken up after it is gone
            after = _counted(status)
            assert after[name][0] == len(comes)
            assert after[other][0] == 0
            assert after["enrol_listen"][1] == 1
            assert dict(status.broken_off) == {}
            assert not stream.done()

    asyncio.run(main())


def test_a_method_that_is_not_served_is_refused_and_counted_and_its_connection_came_to_a_call(tmp_path: Path) -> None:
    crowd = founded(tmp_path, known([GOOD]))

    async def main() -> None:
        async with crowded(crowd):
            crowd.stranger()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await crowd.channels[-1].unary_unary("/bedplate.v1.Fleet/GetStatus")(b"", timeout=10)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert (
                refused.value.details() == "cannot call /bedplate.v1.Fleet/GetStatus: this port serves no such method"
            )
            status = await _status(crowd)
            assert dict(status.refused) == {"METHOD_UNKNOWN": 1}
            assert _counted(status)["enrol_listen"] == (0, 1)

    asyncio.run(main())


def test_a_request_that_never_comes_is_counted_and_one_that_came_and_was_given_up_is_not(tmp_path: Path) -> None:
    crowd = founded(tmp_path, known([GOOD]))

    async def main() -> None:
        async with crowded(crowd) as running:
            broken_off = running.fleet.conduct.broken_off
            crowd.person("olga", "viewer")
            channel = crowd.channels[-1]
            call = channel.stream_unary("/bedplate.v1.Fleet/ListMachines")(timeout=10)
            await call.wait_for_connection()
            await call.done_writing()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refused.value.details() == "cannot read the request: the call ended before it was whole"
            assert broken_off == {"Fleet.ListMachines": 1}
            watch = channel.unary_stream("/bedplate.v1.Fleet/WatchMachines")(b"", timeout=10)
            assert await watch.read()
            watch.cancel()
            silent = channel.stream_unary("/bedplate.v1.Fleet/GetMachine")(timeout=10)
            await silent.wait_for_connection()
            await _status(crowd)
            silent.cancel()
            async with asyncio.timeout(10):
                while broken_off["Fleet.GetMachine"] < 1:  # noqa: ASYNC110 - it ends without a word
                    await asyncio.sleep(0.01)
            assert broken_off == {"Fleet.ListMachines": 1, "Fleet.GetMachine": 1}

    asyncio.run(main())
