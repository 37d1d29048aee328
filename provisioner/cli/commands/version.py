"""`bedplate version`: this program's, and the provisioner's where it can be reached."""

from importlib.metadata import version

import click

from bedplate.v1.fleet_pb2 import GetStatusRequest
from provisioner.cli.connection import connected
from provisioner.cli.frame import context_of, examples, form_option, say, say_plain
from provisioner.cli.refusals import RefusedError
from provisioner.cli.terminal import plain

TIMEOUT_S = 3.0


@click.command("version", epilog=examples("bedplate version", "bedplate version -o json"))
@form_option
@click.pass_obj
def command(context: str, form: str) -> None:
    """Print the versions: this program's, and the provisioner's where it can be reached."""
    client, (server, why) = version("bedplate"), _server(context)
    if form != "table":
        say_plain(form, {"client": client, "server": server})
        return
    say([f"bedplate     {client}", plain(f"provisioner  {server or why}")])


def _server(context: str) -> tuple[str, str]:
    """Its version, or why it is not known."""
    try:
        with connected("ask its version", context_of(context)) as provisioner:
            return provisioner.read(
                "ask its version", provisioner.fleet.GetStatus, GetStatusRequest(), TIMEOUT_S
            ).version, ""
    except RefusedError as error:
        return "", str(error)
