"""`bedplate credential …`: certificates of people and tools. They are made on the provisioner's own host."""

import re
import time

import click

from bedplate.v1.fleet_pb2 import Credential, GetStatusRequest, ListCredentialsRequest, RevokeCredentialRequest
from provisioner.cli.commands.machine import confirm
from provisioner.cli.connection import Provisioner, connected
from provisioner.cli.frame import context_of, examples, form_option, say, say_data, tell
from provisioner.cli.refusals import NOT_FOUND, RefusedError
from provisioner.cli.terminal import terminal
from provisioner.cli.views import credentials as view
from provisioner.cli.views import words

SERIAL = re.compile(r"(?:[0-9a-fA-F]{2}:?){15,20}")


@click.group(
    "credential",
    epilog=examples(
        "bedplate credential list",
        "bedplate credential revoke alice",
        "bedplate credential revoke 93b1f0c27a5e4d0f8a6b3c2d1e0f9a8b --yes",
    ),
)
def command() -> None:
    """List certificates of people and tools, and take them back.

    They are made on the provisioner's host: provisioner credential NAME --role ROLE --out FOLDER.
    """


@command.command("list", epilog=examples("bedplate credential list", "bedplate credential list --name alice -o json"))
@click.option("--name", default="", metavar="NAME", help="Only of this name.")
@form_option
@click.pass_obj
def list_(context: str, name: str, form: str) -> None:
    """List the certificates that were made and are not over."""
    with connected("list credentials", context_of(context)) as provisioner:
        found = listed(provisioner, name)
    if form == "table":
        say(view.credentials(found, terminal(), time.time()))
    else:
        say_data(form, found)


def listed(provisioner: Provisioner, name: str) -> list[Credential]:
    request = ListCredentialsRequest(name=name)
    return list(provisioner.read("list credentials", provisioner.fleet.ListCredentials, request).credentials)


@command.command(epilog=examples("bedplate credential revoke alice", "bedplate credential revoke alice --yes"))
@click.argument("which", metavar="NAME|SERIAL")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@form_option
@click.pass_obj
def revoke(context: str, which: str, form: str, *, yes: bool) -> None:
    """Take back all certificates of a name, or the one of a serial number, at once.

    Calls and open streams by them end. A certificate that is made for the name later is good.
    """
    doing = f"revoke credential {which}"
    serial = which.replace(":", "").lower() if SERIAL.fullmatch(which) else ""
    with connected(doing, context_of(context)) as provisioner:
        _foretell(provisioner, which, serial)
        if not yes:
            confirm(doing)
        answer = provisioner.write(
            doing,
            provisioner.fleet.RevokeCredential,
            lambda request_id: RevokeCredentialRequest(
                request_id=request_id, name="" if serial else which, serial_number=serial
            ),
        )
    if form == "table":
        many = words.count(len(answer.credentials), "certificate")
        say([f"{which} is revoked: {many} of those that are known here"])
    else:
        say_data(form, list(answer.credentials))


def _foretell(provisioner: Provisioner, which: str, serial: str) -> None:
    found = [one for one in listed(provisioner, "" if serial else which) if serial in {"", one.serial_number}]
    good = [one for one in found if not one.HasField("revoked_at")]
    if not found and not serial:
        line = f"cannot revoke credential {which}: none was made for that name; see bedplate credential list"
        raise RefusedError(line, NOT_FOUND)
    what = f"the certificate {serial}" if serial else f"all certificates of {which}"
    known = words.count(len(good), "good one")
    tell(f"revoking {what} ({known} known here): calls are refused and open streams end, at once")
    me = provisioner.read("show status", provisioner.fleet.GetStatus, GetStatusRequest())
    if any(one.name == me.caller for one in good):
        tell("among them may be the one that you use now: another is made on the provisioner's host only")
