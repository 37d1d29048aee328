"""`bedplate topology FILE|MACHINE`: from a snapshot in a file, or as the provisioner knows it.

What is on this disk goes before a machine of the same name; `./NAME` and `-` are always files.
"""

import click

from bedplate.v1.fleet_pb2 import GetMachineRequest, GetMachineTopologyRequest
from bedplate.v1.snapshot_pb2 import Snapshot
from provisioner.cli.connection import connected
from provisioner.cli.frame import context_of, examples, form_option, say, say_data
from provisioner.cli.refusals import RefusedError
from provisioner.cli.snapshots import is_file, read
from provisioner.cli.terminal import terminal
from provisioner.cli.views import machines
from provisioner.cli.views import topology as view


@click.command(
    "topology",
    epilog=examples(
        "bedplate topology gpu-07",
        "nodeagent snapshot -o json | bedplate topology -",
        "bedplate topology ./snapshot.json",
    ),
)
@click.argument("source", metavar="FILE|MACHINE")
@form_option
@click.pass_obj
def command(context: str, source: str, form: str) -> None:
    """Show which NIC is nearest to which GPU.

    For a machine without GPUs, show where each of its NICs sits. FILE is what `nodeagent snapshot -o json` printed, or
    the folder of a captured machine; - is the standard input.
    """
    if is_file(source):
        snapshot = read(source)
        _say(snapshot.inventory.identity.hostname or source, snapshot, form)
        return
    doing = f"show the topology of {source}"
    with connected(doing, context_of(context)) as provisioner:
        if form != "table":
            request = GetMachineTopologyRequest(machine=source)
            say_data(form, provisioner.read(doing, provisioner.fleet.GetMachineTopology, request))
            return
        answer = provisioner.read(doing, provisioner.fleet.GetMachine, GetMachineRequest(machine=source))
    if not answer.snapshot.HasField("inventory"):
        raise RefusedError(f"cannot {doing}: it has sent no snapshot yet; see `bedplate explain {source}`")
    _say(machines.line(answer.machine), answer.snapshot, form)


def _say(title: str, snapshot: Snapshot, form: str) -> None:
    if form != "table":
        say_data(form, snapshot.inventory.topology)
        return
    say(view.topology(title, snapshot.inventory, snapshot.vitals, terminal()))
