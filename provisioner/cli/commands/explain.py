"""`bedplate explain MACHINE`: "why is it stuck?" is one call."""

import click

from bedplate.v1.fleet_pb2 import ExplainMachineRequest
from provisioner.cli.connection import connected
from provisioner.cli.frame import context_of, examples, form_option, say, say_data
from provisioner.cli.terminal import terminal
from provisioner.cli.views import explain as view


@click.command("explain", epilog=examples("bedplate explain gpu-07", "bedplate machine explain m-4kq7 -o json"))
@click.argument("machine")
@form_option
@click.pass_obj
def command(context: str, machine: str, form: str) -> None:
    """Say why a machine is in its phase: one sentence, the evidence under it, and what to do."""
    doing = f"explain machine {machine}"
    with connected(doing, context_of(context)) as provisioner:
        answer = provisioner.read(doing, provisioner.fleet.ExplainMachine, ExplainMachineRequest(machine=machine))
    if form == "table":
        say(view.explain(answer, terminal()))
    else:
        say_data(form, answer)
