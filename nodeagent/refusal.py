"""What a refusal of gRPC carries besides its words."""

import grpc


def retry_after(error: grpc.aio.AioRpcError) -> float | None:
    """The seconds of google.rpc.RetryInfo among the error's details, or None."""
    from google.rpc import error_details_pb2, status_pb2  # noqa: PLC0415 - memory that only a refusal is worth

    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.RetryInfo()
                if detail.Unpack(info):
                    return float(info.retry_delay.ToMicroseconds()) / 1e6
    return None
