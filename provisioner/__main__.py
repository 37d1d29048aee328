"""The program `provisioner`: makes the CA, serves, issues credentials.

Rule: bad input is one line, `cannot verb thing: cause`, and a non-zero exit; a person never sees a traceback.
"""

import asyncio
import faulthandler
import gc
import logging
import os
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version as installed
from importlib.util import find_spec
from pathlib import Path

if missing := [
    name for name in ("alembic", "click", "logging_journald", "sqlalchemy", "zstandard") if find_spec(name) is None
]:
    sys.exit(f"provisioner: cannot start: {missing[0]} is not installed; pip install 'bedplate[provisioner]'")

import click

from provisioner import logs, output
from provisioner.config import Config, load
from provisioner.errors import BedplateError

CONFIG = Path("/etc/bedplate/provisioner.toml")


@dataclass(frozen=True, slots=True)
class _Where:
    """Where the state is: of the configuration, unless --state says otherwise."""

    config: Path | None
    state: Path | None

    def read(self) -> Config:
        import msgspec  # noqa: PLC0415 - `--help` does without

        config = load(self.config) if self.config else load(CONFIG) if CONFIG.exists() else Config()
        return msgspec.structs.replace(config, state=str(self.state)) if self.state else config


def _examples(*lines: str) -> str:
    """As the epilog of a command's help: click leaves what stands behind this letter as it is."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_examples(
        "provisioner --state /var/lib/bedplate/provisioner init",
        "provisioner run",
        "provisioner credential alice --role viewer --out ./alice",
    ),
)
@click.option("--config", type=click.Path(path_type=Path), help=f"Configuration file; {CONFIG} where there is one.")
@click.option("--state", type=click.Path(path_type=Path), help="State folder, instead of the configuration's.")
@click.pass_context
def cli(context: click.Context, config: Path | None, state: Path | None) -> None:
    """The central service of Bedplate."""
    context.obj = _Where(config, state)


@cli.command()
@click.option("--admin", default="admin", show_default=True, help="The first admin's name.")
@click.pass_obj
def init(where: _Where, admin: str) -> None:
    """Make the CA and the first admin's credentials in the state folder."""
    from provisioner import onhost  # noqa: PLC0415 - `--help` does without

    config = where.read()
    made = onhost.init(config.folder, admin, time.time())
    click.echo(f"made a CA in {config.folder}; its fingerprint is sha256:{made.sha256.hex()}")
    click.echo(f"made credentials for {admin} (admin) in {config.folder / 'admin'}; keep its key secret")
    click.echo("")
    click.echo("next: start the provisioner, then tell the CLI about it:")
    click.echo("  provisioner run")
    click.echo(f"  bedplate context add main --address {config.dial} --credentials {config.folder / 'admin'} --use")


@cli.command()
@click.pass_obj
def run(where: _Where) -> None:
    """Serve, until SIGTERM."""
    config = where.read()  # first: what is wrong with it is said before seconds of imports
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # else each stranger at the door is a line of its own
    gc.disable()  # what an import makes is no garbage: looking for it takes a sixth of the start
    from provisioner.serve import run as serve  # noqa: PLC0415 - `--help` does without

    gc.enable()
    faulthandler.enable()  # the watchdog's SIGABRT leaves where it stood
    logs.set_up(config.log_level, config.log)
    asyncio.run(serve(config, logging.getLogger("provisioner").info))


@cli.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["viewer", "operator", "admin"]), required=True, help="What it may do.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write; must hold no key yet.")
@click.pass_obj
def credential(where: _Where, name: str, role: str, out: Path) -> None:
    """Make credentials for a person or a tool: a folder for `bedplate context add`."""
    from provisioner import onhost  # noqa: PLC0415 - `--help` does without

    onhost.credential(where.read().folder, name, role, out, time.time())
    click.echo(f"made credentials for {name} ({role}) in {out}; hand over the folder, and keep its key secret")


@cli.group()
def ca() -> None:
    """The roots that are trusted, and how one takes another's place."""


@ca.command("show")
@click.pass_obj
def show(where: _Where) -> None:
    """Print the roots that are trusted, and how far a change of them has come."""
    from provisioner import ca as roots  # noqa: PLC0415 - `--help` does without

    roots.show(where.read().folder, time.time())


@ca.command(
    epilog=_examples(
        "provisioner ca show",
        "provisioner ca rotate",
        "provisioner ca rotate --lose gpu-07 --yes",
        "provisioner ca rotate --stolen",
    )
)
@click.option("--lose", multiple=True, metavar="NAME", help="Go on without this machine, person or join token.")
@click.option("--stolen", is_flag=True, help="The old key is in wrong hands: drop its root at once, whoever is lost.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def rotate(where: _Where, lose: tuple[str, ...], *, stolen: bool, yes: bool) -> None:
    """Let a new root take the old one's place: one step; run it again to go on.

    First a new root is trusted beside the old one, and machines and people get certificates of it. Once all of them
    have one, the provisioner shows the new root; then the old one is trusted no more. The provisioner goes on running,
    and no machine is lost: a step that would lose somebody is not taken, unless each is named.
    """
    from provisioner import ca as roots  # noqa: PLC0415 - `--help` does without

    roots.rotate(where.read().folder, time.time, frozenset(lose), stolen=stolen, yes=yes)


@cli.group()
def audit() -> None:
    """The record of who wrote what; `bedplate audit` lists it."""


@audit.command(
    epilog=_examples(
        "provisioner audit verify",
        'provisioner audit verify --store ./backup/bedplate.db --anchor "$(cat audit-anchor)"',
    )
)
@click.option("--store", type=click.Path(path_type=Path), help="Store file, instead of the state folder's.")
@click.option("--anchor", "anchors", multiple=True, help="NUMBER:SHA256 that this printed once; may be repeated.")
@click.pass_obj
def verify(where: _Where, store: Path | None, anchors: tuple[str, ...]) -> None:
    """Find a cut, a change, a swap or a removal in the audit, without a provisioner.

    What is printed is an anchor: kept somewhere else, it shows later whether the whole chain was written anew.
    """
    from provisioner import chain, onhost  # noqa: PLC0415 - `--help` does without

    last = onhost.verify(store or where.read().folder / onhost.STORE, [chain.anchor(text) for text in anchors])
    click.echo(f"{last.sequence} entries: the chain is whole; keep this anchor somewhere else", err=True)
    click.echo(str(last))


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(f"provisioner {installed('bedplate')}")


def main() -> None:
    output.stand()
    try:
        cli(prog_name="provisioner")
    except BedplateError as error:
        click.echo(f"provisioner: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"provisioner: {output.fault(error)}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
