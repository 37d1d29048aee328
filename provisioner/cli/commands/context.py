"""`bedplate context …`: which provisioner to talk to, and as whom."""

import os
from collections.abc import Mapping
from pathlib import Path

import click

from provisioner.cli import contexts
from provisioner.cli.contexts import Context, Contexts
from provisioner.cli.frame import complete_context, examples, form_option, say, say_plain, tell
from provisioner.cli.refusals import USAGE, RefusedError
from provisioner.cli.table import Cell, Column, table
from provisioner.cli.terminal import terminal

COLUMNS = (Column(""), Column("NAME"), Column("ADDRESS"), Column("CREDENTIALS", at_most=0))


@click.group(
    "context",
    epilog=examples(
        "bedplate context add lab --address 127.0.0.1:7443 --credentials ./admin --use",
        "bedplate context list",
        "bedplate --context lab machines",
    ),
)
def command() -> None:
    """Choose which provisioner to talk to.

    A context names an address, and the files of a CA, a certificate and its key. They are kept in
    ~/.config/bedplate/config.toml; --context NAME and BEDPLATE_CONTEXT go before the current one.
    """


def _load() -> Contexts:
    return contexts.load(contexts.place(os.environ))


def _known(found: Contexts, name: str) -> Context:
    if not name and not found.current and found.known:
        raise RefusedError("cannot show context: none is chosen; bedplate context use NAME", USAGE)
    return found.choose(name)


@command.command(
    "add",
    epilog=examples(
        "bedplate context add lab --address 127.0.0.1:7443 --credentials ./admin --use",
        "bedplate context add lab --address lab.example:7443 --credentials ./alice --replace",
    ),
)
@click.argument("name")
@click.option("-a", "--address", required=True, metavar="HOST:PORT", help="Where the provisioner listens.")
@click.option(
    "-c",
    "--credentials",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The folder with ca.pem, cert.pem and key.pem that `provisioner init` or `provisioner credential` wrote.",
)
@click.option("-u", "--use", is_flag=True, help="Make it the current one.")
@click.option("--replace", is_flag=True, help="Replace the one of that name.")
def add(name: str, address: str, credentials: Path, *, use: bool, replace: bool) -> None:
    """Add a context. The first one is the current one at once."""
    found = _load()
    made = contexts.checked(name, address, {key: credentials / f"{key}.pem" for key in ("ca", "cert", "key")})
    if found.known.get(name, made) != made and not replace:
        raise RefusedError(
            f"cannot add context {name}: there is another of that name; say --replace to replace it", USAGE
        )
    found = found.adding(made, use=use)
    contexts.save(found)
    tell(f"context {name} is {address}" + (", and is the current one" if found.current == name else ""))


@command.command("list", epilog=examples("bedplate context list"))
@form_option
def list_(form: str) -> None:
    """List contexts; the current one has a star."""
    found = _load()
    if form != "table":
        say_plain(form, [_plain(context, found) for _, context in sorted(found.known.items())])
        return
    if not found.known:
        say([f"no context; make one: {contexts.HOW}"])
        return
    rows: list[list[Cell | str]] = [
        [Cell("*" if name == found.current else "", "green"), name, context.address, str(Path(context.cert).parent)]
        for name, context in sorted(found.known.items())
    ]
    say(table(COLUMNS, rows, terminal()))


@command.command(epilog=examples("bedplate context use lab"))
@click.argument("name", shell_complete=complete_context)
def use(name: str) -> None:
    """Make a context the current one."""
    found = _load()
    contexts.save(found.adding(found.choose(name), use=True))
    tell(f"context {name} is the current one")


@command.command(epilog=examples("bedplate context show", "bedplate context show lab -o json"))
@click.argument("name", default="", shell_complete=complete_context)
@form_option
@click.pass_obj
def show(chosen: str, name: str, form: str) -> None:
    """Show a context; the one in use where none is named."""
    found = _load()
    context = _known(found, name or chosen)
    if form != "table":
        say_plain(form, _plain(context, found))
        return
    say([f"{key:8} {value}" for key, value in _plain(context, found).items() if key != "current"])


@command.command(epilog=examples("bedplate context remove lab"))
@click.argument("name", shell_complete=complete_context)
def remove(name: str) -> None:
    """Remove a context. Its credentials stay where they are."""
    found = _load()
    context = found.choose(name)
    contexts.save(found.without(context.name))
    tell(f"context {name} is removed; its credentials stay in {Path(context.key).parent}")


def _plain(context: Context, found: Contexts) -> Mapping[str, object]:
    return {
        "name": context.name,
        "address": context.address,
        "ca": context.ca,
        "cert": context.cert,
        "key": context.key,
        "current": context.name == found.current,
    }
