"""Health and reflection of a port, so that grpcurl and load balancers find their way."""

from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

SERVING = health_pb2.HealthCheckResponse.SERVING


class Health(health.aio.HealthServicer):
    """With the list, which the library leaves out: it raises, and a stranger could fill the log with that."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self._names = names

    async def List(self, _request: Any, _context: Any) -> Any:
        good = health_pb2.HealthCheckResponse(status=SERVING)
        return health_pb2.HealthListResponse(statuses=dict.fromkeys(self._names, good))  # type: ignore[attr-defined]  # its stubs are older


async def describe(server: grpc.aio.Server, *files: FileDescriptor) -> None:
    names = tuple(service.full_name for file in files for service in file.services_by_name.values())
    checks = Health(("", *names))
    for name in ("", *names):
        await checks.set(name, SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
