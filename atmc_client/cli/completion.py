"""`atmc completion`: the Tab key, in the user's shell."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what completes commands and options by the Tab key in bash, zsh or fish.

    \b
        source <(atmc completion bash)       # in ~/.bashrc
        source <(atmc completion zsh)        # in ~/.zshrc, after compinit
        atmc completion fish | source        # in ~/.config/fish/config.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(context.find_root().command, {}, "atmc", "_ATMC_COMPLETE").source())
