"""`provisioner ca …`: the roots that are trusted, and how one takes another's place.

Rule 1: one command, run again to go on. It says where things stand and what its next step does before it takes it.
Rule 2: what would lose somebody is not done, unless that one is named.
"""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click

from provisioner import onroots
from provisioner.decision import Settled, Todo, Wait
from provisioner.errors import BedplateError
from provisioner.rotation import Have, Root, Step, behind, lost, plan, standing, steps

Now = Callable[[], float]
LISTED = 20


def show(state: Path, now: float) -> None:
    have = onroots.have(state, now)
    for root in have.roots:
        click.echo(_line(root, have))
    click.echo("")
    click.echo(standing(have))
    for line in _few([f"{one.shown}: {one.cure}" for one in behind(have)]):
        click.echo(f"  not yet: {line}")
    if len(have.roots) > 1:
        click.echo(f"next: provisioner ca rotate, which will {steps(have)[0].value}")


def _line(root: Root, have: Have) -> str:
    """'root sha256:9f86…  from 2026-11-24 until 2036-11-22  signs, serves'"""
    does = [word for word, key in (("signs", have.signer), ("serves", have.server)) if key == root.key]
    dates = f"from {_day(root.since)} until {_day(root.until)}"
    return f"root sha256:{root.sha256}  {dates}  {', '.join(does) or 'is trusted'}"


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def rotate(state: Path, now: Now, lose: frozenset[str], *, stolen: bool, yes: bool) -> None:
    """One step, or with `stolen` all that are left."""
    have = onroots.have(state, now())
    if unknown := lose - {name for one in behind(have) for name in one.names}:
        raise BedplateError(f"cannot rotate the CA: nobody is lost by the next step who is called {min(unknown)}")
    match plan(have, lose):
        case Wait(because) if not stolen:
            raise BedplateError(f"cannot rotate the CA any further now: {because}; see provisioner ca show")
        case Todo() | Wait() | Settled():
            _go_on(state, have, now, lose, stolen=stolen, yes=yes)


def _go_on(state: Path, have: Have, now: Now, lose: frozenset[str], *, stolen: bool, yes: bool) -> None:  # noqa: PLR0913
    ahead = steps(have) if stolen else steps(have)[:1]
    click.echo(standing(have), err=True)
    for step in ahead:
        click.echo(f"this will {step.value}", err=True)
    for line in _few(lost(have, lose, stolen=stolen)):
        click.echo(f"it will lose {line}", err=True)
    if not yes:
        _confirm()
    for step in ahead:
        onroots.take(state, step, now())
    _told(onroots.have(state, now()), ahead[-1])


def _few(lines: list[str]) -> list[str]:
    """A fleet is large: so many as a terminal shows, and how many more."""
    return [*lines[:LISTED], f"{len(lines) - LISTED} more"] if len(lines) > LISTED else lines


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise BedplateError("cannot rotate the CA: nobody is here to be asked; say --yes if it is meant")
    click.confirm("Go on?", abort=True, err=True)


def _told(have: Have, step: Step) -> None:
    click.echo(DONE[step].format(standing=standing(have)))


DONE = {
    Step.TRUST: "two roots are trusted now. A running provisioner tells machines to renew, spread over minutes: see "
    "provisioner ca show. Give people new credentials with provisioner credential, then run this again",
    Step.SERVE: "the provisioner shows the new root now; the old one is trusted still. Run this again to drop it",
    Step.DROP: "the old root is trusted no more, and the change is complete: {standing}. Back up ca.key and ca.pem",
}
