"""`bedplate audit`: who wrote what; and whether the record is what was written.

Rule: a line of JSON for each entry is the export: all that the filters let through, oldest first, as it was hashed.
"""

import datetime as dt
import re
import time
from collections.abc import Iterator

import click
from google.protobuf.timestamp_pb2 import Timestamp

from bedplate.v1.fleet_pb2 import AuditEntry, ListAuditRequest, ListAuditResponse
from provisioner import chain
from provisioner.cli.connection import Provisioner, connected
from provisioner.cli.frame import PAGE_SIZE, context_of, examples, say, say_data, say_line, tell
from provisioner.cli.terminal import terminal
from provisioner.cli.views import audit as view
from provisioner.cli.views import words

DOING = "list the audit"
USUAL = 50
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class When(click.ParamType[Timestamp]):
    """'2h' (ago), '2026-11-23' or '2026-11-23T11:47:00Z'; without a zone it is UTC, as all that is printed."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Timestamp:
        found = Timestamp()
        if match := re.fullmatch(r"([0-9]{1,6})([smhd])", str(value)):
            found.FromSeconds(int(time.time()) - int(match[1]) * UNITS_S[match[2]])
            return found
        try:
            instant = dt.datetime.fromisoformat(str(value))
            found.FromDatetime(instant if instant.tzinfo else instant.replace(tzinfo=dt.UTC))
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time, as in 2h (ago), 2026-11-23 or 2026-11-23T11:47:00Z", param, ctx)
        return found


class Anchor(click.ParamType[chain.Link]):
    """'42:9f86d081…', as `audit verify` prints it."""

    name = "anchor"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> chain.Link:
        if isinstance(value, chain.Link):
            return value
        try:
            return chain.anchor(str(value))
        except chain.AnchorError as error:
            self.fail(str(error), param, ctx)


@click.group(
    "audit",
    invoke_without_command=True,
    epilog=examples(
        "bedplate audit",
        "bedplate audit --machine gpu-07 --since 2d",
        "bedplate audit --who alice --since 2026-11-01 --until 2026-12-01 -o jsonl > audit.jsonl",
        "bedplate audit verify",
    ),
)
@click.option("-w", "--who", default="", metavar="NAME", help="Only what this person, tool or join token wrote.")
@click.option("-m", "--machine", default="", metavar="MACHINE", help="Only writes to this machine, or one forgotten.")
@click.option("--since", type=When(), default=None, metavar="TIME", help="From then on: 2h (ago), 2026-11-23.")
@click.option("--until", type=When(), default=None, metavar="TIME", help="Before then.")
@click.option(
    "-n", "--limit", type=click.IntRange(1), default=None, help=f"At most so many, the newest: {USUAL}; jsonl: all."
)
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["table", "json", "yaml", "jsonl"]),
    default="table",
    help="How to print it; jsonl is the export.",
)
@click.pass_context
def command(  # noqa: PLR0913, PLR0917 - one for each option
    ctx: click.Context,
    who: str,
    machine: str,
    since: Timestamp | None,
    until: Timestamp | None,
    limit: int | None,
    form: str,
) -> None:
    """List who wrote what, and verify that nobody changed it since.

    Each write is there with what it found and what it left, oldest first.
    """
    if ctx.invoked_subcommand is not None:
        return
    query = ListAuditRequest(who=who, machine=machine, since=since, until=until)
    with connected(DOING, context_of(ctx.obj)) as provisioner:
        if form == "jsonl" and limit is None:
            _export(provisioner, query)
            return
        found = _newest(provisioner, query, limit or USUAL)
    _print(form, found)


def _print(form: str, found: list[AuditEntry]) -> None:
    if form == "table":
        say(view.entries(found, terminal()))
    elif form == "jsonl":
        for entry in found:
            say_line("json", entry)
    else:
        say_data(form, found)


def _export(provisioner: Provisioner, query: ListAuditRequest) -> None:
    for page in _pages(provisioner, query, PAGE_SIZE):
        for entry in page.entries:
            say_line("json", entry)


def _newest(provisioner: Provisioner, query: ListAuditRequest, limit: int) -> list[AuditEntry]:
    query.newest_first = True
    found: list[AuditEntry] = []
    for page in _pages(provisioner, query, min(limit, PAGE_SIZE)):
        found += page.entries
        if len(found) >= limit:
            break
    return found[:limit][::-1]


def _pages(
    provisioner: Provisioner, query: ListAuditRequest, size: int, doing: str = DOING
) -> Iterator[ListAuditResponse]:
    token = ""
    while True:
        request = ListAuditRequest(page_size=size, page_token=token)
        request.MergeFrom(query)
        page = provisioner.read(doing, provisioner.fleet.ListAudit, request)
        yield page
        token = page.next_page_token
        if not token:
            return


@command.command(
    epilog=examples(
        "bedplate audit verify",
        'bedplate audit verify --anchor "$(head -1 anchors)"',
    )
)
@click.option("-a", "--anchor", "anchors", multiple=True, type=Anchor(), help="What it printed once; may be repeated.")
@click.pass_obj
def verify(context: str, anchors: tuple[chain.Link, ...]) -> None:
    """Find a cut, a change, a swap or a removal in the audit.

    The whole chain is read, and each hash computed here. What is printed at the end is an anchor: kept somewhere else,
    it shows later whether somebody who had the provisioner's disk wrote the whole chain anew.
    """
    last, head = chain.START, chain.START
    with connected("verify the audit", context_of(context)) as provisioner:
        for page in _pages(provisioner, ListAuditRequest(), PAGE_SIZE, "verify the audit"):
            last = chain.follow(last, map(_kept, page.entries), anchors)
            head = chain.Link(page.head_sequence, page.head_sha256)
    chain.close(last, head, anchors)
    tell(f"{words.count(last.sequence, 'entry', 'entries')}: the chain is whole; keep this anchor somewhere else")
    say([str(last)])


def _kept(entry: AuditEntry) -> chain.Entry:
    return chain.Entry(
        entry.sequence,
        entry.at.ToNanoseconds(),
        entry.who,
        entry.role,
        entry.method,
        entry.request_id,
        entry.machine_id,
        entry.before,
        entry.after,
        entry.previous_sha256,
        entry.sha256,
    )
