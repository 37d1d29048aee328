"""Debian's Mosquitto, started by the test on a port of its own; one who listens there; a road to it that can be cut."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.running import PAUSE, free_ports

PROGRAM = "/usr/sbin/mosquitto"
PLAIN = "allow_anonymous true\n"
KEEPS = f"{PLAIN}set_tcp_nodelay true\npersistence true\npersistence_location {{}}/\n"  # what it knows, in that folder


@dataclass
class Broker:
    """`with Broker(tmp_path) as broker`. It may be stopped, killed and started again on the same port."""

    folder: Path
    settings: str = PLAIN
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.port = self.port or free_ports(1)[0]
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        user = "user root\n" if os.geteuid() == 0 else ""
        config = self.folder / "mosquitto.conf"
        config.write_text(f"{user}listener {self.port} 127.0.0.1\nmax_queued_messages 100000\n{self.settings}")
        with (self.folder / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen([PROGRAM, "-c", str(config)], stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while not self._listens():
            assert self.process.poll() is None, (self.folder / "mosquitto.log").read_text()
            assert time.monotonic() < deadline
            PAUSE.wait(0.02)

    def _listens(self) -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(10)

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait(10)


@dataclass
class Heard:
    """What one who subscribes has heard, in order."""

    messages: list[aiomqtt.Message] = field(default_factory=list)
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, message: aiomqtt.Message) -> None:
        self.messages.append(message)
        self._more.set()

    async def until(self, true: Callable[[], bool], still_s: float = 20) -> None:
        """TimeoutError where nothing more has come for so long. How long all of it takes is the machine's affair."""
        while not true():
            self._more.clear()
            async with asyncio.timeout(still_s):
                await self._more.wait()

    @property
    def last(self) -> list[bytes]:
        return [bytes(one.payload) for one in self.messages[-1:]]

    def payloads(self, topic: str) -> list[bytes]:
        return [bytes(one.payload) for one in self.messages if one.topic.matches(topic)]


@contextlib.asynccontextmanager
async def listening(port: int, topic: str, **options: Any) -> AsyncIterator[Heard]:
    """One who has subscribed at QoS 1, for as long as the block runs."""
    heard = Heard()

    async def listen(client: aiomqtt.Client) -> None:
        async for message in client.messages:
            heard.take(message)

    client = aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5, **options)
    async with client:
        await client.subscribe(topic, qos=1)
        task = asyncio.create_task(listen(client))
        try:
            yield heard
        finally:
            task.cancel()
            await asyncio.wait([task])


def kept(name: str) -> dict[str, Any]:
    """Options of a subscriber whose session the broker keeps for a day."""
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 86_400
    return {"identifier": name, "clean_start": False, "properties": properties}


async def retained(port: int) -> dict[str, Any]:
    """What whoever subscribes now is told at once: JSON by topic. It comes before all that is published afterwards."""
    async with listening(port, "#") as heard, aiomqtt.Client("127.0.0.1", port) as client:
        await client.publish("the-end", qos=1)
        await heard.until(lambda: any(one.topic.matches("the-end") for one in heard.messages))
        return {one.topic.value: json.loads(bytes(one.payload)) for one in heard.messages if one.retain}


@dataclass
class Road:
    """To a port on this host. Cut, nobody comes through; laid again, they do."""

    port: int
    leads_to: int
    open: bool = True
    _ends: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        self.open = False
        for end in self._ends:
            end.transport.abort()

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self.leads_to)
        self._ends |= {writer, back}
        await asyncio.gather(_pour(reader, back), _pour(there, writer))
        self._ends -= {writer, back}


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.transport.abort()


@contextlib.asynccontextmanager
async def road(leads_to: int) -> AsyncIterator[Road]:
    made = Road(0, leads_to)
    server = await asyncio.start_server(made.pass_on, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        made.cut()
        server.close()
