"""What it takes to become somebody over the wire: a key, and the door for newcomers."""

from dataclasses import dataclass, field
from typing import Any

import grpc
from cryptography import x509

from bedplate.v1.enrolment_pb2 import Credentials, EnrolRequest, EnrolResponse, Evidence, JoinToken
from bedplate.v1.enrolment_pb2_grpc import EnrolmentStub
from bedplate.v1.snapshot_pb2 import Identity
from provisioner.pki import key_pem, key_sha256, new_key
from tests.enrolment_desk import csr_of

OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
LIMIT_S = 5.0


@dataclass(slots=True)
class Newcomer:
    """A host with a key of its own."""

    name: str
    roots_pem: bytes
    door: str
    key: Any = field(default_factory=new_key)

    @property
    def key_sha256(self) -> bytes:
        return key_sha256(self.key.public_key())

    async def ask(self, token: JoinToken | None) -> EnrolResponse:
        """grpc.RpcError where nobody answers."""
        identity = Identity(hostname=self.name, product_serial=f"SN-{self.name}")
        request = EnrolRequest(csr=csr_of(self.key), evidence=Evidence(identity=identity), agent_version="light")
        if token is not None:
            request.token_id, request.token_secret = token.token_id, token.secret
        credentials = grpc.ssl_channel_credentials(self.roots_pem)
        async with grpc.aio.secure_channel(self.door, credentials, OPTIONS) as channel:
            return await EnrolmentStub(channel).Enrol(request, timeout=LIMIT_S)

    def channel(self, address: str, held: Credentials) -> grpc.aio.Channel:
        """To the main port, as the machine that it has become."""
        credentials = grpc.ssl_channel_credentials(self.roots_pem, key_pem(self.key), held.certificate_pem)
        return grpc.aio.secure_channel(address, credentials, OPTIONS)


def serial_number_of(held: Credentials) -> str:
    return f"{x509.load_pem_x509_certificate(held.certificate_pem).serial_number:032x}"
