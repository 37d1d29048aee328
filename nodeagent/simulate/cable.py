"""The cable of one simulated machine: its streams go through this process, so that it can be pulled out or go mute.

Rule 1: it carries bytes and understands none: TLS is between the agent and the provisioner, as without it.
Rule 2: pulled out, both ends see their connection break. Mute, both stand, and what is under way waits: whoever pings
        finds out.
"""

import asyncio
import contextlib
from pathlib import Path

import grpc

from nodeagent.errors import BedplateError
from nodeagent.meeting import endpoint
from nodeagent.uplink import CHANNEL_OPTIONS, Identity

CHUNK = 1 << 16


class Cable:
    def __init__(self, path: Path) -> None:
        """`path`: a socket of its own."""
        self.out = False
        self._path = path
        self._to = ""
        self._server: asyncio.Server | None = None
        self._carried: set[asyncio.Task[None]] = set()
        self._through = asyncio.Event()
        self._through.set()

    async def lay(self) -> None:
        """Where it is not laid already."""
        self._server = self._server or await asyncio.start_unix_server(self._accept, self._path)

    def dial(self, identity: Identity, address: str) -> grpc.aio.Channel:
        """As `uplink.channel`, through the cable."""
        if self.out:
            raise BedplateError(f"cannot reach {address}: No route to host")
        self._to = address
        credentials = grpc.ssl_channel_credentials(identity.ca_pem, identity.key_pem, identity.certificate_pem)
        names = (("grpc.ssl_target_name_override", endpoint(address)[0]), ("grpc.default_authority", address))
        return grpc.aio.secure_channel(f"unix:{self._path}", credentials, (*CHANNEL_OPTIONS, *names))

    def pull_out(self) -> None:
        self.out = True
        self.drop()

    def plug_in(self) -> None:
        self.out = False
        self._through.set()

    def mute(self) -> None:
        self._through.clear()

    def drop(self) -> None:
        """Every connection breaks."""
        for task in self._carried:
            task.cancel()

    def close(self) -> None:
        self.drop()
        if self._server:
            self._server.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer), name=f"cable {self._path.name}")
        self._carried.add(task)
        task.add_done_callback(self._carried.discard)

    async def _carry(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        """One connection, until either end of it is closed."""
        with contextlib.suppress(OSError):
            try:
                await self._through.wait()
                far, forth = await asyncio.open_connection(*endpoint(self._to))
                try:
                    ways = [asyncio.create_task(self._pump(*way)) for way in ((near, forth), (far, back))]
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    forth.transport.abort()
            finally:
                back.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                await self._through.wait()
                sink.write(data)
                await sink.drain()
