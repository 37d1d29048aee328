"""The command line: which commands there are, and how an ending becomes an exit code.

Rule 1: what a command needs is imported when that command runs: `bedplate --help` answers at once.
Rule 2: nobody sees a traceback for what they did or what the network did; one line says what to do.
"""

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

import click

from provisioner import output
from provisioner.cli.commands import COMMANDS
from provisioner.errors import BedplateError

INTERRUPTED, BROKEN_PIPE = 130, 141

HELP = """The fleet, for people: which machines there are, how they are, and why.

\b
Examples:
  bedplate context add lab --address 127.0.0.1:7443 --credentials ./admin --use
  bedplate machines
  bedplate machines --filter 'gpus>=8 phase=silent'
  bedplate explain gpu-07
"""
EPILOG = """\b
Exit codes:
  0  it worked
  1  the provisioner said no, or had an error
  2  what was typed makes no sense: usage, a filter, an unknown context
  3  there is no such machine or token
  4  the provisioner cannot be reached
  5  this certificate may not do that
"""


class Lazy(click.Group):
    """Commands are modules that are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click asks so
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        found = import_module(f"provisioner.cli.commands.{cmd_name}").command
        if not isinstance(found, click.Command):
            raise TypeError(cmd_name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if close := get_close_matches(args[0], COMMANDS) if args[0] not in COMMANDS else []:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {' or '.join(map(repr, close))}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(
    cls=Lazy,
    help=HELP,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.option("--context", metavar="NAME", envvar="BEDPLATE_CONTEXT", default="", help="Talk to this provisioner.")
@click.pass_context
def program(ctx: click.Context, context: str) -> None:
    ctx.obj = context


def run(arguments: Sequence[str]) -> int:
    """The exit code; what there is to say is said."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own lines would stand between ours
    output.stand()
    for stream in (sys.stdout, sys.stderr):
        # Names come from machines: a terminal that cannot show one must not end the program.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        code = _ended(list(arguments))
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has gone
        output.drop()
        return BROKEN_PIPE
    except OSError as error:
        click.echo(f"bedplate: {output.fault(error)}", err=True)
        return 1
    return code


def _ended(arguments: list[str]) -> int:
    try:
        code = program.main(arguments, prog_name="bedplate", standalone_mode=False)
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BedplateError as error:
        sys.stdout.flush()
        click.echo(f"bedplate: {error}", err=True)
        return getattr(error, "exit_code", 1)
    return code if isinstance(code, int) else 0
