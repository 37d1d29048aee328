"""What stands beside the provisioner in one run: a bare `grpc.aio` server with the same TLS that welcomes and drops.

python -m tests.load.sink STATE     answers {"verb": "port"} and {"verb": "taken"}
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from bedplate.v1.uplink_pb2 import RenewRequest, RenewResponse, SessionRequest, SessionResponse, Welcome
from bedplate.v1.uplink_pb2_grpc import UplinkServicer, add_UplinkServicer_to_server
from provisioner import credentials
from tests.load.talk import answering


class Sink(UplinkServicer):
    """Counts."""

    taken = 0

    async def Session(self, requests: AsyncIterator[SessionRequest], context: Any) -> AsyncIterator[SessionResponse]:  # type: ignore[override]
        yield SessionResponse(welcome=Welcome(epoch=1, vitals_interval_s=300))
        async for _ in requests:
            self.taken += 1

    async def Renew(self, request: RenewRequest, context: Any) -> RenewResponse:
        """A unary call with a body: of any size."""
        self.taken += 1
        return RenewResponse()


async def main(state: Path) -> None:
    authority, sink = credentials.load(state), Sink()
    chain, key = authority.issue_server(["127.0.0.1"], now=time.time())
    tls = grpc.ssl_server_credentials([(key, chain)], authority.roots_pem, require_client_auth=True)
    server = grpc.aio.server()
    add_UplinkServicer_to_server(sink, server)
    port = server.add_secure_port("127.0.0.1:0", tls)
    await server.start()

    async def told_port() -> dict[str, object]:
        return {"port": port}

    async def taken() -> dict[str, object]:
        return {"taken": sink.taken}

    await answering({"port": told_port, "taken": taken})
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
