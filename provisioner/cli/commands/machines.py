"""`bedplate machines`: the list, in pages of a thousand, printed once it is whole: columns are as wide as it is."""

import time
from collections.abc import Iterator

import click

from bedplate.v1.fleet_pb2 import ListMachinesRequest, Machine
from provisioner.cli.connection import Provisioner, connected
from provisioner.cli.frame import PAGE_SIZE, context_of, examples, form_option, say, say_data
from provisioner.cli.terminal import terminal
from provisioner.cli.views import machines as view
from provisioner.cli.views.words import PHASE_NAMES

DOING = "list machines"


@click.command(
    "machines",
    epilog=examples(
        "bedplate machines",
        "bedplate machines --phase silent",
        "bedplate machines --filter 'gpus>=8 hostname~rack7' --sort 'gpus desc' --wide",
        "bedplate machines -o json | jq -r '.[].hostname'",
    ),
)
@click.option("-f", "--filter", "terms", default="", metavar="TERMS", help="Terms that all hold: 'gpus>=8 os~ubuntu'.")
@click.option("-s", "--sort", default="", metavar="FIELD", help="A filter's field; 'FIELD desc' or -FIELD turns it.")
@click.option("-w", "--wide", is_flag=True, help="More columns, and nothing cut off.")
@click.option("-p", "--phase", type=click.Choice(PHASE_NAMES), help="Only machines in this phase.")
@form_option
@click.pass_obj
def command(context: str, terms: str, sort: str, phase: str | None, form: str, *, wide: bool) -> None:  # noqa: PLR0913 - one an option
    """List machines.

    A filter is made of terms: a field, an operator, a value. Fields: id, hostname, phase, product, serial, gpus, gpu,
    rdma, os, kernel, agent, problems. Operators: = != ~ (contains), and for numbers >= <= > <. A value with blanks
    stands in double quotes.
    """
    with connected(DOING, context_of(context)) as provisioner:
        found = list(listed(provisioner, both(terms, phase), order(sort)))
    if form == "table":
        say(view.machines(found, terminal(), time.time(), wide=wide))
    else:
        say_data(form, found)


def listed(provisioner: Provisioner, terms: str, order_by: str = "") -> Iterator[Machine]:
    token = ""
    while True:
        request = ListMachinesRequest(filter=terms, order_by=order_by, page_size=PAGE_SIZE, page_token=token)
        page = provisioner.read(DOING, provisioner.fleet.ListMachines, request)
        yield from page.machines
        token = page.next_page_token
        if not token:
            return


def both(terms: str, phase: str | None) -> str:
    return f"{terms} phase={phase}".strip() if phase else terms


def order(sort: str) -> str:
    """'-gpus' -> 'gpus desc'"""
    return f"{sort[1:]} desc" if sort.startswith("-") else sort
