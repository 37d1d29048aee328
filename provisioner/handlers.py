"""Puts a door before the handlers of a gRPC server: one that is entered for as long as the call runs."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from provisioner.refusal import RefusedError

Behaviour = Callable[[Any, Any], Any]
Come = Callable[[], Awaitable[Any]]  # reads what the call came with; grpc.aio.EOF: it never came whole
# For as long as the call runs: gives what has come. None: what it says is a stream, and whoever serves it reads it.
Check = Callable[[Any, Come | None], AbstractAsyncContextManager[Any]]


class Undecodable:
    """Stands where a message would, had it been one."""


UNDECODABLE: Final = Undecodable()


def _decoding(deserializer: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """What cannot be decoded is the peer's fault, and no error of ours with a page of the log for each."""
    if deserializer is None:
        return None

    def decoded(octets: bytes) -> Any:
        try:
            return deserializer(octets)
        except DecodeError:
            return UNDECODABLE

    return decoded


def _heard(deserializer: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Of a machine's stream, each message comes as (message, octets): who stores it need not encode it again."""
    decoded = _decoding(deserializer)
    if decoded is None:
        return None

    def heard(octets: bytes) -> Any:
        message = decoded(octets)
        return message if message is UNDECODABLE else (message, octets)

    return heard


def _whole(request: Any) -> None:
    if request is UNDECODABLE:
        line = "cannot read the request: it is no message of this method; see docs/api.md"
        raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "UNDECODABLE", line)


def guarded(handler: Any, check: Check, *, of_machine: bool = False) -> Any:
    """`of_machine`: machines alone call it, and what they stream is to be stored.

    A request that comes alone is read by us, as the first of a stream: to the peer that is the same, and a call is here
    from its headers on. Otherwise gRPC would wait for the request by itself, and let go of a call whose request never
    comes whole without a word to anybody.
    """
    decoding = _heard if of_machine and handler.request_streaming else _decoding
    serializers = {
        "request_deserializer": decoding(handler.request_deserializer),
        "response_serializer": handler.response_serializer,
    }
    match handler.request_streaming, handler.response_streaming:
        case False, False:
            return grpc.stream_unary_rpc_method_handler(_one(handler.unary_unary, check, alone=True), **serializers)
        case False, True:
            return grpc.stream_stream_rpc_method_handler(_many(handler.unary_stream, check, alone=True), **serializers)
        case True, False:
            return grpc.stream_unary_rpc_method_handler(_one(handler.stream_unary, check, alone=False), **serializers)
        case _:
            return grpc.stream_stream_rpc_method_handler(
                _many(handler.stream_stream, check, alone=False), **serializers
            )


def _one(behaviour: Behaviour, check: Check, *, alone: bool) -> Behaviour:
    async def inside(requests: Any, context: Any) -> Any:
        async with check(context, context.read if alone else None) as request:
            _whole(request)
            return await behaviour(request if alone else requests, context)

    return inside


def _many(behaviour: Behaviour, check: Check, *, alone: bool) -> Behaviour:
    """The server tells generators from those that write by looking at the function: so there is a wrapper for each."""
    if not inspect.isasyncgenfunction(behaviour):
        return _one(behaviour, check, alone=alone)

    async def inside(requests: Any, context: Any) -> AsyncIterator[Any]:
        async with check(context, context.read if alone else None) as request:
            _whole(request)
            async for response in behaviour(request if alone else requests, context):
                yield response

    return inside
