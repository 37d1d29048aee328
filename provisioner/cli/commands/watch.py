"""`bedplate watch`: machines or events as they change, a line each, until Ctrl-C.

A provisioner that goes away and comes back costs nothing, nor does one that ends the watch because it is read too
slowly: the watch goes on from the last revision it saw.
"""

import os
import select
import threading
import time
from collections.abc import Callable, Iterator

import click
import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from bedplate.v1.fleet_pb2 import (
    GetStatusRequest,
    WatchEventsRequest,
    WatchEventsResponse,
    WatchMachinesRequest,
    WatchMachinesResponse,
)
from provisioner.cli.connection import PASSING, Provisioner, connected
from provisioner.cli.frame import context_of, examples, say, say_line, tell
from provisioner.cli.program import BROKEN_PIPE
from provisioner.cli.terminal import terminal
from provisioner.cli.views import events as view
from provisioner.cli.views import words

Change = WatchMachinesResponse | WatchEventsResponse
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 15.0


@click.command(
    "watch",
    epilog=examples(
        "bedplate watch",
        "bedplate watch --filter phase=silent",
        "bedplate watch --events -o json | jq -r .event.because",
    ),
)
@click.option("-e", "--events", is_flag=True, help="Events instead of machines, from now on.")
@click.option("-f", "--filter", "terms", default="", metavar="TERMS", help="Machines: as of `bedplate machines`.")
@click.option("-m", "--machine", default="", metavar="MACHINE", help="Events: only those of this machine.")
@click.option(
    "--from", "revision", type=click.IntRange(0), help="Go on after this revision; 0: from the oldest that is kept."
)
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["table", "json", "yaml", "cloudevents"]),
    default="table",
    help="json: lines; cloudevents: lines, for --events.",
)
@click.pass_obj
def command(context: str, terms: str, machine: str, revision: int | None, form: str, *, events: bool) -> None:  # noqa: PLR0913 - one an option
    """Follow machines or events as they change, until Ctrl-C.

    Machines begin with all there are, events with the next one. When the provisioner goes away, the watch waits for it
    and goes on where it was.
    """
    if (events and terms) or (machine and not events):
        raise click.UsageError("--filter is for machines; --machine is for --events")
    if form == "cloudevents" and not events:
        raise click.UsageError("-o cloudevents is for --events")
    doing = "watch events" if events else "watch machines"
    end_with_the_reader()
    with connected(doing, context_of(context)) as provisioner:
        # Whoever cannot be reached now is an error at once; only one that was there is waited for.
        found = provisioner.read(doing, provisioner.fleet.GetStatus, GetStatusRequest())
        start = _events(provisioner, machine) if events else _machines(provisioner, terms)
        first = (found.revision if events else 0) if revision is None else revision
        for change in followed(provisioner, doing, start, first):
            _say(change, form, found.event_source)


def end_with_the_reader() -> None:
    """`bedplate watch | head -n 1` ends with head, and not with the next change, which may be days away.

    Source: poll(2): a pipe whose reader is gone has POLLERR, whether it is asked for or not; a file never has it.
    """

    def wait() -> None:
        reader = select.poll()
        reader.register(1, 0)
        reader.poll()
        os._exit(BROKEN_PIPE)

    threading.Thread(target=wait, name="reader", daemon=True).start()


def _machines(provisioner: Provisioner, terms: str) -> Callable[[int], Iterator[Change]]:
    return lambda after: provisioner.fleet.WatchMachines(WatchMachinesRequest(from_revision=after, filter=terms))


def _events(provisioner: Provisioner, machine: str) -> Callable[[int], Iterator[Change]]:
    return lambda after: provisioner.fleet.WatchEvents(WatchEventsRequest(from_revision=after, machine=machine))


def followed(
    provisioner: Provisioner, doing: str, start: Callable[[int], Iterator[Change]], revision: int
) -> Iterator[Change]:
    """Changes, over as many streams as it takes."""
    wait_s = FIRST_WAIT_S
    while True:
        try:
            for change in start(revision):
                wait_s = FIRST_WAIT_S
                revision = max(revision, _revision(change))
                yield change
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:  # too slow, or one of too many: it may come back
                tell(f"{error.details()}; going on from revision {revision}")
            elif error.code() not in PASSING:
                raise provisioner.failure(doing, error) from error
            elif wait_s == FIRST_WAIT_S:
                tell(f"the provisioner went away ({provisioner.context.address}); waiting for it")
        provisioner.wait(wait_s)
        wait_s = min(wait_s * 2, LONGEST_WAIT_S)


def _revision(change: Change) -> int:
    return change.revision if isinstance(change, WatchMachinesResponse) else change.event.revision


def _say(change: Change, form: str, source: str) -> None:
    if form == "cloudevents" and isinstance(change, WatchEventsResponse):
        from provisioner.cli.views import cloudevents  # noqa: PLC0415 - what only this form pays for

        say([cloudevents.line(change.event, source)])
    elif form != "table":
        say_line(form, change)
    elif isinstance(change, WatchMachinesResponse):
        now = Timestamp(seconds=int(time.time()))
        say([view.machine_line(change.machine, terminal(), gone=change.gone, at=words.clock(now))])
    else:
        say([view.event_line(change.event, terminal())])
