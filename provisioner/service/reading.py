"""How a watch is sent: as fast as its reader reads, and not for longer than it may take for one message.

Rule 1: a reader that takes nothing for `patience_s` is cut off, with the revision from which it may resume: all up to
        there is under way to it. What it missed meanwhile is kept nowhere: state, not a queue.
Rule 2: what the watch held is let go before the reader is told, which may be never: the status waits behind what it
        has not read, in the few kilobytes that HTTP/2 lets one stream have.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as details

from bedplate.v1.fleet_pb2 import WatchEventsResponse, WatchMachinesResponse
from provisioner.access import RefusedError

PATIENCE_S = 30.0
AGAIN_S = 1
Change = TypeVar("Change", WatchMachinesResponse, WatchEventsResponse)


async def read_by(context: Any, watch: AsyncGenerator[Change, None], patience_s: float) -> None:
    """Until the reader goes. RefusedError where it stopped to read."""
    async with aclosing(watch):
        async for response in watch:
            writing: asyncio.Future[None] = asyncio.ensure_future(context.write(response))
            done, _ = await asyncio.wait([writing], timeout=patience_s)
            if not done:
                writing.add_done_callback(_forsake)
                raise _too_slow(_revision(response), patience_s)
            writing.result()


def _too_slow(revision: int, patience_s: float) -> RefusedError:
    line = (
        f"cannot go on with this watch: its reader took nothing for {patience_s:g} s; "
        f"begin again from revision {revision}"
    )
    again = details.RetryInfo(retry_delay=Duration(seconds=AGAIN_S))
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    return RefusedError(code, "READER_TOO_SLOW", line, again, revision=str(revision))


def _revision(response: WatchMachinesResponse | WatchEventsResponse) -> int:
    return response.revision if isinstance(response, WatchMachinesResponse) else response.event.revision


def _forsake(writing: "asyncio.Future[None]") -> None:
    """It ends with the stream; that it did not go well is nobody's concern."""
    writing.cancelled() or writing.exception()
