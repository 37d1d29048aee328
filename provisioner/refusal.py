"""A call that is refused: what a program and what a person is told."""

import asyncio
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from provisioner.errors import BedplateError

DOMAIN: Final = "bedplate"


class RefusedError(BedplateError):
    """A call that is ended with a status: raised by whoever serves it, made into the status by the guard."""

    def __init__(self, code: grpc.StatusCode, reason: str, line: str, *details: Message, **facts: str) -> None:
        super().__init__(line)
        self.code = code
        self.reason = reason  # for programs: "ROLE_TOO_LOW"
        self.line = line  # for people
        self.details = details
        self.facts = facts  # for programs: revision="17"


async def refuse(context: Any, refused: RefusedError) -> NoReturn:
    """End the call with a status whose details a program can read: google.rpc.ErrorInfo, then those given."""
    status = status_pb2.Status(code=refused.code.value[0], message=refused.line)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=refused.reason, domain=DOMAIN, metadata=refused.facts))
    for detail in refused.details:
        status.details.add().Pack(detail)
    try:
        await context.abort(refused.code, refused.line, (("grpc-status-details-bin", status.SerializeToString()),))
    except grpc.aio.InternalError as error:  # it went away instead of reading that: as if it had hung up before
        raise asyncio.CancelledError from error
    raise AssertionError("abort does not return")
