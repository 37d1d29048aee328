"""`bedplate completion SHELL`: click's own script, which asks this program what could come next."""

import click
from click.shell_completion import get_completion_class

from provisioner.cli.frame import examples, say


@click.command(
    "completion",
    epilog=examples(
        "bedplate completion bash > ~/.local/share/bash-completion/completions/bedplate",
        "bedplate completion zsh > ~/.zfunc/_bedplate",
        "bedplate completion fish > ~/.config/fish/completions/bedplate.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the shell's completion script."""
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    made = found(ctx.find_root().command, {}, "bedplate", "_BEDPLATE_COMPLETE")
    say([made.source_template % made.source_vars()])
