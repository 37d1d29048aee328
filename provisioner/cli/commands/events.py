"""`bedplate events`: the newest, in the order in which they happened."""

import click

from bedplate.v1.fleet_pb2 import Event, GetStatusRequest, ListEventsRequest
from provisioner.cli.connection import Provisioner, connected
from provisioner.cli.frame import PAGE_SIZE, context_of, examples, say, say_data
from provisioner.cli.terminal import terminal
from provisioner.cli.views import events as view

DOING = "list events"


@click.command(
    "events",
    epilog=examples(
        "bedplate events",
        "bedplate events --machine gpu-07 --kind machine. --limit 200",
        "bedplate events -o json | jq -r '.[] | [.at, .kind, .because] | @tsv'",
    ),
)
@click.option("-m", "--machine", default="", metavar="MACHINE", help="Only those of this machine, or one forgotten.")
@click.option("-k", "--kind", default="", metavar="PREFIX", help="Only kinds that begin so: 'machine.'.")
@click.option(
    "-n", "--limit", default=50, show_default=True, type=click.IntRange(1), help="At most so many, the newest."
)
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["table", "json", "yaml", "cloudevents"]),
    default="table",
    help="How to print it; cloudevents: lines.",
)
@click.pass_obj
def command(context: str, machine: str, kind: str, limit: int, form: str) -> None:
    """List what happened, oldest first.

    `bedplate watch --events` follows what happens from now on.
    """
    show_events(context, machine, kind, limit, form)


def show_events(context: str, machine: str, kind: str, limit: int, form: str) -> None:
    with connected(DOING, context_of(context)) as provisioner:
        found = newest(provisioner, machine, kind, limit)
        source = source_of(provisioner) if form == "cloudevents" else ""
    if form == "table":
        say(view.events(found, terminal()))
    elif form == "cloudevents":
        from provisioner.cli.views import cloudevents  # noqa: PLC0415 - what only this form pays for

        say([cloudevents.line(event, source) for event in found])
    else:
        say_data(form, found)


def source_of(provisioner: Provisioner) -> str:
    return provisioner.read(DOING, provisioner.fleet.GetStatus, GetStatusRequest()).event_source


def newest(provisioner: Provisioner, machine: str, kind: str, limit: int) -> list[Event]:
    found: list[Event] = []
    token = ""
    while len(found) < limit:
        request = ListEventsRequest(
            machine=machine,
            kind_prefix=kind,
            page_size=min(limit - len(found), PAGE_SIZE),
            page_token=token,
            newest_first=True,
        )
        page = provisioner.read(DOING, provisioner.fleet.ListEvents, request)
        found += page.events
        token = page.next_page_token
        if not token:
            break
    return sorted(found, key=lambda event: event.revision)
