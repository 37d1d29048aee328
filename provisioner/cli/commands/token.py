"""`bedplate token …`: the strings by which a machine and the provisioner know whom they meet."""

import re
import time

import click
from google.protobuf.duration_pb2 import Duration

from bedplate.v1.fleet_pb2 import CreateTokenRequest, ListTokensRequest, RevokeTokenRequest, Token
from provisioner.cli.connection import Provisioner, connected
from provisioner.cli.frame import PAGE_SIZE, context_of, examples, form_option, say, say_data, tell
from provisioner.cli.terminal import terminal
from provisioner.cli.views import tokens as view
from provisioner.cli.views import words

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.group(
    "token",
    epilog=examples(
        "(umask 077; bedplate token create > join-token)",
        "bedplate token create --uses 16 --ttl 2d --review",
        "bedplate token list",
        "bedplate token revoke t-6hq2",
    ),
)
def command() -> None:
    """Make, list and revoke join tokens."""


class Ttl(click.ParamType[int]):
    """'90m' -> 5400 seconds"""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"([0-9]{1,6})([smhd])", str(value))
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is no duration, as in 30m, 1h or 7d", param, ctx)
        return int(match[1]) * UNITS_S[match[2]]


@command.command(
    epilog=examples(
        "(umask 077; bedplate token create > join-token)",
        "bedplate token create --uses 16 --ttl 2d --review",
    )
)
@click.option("-u", "--uses", default=1, show_default=True, type=click.IntRange(0), help="Machines it lets in; 0: any.")
@click.option("-t", "--ttl", default="1h", show_default=True, type=Ttl(), help="How long it holds: 30m, 1h, 7d.")
@click.option("-r", "--review", is_flag=True, help="Its machines wait for `bedplate machine accept`.")
@form_option
@click.pass_obj
def create(context: str, uses: int, ttl: int, form: str, *, review: bool) -> None:
    """Make a join token.

    It is printed this once, alone on the standard output. It is a secret: whoever has it may bring in a machine.
    """
    with connected("create token", context_of(context)) as provisioner:
        answer = provisioner.write(
            "create token",
            provisioner.fleet.CreateToken,
            lambda request_id: CreateTokenRequest(
                request_id=request_id, ttl=Duration(seconds=ttl), uses_allowed=uses, review=review
            ),
        )
    if form == "table":
        say([answer.join_token])
    else:
        say_data(form, answer)
    _advise(answer.token)


def _advise(token: Token) -> None:
    many = words.count(token.uses_allowed, "machine") if token.uses_allowed else "any number of machines"
    tell(f"token {token.token_id}: for {many}, ends {words.ahead(token.expires_at, time.time())}; shown this once")
    tell("on the machine, put it into a file of mode 0600 and name that in the agent's configuration:")
    tell('  join_token_file = "/etc/bedplate/join-token"')
    if token.review:
        tell("then let the machine in: bedplate machines --phase pending; bedplate machine accept MACHINE")


@command.command("list", epilog=examples("bedplate token list", "bedplate token list -o json"))
@form_option
@click.pass_obj
def list_(context: str, form: str) -> None:
    """List join tokens, without their secrets."""
    with connected("list tokens", context_of(context)) as provisioner:
        found = listed(provisioner)
    if form == "table":
        say(view.tokens(found, terminal(), time.time()))
    else:
        say_data(form, found)


def listed(provisioner: Provisioner) -> list[Token]:
    found: list[Token] = []
    token = ""
    while True:
        request = ListTokensRequest(page_size=PAGE_SIZE, page_token=token)
        page = provisioner.read("list tokens", provisioner.fleet.ListTokens, request)
        found += page.tokens
        token = page.next_page_token
        if not token:
            return found


@command.command(epilog=examples("bedplate token revoke t-6hq2"))
@click.argument("token")
@form_option
@click.pass_obj
def revoke(context: str, token: str, form: str) -> None:
    """End a join token. Machines that came in by it stay."""
    doing = f"revoke token {token}"
    with connected(doing, context_of(context)) as provisioner:
        tell(f"revoking token {token}: no machine comes in by it any more; those that did stay")
        answer = provisioner.write(
            doing,
            provisioner.fleet.RevokeToken,
            lambda request_id: RevokeTokenRequest(token_id=token, request_id=request_id),
        )
    if form == "table":
        say([f"token {answer.token.token_id} is revoked, after {words.count(answer.token.uses, 'use')}"])
    else:
        say_data(form, answer.token)
