"""`kepo hints DATASET ...` fills a hint bank, `kepo hints show BANK` shows one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from rich.console import Console

    from kepo.cli.hints_plan import Plan
    from kepo.exploration.bank import HintBank


class _WritesByDefault(TyperGroup):
    """A first word that is no command belongs to `write`: `kepo hints DATASET`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = (*self.commands, "--help")
        return super().parse_args(ctx, ["write", *args] if args and args[0] not in known else args)


app = typer.Typer(
    cls=_WritesByDefault,
    help="Hints ahead of training, in one file: `kepo hints DATASET --teacher MODEL` writes them, `kepo hints show "
    "BANK` shows them, recipes read them (hint_bank). `kepo hints write --help` lists the options of writing.",
    no_args_is_help=True,
)


@app.command()
def write(
    ctx: typer.Context,
    dataset: Annotated[str | None, typer.Argument(help="File or folder of the questions.")] = None,
    from_recipe: Annotated[
        list[str] | None,
        typer.Option(
            help="Questions, prompts, teacher and settings of this recipe's training, for what is left out; given "
            "several times: recipes over each other, as in `kepo train`."
        ),
    ] = None,
    teacher_model_name_or_path: Annotated[
        str | None,
        typer.Option("--teacher", help="Folder or hub name of the teacher; with --teacher-url, its name there."),
    ] = None,
    teacher_url: Annotated[
        list[str] | None,
        typer.Option(help="OpenAI-compatible server: http://localhost:8000/v1; several: requests are spread."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The bank, added to if it is there; default: the recipe's, else hints.jsonl.")
    ] = None,
    levels: Annotated[int, typer.Option(help="Levels 0 to N-1: 0 concept, 1 plan, 2 near-solution.")] = 3,
    per_question: Annotated[int, typer.Option(help="Hints per question and level.")] = 1,
    data_format: Annotated[str | None, typer.Option("--format", help="How the questions are stored.")] = None,
    modality: Annotated[str | None, typer.Option(help="Only questions of these modalities, comma-separated.")] = None,
    task_filter: Annotated[
        str | None, typer.Option("--task", help="Only questions of these tasks, comma-separated.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="This many questions, drawn with the seed.")] = None,
    prompt_style: Annotated[str | None, typer.Option(help="As in training: think (default), answer, plain.")] = None,
    image_size: Annotated[int | None, typer.Option(help="As in training: pixels per side; default: kept.")] = None,
    hint_temperature: Annotated[float | None, typer.Option("--temperature", help="0 is greedy; default 1.")] = None,
    hint_max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", help="Longest hint; default 256.")
    ] = None,
    hint_leak_policy: Annotated[
        str | None,
        typer.Option(
            "--leak-policy", help="ask_again: another hint in place of one that leaks; allow, strip, reject: none."
        ),
    ] = None,
    hint_retries: Annotated[
        int | None, typer.Option("--retries", help="How often ask_again asks again; default 2.")
    ] = None,
    teacher_batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Hints written at once by a local teacher; default 8.")
    ] = None,
    teacher_device: Annotated[
        str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ...; default: a GPU if there is one.")
    ] = None,
    teacher_dtype: Annotated[str | None, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that comes with the model.")] = False,
    teacher_api_key_env: Annotated[
        str | None, typer.Option("--api-key-env", help="Environment variable with the server's key.")
    ] = None,
    teacher_api_key_file: Annotated[
        str | None, typer.Option("--api-key-file", help="File with the server's key.")
    ] = None,
    teacher_concurrency: Annotated[
        int | None, typer.Option("--concurrency", help="Most requests to each server at once; default 16.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of sampling and --limit.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar and no tables.")] = False,
) -> None:
    """Write hints for questions into a bank, audited.

    Only what the bank lacks is written; stopped by Ctrl-C or a crash, the same command goes on where it was.
    """
    from rich.console import Console

    from kepo.cli.hints_plan import make_plan
    from kepo.exploration.bank import HintBank

    plan = make_plan(dataset, from_recipe or (), ctx.params, limit=limit, out=out, trust_remote_code=trust_remote_code)
    _carry_out(plan, HintBank.open(plan.out, create=True), Console(quiet=quiet))


def _carry_out(plan: Plan, bank: HintBank, console: Console) -> None:
    from kepo.cli.hints_tables import summary_table
    from kepo.exploration.filling import fill, hint_quotas
    from kepo.workers import progress_bars

    groups = (plan.group(place) for place in range(len(plan.questions)))
    quotas = hint_quotas(bank, groups, plan.teacher, plan.settings)
    lacking = sum(quota.lacking for quota in quotas)
    questions = len({quota.place for quota in quotas})
    if lacking:
        _say(console, f"{questions} questions: {lacking} hints to be written to {bank.path}")
        with progress_bars(console.quiet) as progress:
            advance = partial(progress.advance, progress.add_task("Writing hints", total=lacking))
            try:
                fill(bank, quotas, plan.group, plan.load_teacher(), plan.settings, seed=_seed_torch, advance=advance)
            except KeyboardInterrupt:
                _say(console, f"{bank.path} keeps what was written; the same command goes on.")
                raise
    else:
        _say(console, f"{bank.path} already has all hints of these {questions} questions.")
    bank.tidy()
    written = [bank.find(quota.content_hash, plan.teacher) for quota in quotas]
    if not console.quiet:
        console.print(summary_table([hint for hints in written for hint in hints], f"{bank.path}, {plan.teacher}"))
    if missing := sum(map(plan.settings.lacking, written)):
        _say(console, f"{missing} hints are missing: their answers were empty. The same command asks again.", "yellow")


@app.command()
def show(
    bank: Annotated[Path, typer.Argument(help="A hint bank.")],
    question: Annotated[str | None, typer.Option(help="Only hints of the question with this id.")] = None,
    level: Annotated[int | None, typer.Option(help="Only hints of this level.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Only hints of this teacher.")] = None,
    leaks: Annotated[bool, typer.Option("--leaks", help="Only hints that give the answer away.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Most hints shown in full; 0: all.")] = 20,
) -> None:
    """Show what is in a bank: counts per level, and the hints."""
    from rich.console import Console

    from kepo.cli.hints_tables import show_hints, summary_table
    from kepo.errors import DataError
    from kepo.exploration.bank import HintBank

    console = Console()
    opened = HintBank.open(bank)
    hints = [
        hint
        for hint in opened.hints
        if question in (None, hint.question) and level in (None, hint.level) and teacher in (None, hint.teacher)
    ]
    if len(opened) and not hints:
        raise DataError(f"{bank}: none of its {len(opened)} hints is like that; leave out some of the conditions.")
    console.print(summary_table(hints, f"{bank}, hints of {', '.join(opened.teachers) or 'nobody'}"))
    selected = [hint for hint in hints if hint.leaks or not leaks]
    shown = selected[: limit or None]
    show_hints(console, shown)
    if len(shown) < len(selected):
        _say(console, f"{len(selected) - len(shown)} more; --limit 0 shows all.")


def _say(console: Console, sentence: str, style: str = "") -> None:
    console.print(sentence, style=style, highlight=False, markup=False, soft_wrap=True)


def _seed_torch(seed: int) -> None:
    import torch

    torch.manual_seed(seed)
