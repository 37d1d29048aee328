"""`bedplate machine …`: one machine. What changes something says first what it will do."""

import sys
import time

import click
from google.protobuf.duration_pb2 import Duration

from bedplate.v1.fleet_pb2 import (
    AcceptMachineRequest,
    ForgetMachineRequest,
    GetMachineRequest,
    GetMachineResponse,
    Machine,
    Phase,
    RekeyMachineRequest,
    RevokeMachineRequest,
)
from provisioner.cli.commands.events import show_events
from provisioner.cli.commands.explain import command as explain
from provisioner.cli.commands.token import Ttl
from provisioner.cli.commands.topology import command as topology
from provisioner.cli.connection import Provisioner, connected
from provisioner.cli.frame import context_of, examples, form_option, say, say_data, tell
from provisioner.cli.refusals import USAGE, RefusedError
from provisioner.cli.terminal import plain, terminal
from provisioner.cli.views import machine as view
from provisioner.cli.views import machines, words

ACCEPTED = "is accepted: it gets a certificate the next time it asks"
NOT_PENDING = "was let in before: nothing is changed"


@click.group(
    "machine",
    epilog=examples(
        "bedplate machine show gpu-07",
        "bedplate machine explain m-4kq7zt2x",
        "bedplate machine accept m-4kq7",
        "bedplate machine accept m-9xw2 --replaces gpu-07",
        "bedplate machine accept m-9xw2 --beside gpu-07",
        "bedplate machine revoke gpu-07 --yes",
        "(umask 077; bedplate machine rekey gpu-07 > join-token)",
        "bedplate machine forget gpu-07 --yes",
    ),
)
def command() -> None:
    """Look at one machine, accept it, revoke it, give it a new key, forget it.

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


@command.command(
    epilog=examples("bedplate machine accept m-4kq7zt2x", "bedplate machine accept m-9xw2 --replaces gpu-07 --yes")
)
@click.argument("machine")
@click.option("--replaces", default="", metavar="KNOWN", help="The known machine that it is, installed or built anew.")
@click.option("--beside", default="", metavar="KNOWN", help="Another machine than this one, though it shows the same.")
@click.option("-y", "--yes", is_flag=True, help="With --replaces and --beside: do not ask.")
@form_option
@click.pass_obj
def accept(context: str, machine: str, replaces: str, beside: str, form: str, *, yes: bool) -> None:  # noqa: PLR0913
    """Let a pending machine in: it gets a certificate the next time it asks.

    With --replaces it goes on as a machine that is known, as that one's next incarnation: after a disk was lost, moved
    or wiped, or a mainboard swapped. Whatever still holds the certificate of before is refused.

    With --beside it is a machine of its own, though it shows a serial number or an address of one that is known: where
    a batch has one serial number, and little else to show. What the two have in common says nothing from then on.
    """
    doing = f"accept machine {machine}"
    with connected(doing, context_of(context)) as provisioner:
        found = get(provisioner, doing, machine).machine
        pending = found.phase == Phase.PHASE_PENDING
        says = "it gets a certificate the next time it asks" if pending else "it was let in before: nothing will change"
        tell(f"accepting {who(found)}: {says}")
        if pending:
            tell(f"it {found.because}")
        old = get(provisioner, doing, replaces).machine if replaces else None
        if old:
            tell(f"it takes the place of {who(old)}: the certificate that this one has will be worth nothing")
            still_there(old)
        twin = get(provisioner, doing, beside).machine if beside else None
        if twin:
            tell(f"it is another machine than {who(twin)}: what both of them show identifies nobody from then on")
        if (old or twin) and not yes:
            confirm(doing)
        answer = provisioner.write(
            doing,
            provisioner.fleet.AcceptMachine,
            lambda request_id: AcceptMachineRequest(
                machine=found.machine_id,
                request_id=request_id,
                replaces=old.machine_id if old else "",
                beside=twin.machine_id if twin else "",
            ),
        )
    done(answer.machine, form, ACCEPTED if pending else NOT_PENDING)


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
        still_there(found)
        if not yes:
            confirm(doing)
        # The id and not what was typed: a name could by now belong to another machine.
        answer = provisioner.write(
            doing,
            provisioner.fleet.ForgetMachine,
            lambda request_id: ForgetMachineRequest(machine=found.machine_id, request_id=request_id),
        )
    done(answer.machine, form, "is forgotten")


@command.command(epilog=examples("bedplate machine revoke gpu-07", "bedplate machine revoke m-4kq7zt2x --yes"))
@click.argument("machine")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@form_option
@click.pass_obj
def revoke(context: str, machine: str, form: str, *, yes: bool) -> None:
    """End a machine's certificate at once, as when its key may be stolen.

    The machine stays known, and nobody else can take its place. It comes back with a new key: see rekey.
    """
    doing = f"revoke machine {machine}"
    with connected(doing, context_of(context)) as provisioner:
        found = get(provisioner, doing, machine).machine
        tell(f"revoking {who(found)}: its certificate will be worth nothing; the machine stays known")
        still_there(found)
        if not yes:
            confirm(doing)
        answer = provisioner.write(
            doing,
            provisioner.fleet.RevokeMachine,
            lambda request_id: RevokeMachineRequest(machine=found.machine_id, request_id=request_id),
        )
    done(answer.machine, form, f"is revoked; to let it in again: bedplate machine rekey {answer.machine.machine_id}")


@command.command(
    epilog=examples(
        "(umask 077; bedplate machine rekey gpu-07 > join-token)",
        "(umask 077; bedplate machine rekey gpu-07 --ttl 2d > join-token)",
    )
)
@click.argument("machine")
@click.option("-t", "--ttl", default="1h", show_default=True, type=Ttl(), help="How long it holds: 30m, 1h, 7d.")
@form_option
@click.pass_obj
def rekey(context: str, machine: str, ttl: int, form: str) -> None:
    """Make a join token by which this machine alone comes in again, with a new key.

    It is printed this once, alone on the standard output, and is a secret. Until it is used nothing changes for the
    machine; then it is in its next incarnation, and the certificate that it had is worth nothing.
    """
    doing = f"rekey machine {machine}"
    with connected(doing, context_of(context)) as provisioner:
        found = get(provisioner, doing, machine).machine
        tell(f"making a join token for {who(found)}: what shows its hardware comes in by it once, with a new key")
        tell("once it is used, the certificate that the machine has now is worth nothing, and its stream ends")
        answer = provisioner.write(
            doing,
            provisioner.fleet.RekeyMachine,
            lambda request_id: RekeyMachineRequest(
                machine=found.machine_id, request_id=request_id, ttl=Duration(seconds=ttl)
            ),
        )
    if form == "table":
        say([answer.join_token])
    else:
        say_data(form, answer)
    tell(f"token {answer.token.token_id}: ends {words.ahead(answer.token.expires_at, time.time())}; shown this once")
    tell("on the machine: give the agent this token, and restart it; while its certificate is good it keeps that one")


def still_there(machine: Machine) -> None:
    if machine.phase == Phase.PHASE_PRESENT:
        tell("it is present: its stream will be ended")


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
