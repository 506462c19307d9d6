"""`lungct space`: the demo as a Space on the Hub."""

from __future__ import annotations

from typing import Annotated

import typer

space = typer.Typer(no_args_is_help=True, help="The demo as a Space on the Hub.", rich_markup_mode=None)


@space.callback()
def _group() -> None:
    pass


@space.command()
def deploy(
    name: Annotated[str, typer.Argument(metavar="SPACE", help="OWNER/NAME of the Space; created if it is not there.")],
    model: Annotated[str, typer.Option("--model", "-m", help="OWNER/NAME@REVISION of the model to show.")],
    private: Annotated[bool, typer.Option("--private", help="Create the Space as a private one.")] = False,
) -> None:
    """Upload the demo with a wheel of this package, pin the model, restart. A second run changes nothing."""
    from huggingface_hub.utils import disable_progress_bars

    from ..hub.failures import check_repo_id
    from ..hub.push import require_write_token
    from ..release.deploy import deploy_space

    disable_progress_bars()
    token = require_write_token(check_repo_id(name))
    deploy_space(name, model, token, typer.echo, private=private)
    from huggingface_hub import constants

    typer.echo(f"{constants.ENDPOINT}/spaces/{name}")
