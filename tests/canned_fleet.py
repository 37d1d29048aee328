"""A Fleet service over canned machines: a real gRPC server with mTLS, for what only the terminal's side is asked about.

Retries, errors that a well provisioner does not give, and thousands of machines; all else is tried on the real one.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from bedplate.v1 import fleet_pb2 as pb
from bedplate.v1.fleet_pb2_grpc import FleetServicer, add_FleetServicer_to_server
from provisioner import credentials
from provisioner.pki import Authority
from tests.cli_machines import answer, at, gpu_host, machine

PORTS = [
    pb.Port(name="listen", connections=1201, connections_with_a_call=1201),
    pb.Port(name="enrol_listen", connections=4040, connections_with_a_call=40),
]


@dataclass
class CannedFleet(FleetServicer):
    """`unavailable` is how many writes fail before one is taken; `request_ids` are those that came."""

    machines: Sequence[pb.Machine]
    unavailable: int = 0
    busy: int = 0  # lists that are told to come back
    later_s: int = 1
    request_ids: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def ListMachines(self, request, context):
        if self.busy:
            self.busy -= 1
            again = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=self.later_s))
            _refuse(context, 8, f"alice makes more than 100 calls a second; come back in {self.later_s} s", again)
        if "=" not in (request.filter or "="):
            bad = error_details_pb2.BadRequest.FieldViolation(field="filter", description="at 1: 'bogus' is no field")
            _refuse(context, 3, "bad filter", error_details_pb2.BadRequest(field_violations=[bad]))
        start = int(request.page_token or 0)
        page = self.machines[start : start + request.page_size]
        rest = start + request.page_size < len(self.machines)
        return pb.ListMachinesResponse(
            machines=page, next_page_token=str(start + len(page)) if rest else "", total_size=len(self.machines)
        )

    def GetMachine(self, request, context):
        found = [one for one in self.machines if request.machine in {one.machine_id, one.hostname}]
        if not found:
            _refuse(context, 5, f"no machine {request.machine}")
        made = answer(gpu_host())
        made.machine.CopyFrom(found[0])
        return made

    def ExplainMachine(self, request, context):
        silent = machine(9, pb.PHASE_SILENT, because="not heard for 12 minutes")
        return pb.ExplainMachineResponse(
            machine=silent, because=silent.because, evidence=["last heard 05:00:00Z"], advice="see whether it has power"
        )

    def AcceptMachine(self, request, context):
        self.request_ids.append(request.request_id)
        if any(b":viewer" in name for name in context.peer_identities()):
            _refuse(context, 7, "alice (viewer) may not accept machines")
        if len(self.request_ids) <= self.unavailable:
            context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        return pb.AcceptMachineResponse(machine=machine(1))

    def ForgetMachine(self, request, context):
        self.request_ids.append(request.request_id)
        return pb.ForgetMachineResponse(machine=machine(1))

    def CreateToken(self, request, context):
        token = pb.Token(token_id="t-1", uses_allowed=request.uses_allowed, review=request.review, expires_at=at(3600))
        return pb.CreateTokenResponse(token=token, join_token="bedplate1.secret")

    def WatchMachines(self, request, context):
        for one in self.machines:
            yield pb.WatchMachinesResponse(machine=one, revision=one.revision)
        self.done.wait(30)

    def GetStatus(self, request, context):
        counts = {"refused": {"CALLER_TOO_FAST": 1200, "ROLE_TOO_LOW": 2}, "cut_off": {"ORDER": 3}, "slowed_s": 130.0}
        counts |= {"broken_off": {"Uplink.Session": 14, "Enrolment.Enrol": 3}, "ports": PORTS}
        return pb.GetStatusResponse(version="9.9", epoch=3, caller="admin", role="admin", started_at=at(0), **counts)


@contextlib.contextmanager
def serving(folder: Path, fleet: CannedFleet) -> Iterator[tuple[str, Authority]]:
    """Its address; `folder/admin` holds credentials for it."""
    authority = credentials.init(folder, now=time.time())
    chain, key = authority.issue_server(["127.0.0.1", "localhost"], now=time.time())
    pool = ThreadPoolExecutor(8)
    server = grpc.server(pool)
    add_FleetServicer_to_server(fleet, server)
    secure = grpc.ssl_server_credentials([(key, chain)], authority.roots_pem, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", secure)
    server.start()
    try:
        yield f"127.0.0.1:{port}", authority
    finally:
        fleet.done.set()
        server.stop(0).wait()
        pool.shutdown()


def _refuse(context, code, message, *details):
    status = status_pb2.Status(code=code, message=message)
    for detail in details:
        status.details.add().Pack(detail)
    context.abort_with_status(rpc_status.to_status(status))
