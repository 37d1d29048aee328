"""What a refusal of gRPC carries besides its words, and what gRPC is not to say of an answer that is none."""

import contextlib
import logging

import grpc
from google.protobuf.message import DecodeError

# A page of the log for each message that cannot be decoded: whoever reads it says so in a line.
logging.getLogger("grpc._common").setLevel(logging.CRITICAL)


def retry_after(error: grpc.aio.AioRpcError) -> float | None:
    """The seconds of google.rpc.RetryInfo among the error's details; None where there are none, or they are garbled."""
    from google.rpc import error_details_pb2, status_pb2  # noqa: PLC0415 - memory that only a refusal is worth

    info = error_details_pb2.RetryInfo()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            with contextlib.suppress(DecodeError):
                if any(detail.Unpack(info) for detail in status_pb2.Status.FromString(value).details):
                    return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    return None
