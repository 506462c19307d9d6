"""The `lungct` command: a thin face over the rooms. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Annotated

import typer

from . import __version__
from .commands.audit import audit
from .commands.evaluate import evaluate
from .commands.export import export
from .commands.predict import predict
from .commands.release import release
from .commands.space import space
from .commands.split import split
from .commands.verify import verify
from .commands.versions import compare, rollback, versions
from .errors import UsageError, exit_on_error, require

app = typer.Typer(
    name="lungct",
    help="Lung CT slice classifiers for the Hugging Face Hub. Research only, never a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lungct {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


for command in (audit, split, predict, evaluate, export, release, verify, versions, rollback, compare):
    app.command()(command)
app.add_typer(space, name="space")


@app.command()
def demo(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A run, a model directory, OWNER/NAME or OWNER/NAME@REVISION. Default: LUNGCT_MODEL, else the newest "
            "runs/*/model."
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="A branch, tag or commit of a Hub repo. Default: LUNGCT_REVISION, else main.")
    ] = None,
) -> None:
    """Show a model in the browser, on the Space's page. GRADIO_SERVER_NAME and GRADIO_SERVER_PORT choose where."""
    require("gradio", "space")
    from .resources import shipped
    from .runtime import LungCT

    chosen = model or os.environ.get("LUNGCT_MODEL", "").strip() or str(_newest_model())
    if model is not None:
        os.environ.pop("LUNGCT_REVISION", None)  # it belongs to the LUNGCT_MODEL that the argument replaces
    os.environ["LUNGCT_MODEL"] = chosen
    if revision is not None:
        os.environ["LUNGCT_REVISION"] = revision
    typer.echo(f"Loading {os.environ['LUNGCT_MODEL']} ...", err=True)
    # A Space waits for a Hub that is away or a revision that is missing; whoever typed a command is told at once.
    LungCT.from_pretrained(os.environ["LUNGCT_MODEL"], os.environ.get("LUNGCT_REVISION", "").strip() or None)
    space = shipped("space")
    sys.path.insert(0, str(space))  # as for a script: its modules lie beside app.py
    runpy.run_path(str(space / "app.py"), run_name="__main__")


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="A run (runs/NAME) or the model directory in it.")],
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the Hub; created if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Create the repo as a private one.")] = False,
    message: Annotated[str, typer.Option("--message", "-m", help="The commit's message.")] = "Push a lungct_hf model",
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead of committing.")] = False,
    allow: Annotated[
        list[str] | None, typer.Option("--allow", help="Push in spite of a refusal, by its code. Repeatable.")
    ] = None,
) -> None:
    """Put a trained model on the Hub as one commit, after the checks of contents that a release makes (exit code 3).

    The token comes from HF_TOKEN or `hf auth login`.
    """
    from .hub import ModelRepo, push_folder
    from .hub.failures import usable_token
    from .release.prepare import check_contents

    model = ModelRepo.in_folder(folder)
    check_contents(model, message, usable_token(None), tuple(allow or ()))
    result = push_folder(model.path, repo, message=message, private=private, create_pr=create_pr)
    typer.echo(f"{result.url}\ncommit {result.commit_sha}{'' if result.changed else ' (nothing had changed)'}")


def _newest_model() -> Path:
    written = sorted(Path("runs").glob("*/model/lungct.json"), key=lambda path: path.stat().st_mtime)
    if not written:
        raise UsageError(
            "No model was named and there is none under runs/. Fix: train one first (accelerate launch "
            "training/train.py) or name one: lungct demo OWNER/NAME"
        )
    return written[-1].parent


def main() -> None:
    """The console entry: what a user can act on becomes one line on stderr and an exit code, never a traceback."""
    with exit_on_error():
        app()


if __name__ == "__main__":
    main()
