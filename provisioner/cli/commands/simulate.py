"""`bedplate simulate …`: made-up machines against the provisioner of the context."""

import click


@click.command()
def command() -> None:
    """Run made-up machines against the provisioner."""
