"""`bedplate machine …`: one machine. What changes something says first what it will do."""

import sys
import time

import click

from bedplate.v1.fleet_pb2 import (
    AcceptMachineRequest,
    ForgetMachineRequest,
    GetMachineRequest,
    GetMachineResponse,
    Machine,
    Phase,
)
from provisioner.cli.commands.events import show_events
from provisioner.cli.commands.explain import command as explain
from provisioner.cli.commands.topology import command as topology
from provisioner.cli.connection import Provisioner, connected
from provisioner.cli.frame import context_of, examples, form_option, say, say_data, tell
from provisioner.cli.refusals import USAGE, RefusedError
from provisioner.cli.terminal import plain, terminal
from provisioner.cli.views import machine as view
from provisioner.cli.views import machines, words


@click.group(
    "machine",
    epilog=examples(
        "bedplate machine show gpu-07",
        "bedplate machine explain m-4kq7zt2x",
        "bedplate machine accept m-4kq7",
        "bedplate machine forget gpu-07 --yes",
    ),
)
def command() -> None:
    """Look at one machine, accept it, forget it.

    MACHINE is an id, a hostname that only one machine has, or the beginning of an id that only one has.
    """


command.add_command(explain)
command.add_command(topology)


def get(provisioner: Provisioner, doing: str, machine: str) -> GetMachineResponse:
    return provisioner.read(doing, provisioner.fleet.GetMachine, GetMachineRequest(machine=machine))


@command.command(epilog=examples("bedplate machine show gpu-07", "bedplate machine show gpu-07 -o json | jq .snapshot"))
@click.argument("machine")
@click.option("-a", "--all", "everything", is_flag=True, help="Fold no list.")
@form_option
@click.pass_obj
def show(context: str, machine: str, form: str, *, everything: bool) -> None:
    """Show what a machine is, what it is made of, and how it is."""
    doing = f"show machine {machine}"
    with connected(doing, context_of(context)) as provisioner:
        answer = get(provisioner, doing, machine)
    if form == "table":
        say(view.page(answer, terminal(), time.time(), everything=everything))
    else:
        say_data(form, answer)


@command.command(epilog=examples("bedplate machine events gpu-07", "bedplate machine events gpu-07 --limit 5 -o json"))
@click.argument("machine")
@click.option(
    "-n", "--limit", default=50, show_default=True, type=click.IntRange(1), help="At most so many, the newest."
)
@form_option
@click.pass_obj
def events(context: str, machine: str, limit: int, form: str) -> None:
    """List what happened to a machine."""
    show_events(context, machine, "", limit, form)


@command.command(epilog=examples("bedplate machine accept m-4kq7zt2x"))
@click.argument("machine")
@form_option
@click.pass_obj
def accept(context: str, machine: str, form: str) -> None:
    """Let a pending machine in: it gets a certificate the next time it asks."""
    doing = f"accept machine {machine}"
    with connected(doing, context_of(context)) as provisioner:
        found = get(provisioner, doing, machine).machine
        tell(f"accepting {who(found)}, which asked {words.ago(found.asked_at, time.time())}")
        answer = provisioner.write(
            doing,
            provisioner.fleet.AcceptMachine,
            lambda request_id: AcceptMachineRequest(machine=found.machine_id, request_id=request_id),
        )
    done(answer.machine, form, "is accepted: it gets a certificate the next time it asks")


@command.command(epilog=examples("bedplate machine forget gpu-07", "bedplate machine forget m-4kq7zt2x --yes"))
@click.argument("machine")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@form_option
@click.pass_obj
def forget(context: str, machine: str, form: str, *, yes: bool) -> None:
    """Forget a machine: its certificate is worth nothing from then on.

    The host itself is not touched. To come back, it has to be given a join token again.
    """
    doing = f"forget machine {machine}"
    with connected(doing, context_of(context)) as provisioner:
        found = get(provisioner, doing, machine).machine
        tell(f"forgetting {who(found)}: its certificate will be worth nothing; the host itself is not touched")
        if found.phase == Phase.PHASE_PRESENT:
            tell("it is present: its stream will be ended")
        if not yes:
            confirm(doing)
        # The id and not what was typed: a name could by now belong to another machine.
        answer = provisioner.write(
            doing,
            provisioner.fleet.ForgetMachine,
            lambda request_id: ForgetMachineRequest(machine=found.machine_id, request_id=request_id),
        )
    done(answer.machine, form, "is forgotten")


def who(machine: Machine) -> str:
    parts = [machines.line(machine), machine.product, f"serial {machine.serial}" if machine.serial else ""]
    return plain(", ".join(part for part in parts if part))


def confirm(doing: str) -> None:
    """A script has to have said it; a person is asked."""
    if not sys.stdin.isatty():
        raise RefusedError(f"cannot {doing}: nobody is here to be asked; say --yes if it is meant", USAGE)
    click.confirm("Go on?", abort=True, err=True)


def done(machine: Machine, form: str, what: str) -> None:
    if form == "table":
        say([f"{plain(machines.line(machine))} {what}"])
    else:
        say_data(form, machine)
