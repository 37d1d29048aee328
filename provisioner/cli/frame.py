"""What commands share: options, the way to the provisioner, and how an answer is printed.

Rule: what was asked for goes to stdout, and nothing else; what is said beside it goes to stderr.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from google.protobuf.message import Message

from provisioner import output
from provisioner.cli import contexts
from provisioner.cli.contexts import Context
from provisioner.cli.program import BROKEN_PIPE
from provisioner.cli.refusals import NO, RefusedError
from provisioner.cli.terminal import plain

Command = TypeVar("Command", bound=Callable[..., Any])

PAGE_SIZE = 1000


def form_option(command: Command) -> Command:
    option = click.option(
        "-o", "--output", "form", type=click.Choice(["table", "json", "yaml"]), default="table", help="How to print it."
    )
    return option(command)


def examples(*lines: str) -> str:
    """As the epilog of a command's help."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def context_of(name: str) -> Context:
    """The one of --context or BEDPLATE_CONTEXT, else the current one."""
    return contexts.load(contexts.place(os.environ)).choose(name)


def complete_context(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    known = contexts.load(contexts.place(os.environ)).known
    return [name for name in sorted(known) if name.startswith(incomplete)]


def say(lines: Sequence[str]) -> None:
    """In one write: a list of thousands is one system call or few. Where nobody reads any more, that is the end."""
    try:
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # click would make a failure of it
        output.drop()
        raise click.exceptions.Exit(BROKEN_PIPE) from None


def tell(line: str) -> None:
    """Beside the answer, for the person: on stderr."""
    sys.stderr.write(plain(line) + "\n")
    sys.stderr.flush()


def data(message: Message) -> Any:
    """Protobuf JSON with the proto's own field names. What is not measured is absent; what is zero is there."""
    from google.protobuf.json_format import Error, MessageToDict  # noqa: PLC0415 - 20 ms that a table need not pay

    try:
        return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    except Error as error:  # a time beyond all years, say
        raise RefusedError(f"cannot print the answer: {error}", NO) from error


def say_data(form: str, found: Message | Sequence[Message]) -> None:
    """A list is one array."""
    say_plain(form, data(found) if isinstance(found, Message) else [data(message) for message in found])


def say_plain(form: str, content: Any) -> None:
    if form == "json":
        say([json.dumps(content, indent=2)])
        return
    import yaml  # noqa: PLC0415 - 20 ms that only YAML pays

    say([yaml.safe_dump(content, sort_keys=False, width=100).rstrip("\n")])


def say_line(form: str, message: Message) -> None:
    """One of many, at once, for a watch that is piped: a line of JSON, a document of YAML."""
    if form == "json":
        say([json.dumps(data(message))])
        return
    say(["---"])
    say_data(form, message)
