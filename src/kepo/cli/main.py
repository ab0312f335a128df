"""`kepo`: from raw data to a trained model. One thin file per command; heavy imports happen inside the commands."""

from __future__ import annotations

import os
import sys
import warnings

import typer

from kepo import __version__
from kepo.cli.benchmark import app as benchmark_app
from kepo.cli.demo import demo
from kepo.cli.eval import evaluate
from kepo.cli.fields import fields
from kepo.cli.hints import app as hints_app
from kepo.cli.inspect import inspect
from kepo.cli.models import app as models_app
from kepo.cli.plan import plan
from kepo.cli.prepare import app as prepare_app
from kepo.cli.recipes import recipes
from kepo.cli.report import report
from kepo.cli.study import study
from kepo.cli.train import train
from kepo.errors import KepoError

app = typer.Typer(
    help="KEPO: post-train language and vision-language models with a quality gate and knowledge-enhanced exploration.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(train)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(plan)
app.command()(demo)
app.command(name="eval")(evaluate)
app.command()(report)
app.command()(study)
app.command()(inspect)
app.command()(recipes)
app.command()(fields)
app.add_typer(benchmark_app, name="benchmark")
app.add_typer(hints_app, name="hints")
app.add_typer(models_app, name="models")
app.add_typer(prepare_app, name="prepare")


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Show the version and exit.")) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: errors that a user can mend are one message and exit code 2, not a traceback."""
    # Usage pings of the libraries underneath are network traffic that nobody asked for here.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Fields that these libraries rename among themselves are nothing a user of this program can act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|accelerate)\.")
    try:
        app()
    except KepoError as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        # Other processes of a distributed run may wait in a collective; leaving at once lets the launcher end them.
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            os._exit(2)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.secho("interrupted", fg=typer.colors.YELLOW, err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
