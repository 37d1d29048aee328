"""The three commonest jobs of a provisioning tool: python fleet.py HOST:PORT FOLDER silent|token|watch [REVISION]

FOLDER holds a person's credentials: ca.pem, cert.pem and key.pem.
"""

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
from google.protobuf.duration_pb2 import Duration

from bedplate.v1 import fleet_pb2, fleet_pb2_grpc


def connect(address: str, credentials: Path) -> grpc.Channel:
    ca, key, cert = ((credentials / name).read_bytes() for name in ("ca.pem", "key.pem", "cert.pem"))
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca, key, cert))


def silent(fleet: fleet_pb2_grpc.FleetStub) -> Iterator[str]:
    """Which machines are silent, and why: a page at a time."""
    page = fleet_pb2.ListMachinesRequest(filter="phase=silent", page_size=1000)
    while True:
        answer = fleet.ListMachines(page, timeout=10)
        yield from (f"{machine.hostname}: {machine.because}" for machine in answer.machines)
        if not answer.next_page_token:
            return
        page.page_token = answer.next_page_token


def token(fleet: fleet_pb2_grpc.FleetStub) -> str:
    """A join token for a rack of 16. The request id makes it safe to ask again after a broken connection."""
    request = fleet_pb2.CreateTokenRequest(request_id=str(uuid.uuid4()), ttl=Duration(seconds=3600), uses_allowed=16)
    return fleet.CreateToken(request, timeout=10, wait_for_ready=True).join_token


def watch(fleet: fleet_pb2_grpc.FleetStub, revision: int) -> Iterator[str]:
    """Machines as they change. Keep the revision: a watch from there misses nothing."""
    while True:
        request = fleet_pb2.WatchMachinesRequest(from_revision=revision)
        try:
            for change in fleet.WatchMachines(request, wait_for_ready=True):
                revision = change.revision
                phase = "gone" if change.gone else fleet_pb2.Phase.Name(change.machine.phase)
                yield f"{revision} {change.machine.hostname} {phase}"
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise  # else the provisioner restarts: wait until it is back, and go on where we were


def main(address: str, credentials: str, job: str, revision: str = "0") -> None:
    with connect(address, Path(credentials)) as channel:
        fleet = fleet_pb2_grpc.FleetStub(channel)
        match job:
            case "silent":
                lines = silent(fleet)
            case "token":
                lines = iter([token(fleet)])
            case "watch":
                lines = watch(fleet, int(revision))
            case _:
                sys.exit(__doc__)
        for line in lines:
            print(line, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
