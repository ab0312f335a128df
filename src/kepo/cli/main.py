"""`kepo`: from raw data to a trained model. One thin file per command; heavy imports happen inside the commands."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from importlib import import_module
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_group

from kepo import __version__
from kepo.errors import KepoError

# Command -> its module below, the function or group of commands there, and what `kepo --help` says of it.
_COMMANDS = {
    "train": ("train", "train", "Train with recipes."),
    "check": ("check", "check", "Check data, model, prompts and rewards of recipes before training."),
    "plan": ("plan", "plan", "Estimate the GPU memory that recipes need."),
    "demo": ("study", "demo", "Train and compare on PhantomVQA, the built-in benchmark."),
    "eval": ("eval", "evaluate", "Ask models questions and print their accuracy."),
    "report": ("report", "report", "Compare runs in one HTML file."),
    "study": ("study", "study", "Train, choose and test arms with several seeds."),
    "inspect": ("inspect", "inspect", "Show the steps, groups and rollouts of a run."),
    "recipes": ("recipes", "recipes", "List the shipped recipes, or print some merged."),
    "fields": ("recipes", "fields", "List the fields of a recipe that are not TRL's own."),
    "benchmark": ("benchmark", "app", "Write the questions and base models of PhantomVQA."),
    "hints": ("hints", "app", "Write hints ahead of training, and show them."),
    "models": ("benchmark", "models_app", "Write a starting model, without a model hub."),
    "prepare": ("prepare", "app", "Split a data set and write it as files."),
}
_TAKES_FIELDS = ("train", "check", "plan", "recipes")


class _ImportedOnUse(TyperGroup):
    """Commands whose modules are imported when they are called: `kepo --help` imports none of them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in _COMMANDS and cmd_name not in self.commands:
            module, attribute, _ = _COMMANDS[cmd_name]
            target = getattr(import_module(f"kepo.cli.{module}"), attribute)
            holder = typer.Typer(rich_markup_mode=None)
            if isinstance(target, typer.Typer):
                holder.add_typer(target, name=cmd_name)
            else:
                settings = {"ignore_unknown_options": cmd_name in _TAKES_FIELDS}
                holder.command(name=cmd_name, context_settings=settings)(target)
            self.commands.update(get_group(holder).commands)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in _COMMANDS:  # then all are imported, so that similar names can be suggested
            for name in _COMMANDS:
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in _COMMANDS.items()])


# Plain help: rich's panels take longer to import than the rest of the command together.
app = typer.Typer(
    cls=_ImportedOnUse,
    help="KEPO: post-train language and vision-language models with a quality gate and knowledge-enhanced exploration.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Show the version and exit.")) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _fail(message: str) -> NoReturn:
    typer.secho(f"error: {message}", fg=typer.colors.RED, err=True)
    # Other processes of a distributed run may wait in a collective; leaving at once lets the launcher end them.
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stderr.flush()
        os._exit(2)
    sys.exit(2)


def main() -> None:
    """Entry point: errors that a user can fix are one message and exit code 2, not a traceback."""
    # Usage statistics of the libraries underneath are network traffic that the user has not requested.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Fields that these libraries rename among themselves are nothing a user of this program can act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|accelerate)\.")
    if not sys.stderr.isatty():
        from kepo.workers import NO_BARS

        os.environ.update(NO_BARS)
    try:
        app()
    except KepoError as error:
        _fail("\n".join([str(error), *getattr(error, "__notes__", ())]))
    except BrokenPipeError:  # who read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # Files that are not there, may not be read or written, or do not fit on the disk; others are faults of ours.
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        _fail(f"{error.filename or 'the disk'}: {error.strerror}. Check the path, its permissions, and the disk.")
    except KeyboardInterrupt:
        typer.secho("interrupted", fg=typer.colors.YELLOW, err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
