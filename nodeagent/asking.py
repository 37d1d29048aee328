"""What is asked of the provisioner on the way to a certificate, and in which order; one question, one answer.

Rule 1: a key that may be known is shown before the join token is: it spends no use of it, and needs it to be good no
        longer.
Rule 2: whatever is no certificate and no word to wait is an error of one line, with the time to ask again.
"""

import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc

from bedplate.v1.enrolment_pb2 import Credentials, EnrolRequest, EnrolResponse, Evidence, JoinToken
from bedplate.v1.enrolment_pb2_grpc import EnrolmentStub
from bedplate.v1.uplink_pb2 import RenewRequest, RenewResponse
from bedplate.v1.uplink_pb2_grpc import UplinkStub
from nodeagent.errors import BedplateError
from nodeagent.identity import Identity
from nodeagent.meeting import TIMEOUT_S, Met, trouble
from nodeagent.refusal import retry_after

AGAIN_S: Final = 30.0  # after an error, unless the provisioner says its own
FOR: Final = "-for-"  # in a join token's id, before the machine that it is for
OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
Answer = TypeVar("Answer", EnrolResponse, RenewResponse)


class EnrolmentError(BedplateError):
    """The provisioner answered, and it was not a certificate."""

    def __init__(self, line: str, *, code: grpc.StatusCode, again_in_s: float = AGAIN_S) -> None:
        super().__init__(line)
        self.code = code
        self.again_in_s = again_in_s


@dataclass(frozen=True, slots=True)
class Csr:
    csr: bytes
    old: bool  # the provisioner may know its key

    @classmethod
    def of(cls, made: Mapping[str, Any]) -> "Csr":
        """As `nodeagent.keys` says it."""
        return cls(base64.b64decode(made["csr"]), made["old"])


def enrol_request(
    token: JoinToken, csr: bytes, evidence: Evidence, agent_version: str, *, known: bool = False
) -> EnrolRequest:
    """Without the token where the key may be known."""
    request = EnrolRequest(csr=csr, evidence=evidence, agent_version=agent_version)
    if not known:
        request.token_id, request.token_secret = token.token_id, token.secret
    return request


async def come(
    csrs: Sequence[Csr], token: JoinToken, ask: Callable[[bytes, bool], Awaitable[EnrolResponse]]
) -> EnrolResponse:
    """Ask by each key that may be known, and at last by the join token: unless it waits to be a newcomer by then, and
    the token is for anybody. By one that is for this machine it is this machine, whatever it waits to be.
    """
    answer = EnrolResponse()
    for each in csrs:
        if answer.HasField("pending") and not each.old and FOR not in token.token_id:
            break
        try:
            answer = await ask(each.csr, each.old)
        except EnrolmentError as error:
            if not each.old or error.code is not grpc.StatusCode.UNAUTHENTICATED:
                raise
        if answer.HasField("credentials"):
            break
    return answer


async def ask(met: Met, request: EnrolRequest) -> EnrolResponse:
    """One question to the door for newcomers. BedplateError where there is no answer."""
    credentials = grpc.ssl_channel_credentials(met.root_pem)
    async with grpc.aio.secure_channel(met.address, credentials, OPTIONS) as channel:
        try:
            answer: EnrolResponse | None = await EnrolmentStub(channel).Enrol(request, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise await _refused("cannot enrol", met, error) from error
    return _decoded(answer, "cannot enrol", met.address)


async def ask_younger(identity: Identity, address: str, csr: bytes) -> Credentials:
    """One question over the identity that there is. EnrolmentError where it was not answered with a certificate."""
    credentials = grpc.ssl_channel_credentials(identity.ca_pem, identity.key_pem, identity.certificate_pem)
    async with grpc.aio.secure_channel(address, credentials, OPTIONS) as channel:
        try:
            answer: RenewResponse | None = await UplinkStub(channel).Renew(RenewRequest(csr=csr), timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise await _refused("cannot renew the certificate", Met(address, identity.ca_pem), error) from error
    return _decoded(answer, "cannot renew the certificate", address).credentials


def _decoded(answer: Answer | None, what: str, address: str) -> Answer:
    """Grpc gives None for what it cannot decode."""
    if answer is None:
        line = f"{what} with {address}: what it answers is no message of this protocol"
        raise EnrolmentError(line, code=grpc.StatusCode.INTERNAL)
    return answer


async def _refused(what: str, met: Met, error: grpc.aio.AioRpcError) -> EnrolmentError:
    """'cannot enrol with 10.0.0.5:7444: the join token t-… expired at …'"""
    details = error.details() or error.code().name
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        details = await trouble(met) or details.split("last error: ")[-1]
    line = f"{what} with {met.address}: {details.removeprefix('cannot enrol: ')}"
    return EnrolmentError(
        line, code=error.code(), again_in_s=AGAIN_S if (asked := retry_after(error)) is None else asked
    )
