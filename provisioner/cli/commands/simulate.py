"""`bedplate simulate …`: makes a join token and becomes `nodeagent simulate`, to which all arguments go.

Rule: no token is made for arguments that are wrong: the other program is asked first whether it wants one.

The two programs meet only in the protocol: this one hands over a token and nothing else. The token is in memory, behind
a file descriptor, so that it stands in no list of processes and is gone when the simulation is.
"""

import os
import subprocess
import sys
from collections.abc import Sequence

import click
from google.protobuf.duration_pb2 import Duration

from bedplate.v1.fleet_pb2 import CreateTokenRequest
from provisioner.cli.connection import connected
from provisioner.cli.frame import context_of, examples
from provisioner.cli.refusals import RefusedError

DOING = "create token for the simulation"
TTL_S = 86400


@click.command(
    "simulate",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog=examples(
        "bedplate simulate --machines 8",
        "bedplate simulate --machines 2000 --faults silence=0.5,reboot=0.2 --quiet",
        "bedplate simulate --machines 40 --faults all=1 --churn 0.2 --hour 600",
        "bedplate simulate --machines 40 --faults all=1 --plan 2",
        "nodeagent simulate --help",
    ),
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def command(context: str, arguments: tuple[str, ...]) -> None:
    """Run made-up machines against the provisioner, over the real protocol, until Ctrl-C.

    They are made from captured ones; faults befall them by a schedule that the seed decides: silence, flaps, reboots,
    reimages, clones, wrong clocks, swapped parts. All ARGUMENTS go to `nodeagent simulate`, whose --help says what they
    mean; a join token for any number of machines is made first, unless --join-token-file names one.
    """
    words = [sys.executable, "-m", "nodeagent", "simulate", *arguments]
    try:
        if _wants_token(words):
            words += ["--join-token-file", _handed_over(_token(context))]
        os.execv(sys.executable, words)  # noqa: S606 - no shell is the point
    except OSError as error:
        raise RefusedError(f"cannot start the simulation: {sys.executable}: {error.strerror}") from error


def _wants_token(words: Sequence[str]) -> bool:
    """SystemExit where it has said what is wrong."""
    asked = subprocess.run([*words, "--wants-token"], stdout=subprocess.PIPE, check=False)
    if asked.returncode:
        sys.exit(asked.returncode)
    return asked.stdout == b"yes\n"  # and not help, say


def _token(context: str) -> str:
    with connected(DOING, context_of(context)) as provisioner:
        return provisioner.write(
            DOING,
            provisioner.fleet.CreateToken,
            lambda request_id: CreateTokenRequest(request_id=request_id, ttl=Duration(seconds=TTL_S), uses_allowed=0),
        ).join_token


def _handed_over(token: str) -> str:
    """A path that only the next program of this process can read."""
    handle = os.memfd_create("join-token", 0)
    os.fchmod(handle, 0o600)
    os.write(handle, token.encode())
    os.set_inheritable(handle, True)  # noqa: FBT003 - its one argument
    return f"/proc/self/fd/{handle}"
