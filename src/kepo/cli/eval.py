"""`kepo eval MODEL ... --data PATH`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kepo.errors import ConfigError, check_choice

if TYPE_CHECKING:
    from rich.console import Console

    from kepo.evaluation.job import Job
    from kepo.evaluation.settings import Backend
    from kepo.evaluation.tasks import Planner, Task


def evaluate(
    models: Annotated[
        list[str], typer.Argument(help="Run folders, checkpoints, models, hub names; with --server, its models' names.")
    ],
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Evaluate all checkpoints of the runs; records go into each.")
    ] = False,
    best_by: Annotated[
        str | None,
        typer.Option(help="Of each run, the checkpoint that did best in-domain in this evaluation, and only that."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="File or folder of the questions; default: the run's own.")] = None,
    data_format: Annotated[str, typer.Option("--format", help="How the questions are stored.")] = "auto",
    split: Annotated[str, typer.Option(help="Of the run's own data: all, train or held-out.")] = "all",
    modality: Annotated[str | None, typer.Option(help="Only questions of these modalities, comma-separated.")] = None,
    task: Annotated[str | None, typer.Option(help="Only questions of these tasks, comma-separated.")] = None,
    limit: Annotated[int | None, typer.Option(help="Ask this many questions, drawn with the seed.")] = None,
    in_domain: Annotated[
        str | None, typer.Option(help="Modalities trained on, comma-separated; default: the run's.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the records; default: the run. Several models: one below for each.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the evaluation.")] = "test",
    prompt_style: Annotated[str | None, typer.Option(help="think, answer or plain; default: the run's.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels per side of an image; default: the run's.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Longest completion; default: the run's, else 1024.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Nucleus of sampling.")] = 1.0,
    samples: Annotated[int, typer.Option(help="Completions per question.")] = 1,
    permutations: Annotated[int, typer.Option(help="Ask again in this many other orders of the options.")] = 0,
    reward: Annotated[
        str | None, typer.Option(help="Decides what is correct; default: the run's, else choice_accuracy.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of samples, orders and --limit.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Completions generated at once; halved when memory runs out.")] = 64,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; default: a GPU if there is one.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that comes with the model.")] = False,
    teacher: Annotated[str | None, typer.Option(help="Model that rates the reasoning (log-probability).")] = None,
    devices: Annotated[
        str | None, typer.Option(help="Evaluate side by side, a process for each: cuda:0,cuda:1 or cpu,cpu.")
    ] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(help="OpenAI-compatible server: http://localhost:8000/v1; several: requests are spread."),
    ] = None,
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable with the server's key.")] = None,
    api_key_file: Annotated[str | None, typer.Option(help="File with the server's key.")] = None,
    concurrency: Annotated[int, typer.Option(help="Most requests to the server at once.")] = 16,
    compare: Annotated[
        str | None, typer.Option(help="An evaluation of the same questions: a .parquet file, or a run folder.")
    ] = None,
    arm: Annotated[
        str | None, typer.Option(help="Name in reports of a model that is no run; default: --out's.")
    ] = None,
    replicate: Annotated[str | None, typer.Option(help="Its repetition in reports, see `kepo report`.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an evaluation of this name.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar and no tables.")] = False,
) -> None:
    """Ask models questions, keep every completion, and print accuracy and reasoning measures.

    Stopped by Ctrl-C or a crash, the same command goes on where it was.
    """
    from rich.console import Console

    from kepo.evaluation import tasks
    from kepo.evaluation.job import Request
    from kepo.recipes.requirements import check_device, check_reachable
    from kepo.runs import read_evaluation
    from kepo.servers.endpoint import read_api_key

    _check_together(checkpoints, best_by, out, server, devices, device)
    check_choice("--dtype", dtype, ("auto", "float32", "bfloat16", "float16"))
    check_device("--device", device)
    given: dict[str, Any] = {"prompt_style": prompt_style, "image_size": image_size, "max_new_tokens": max_new_tokens}
    given |= {"temperature": temperature, "top_p": top_p, "samples": samples, "permutations": permutations}
    given |= {"seed": seed, "reward": reward}
    request = Request(data, data_format, split, modality, task, limit, in_domain, _named(given))  # type: ignore[arg-type]
    loading = tasks.Loading(batch_size, device, dtype, trust_remote_code, teacher, overwrite)
    key = read_api_key(api_key_env, api_key_file)
    other = None if compare is None else (read_evaluation(compare, name), compare)
    # All is checked before the first model is loaded.
    planner = tasks.Planner(request)
    if checkpoints:
        planned = tasks.checkpoint_tasks(models, name)
    elif best_by is not None:
        planned = tasks.chosen_tasks(models, best_by, planner, name)
    else:
        planned = tasks.model_tasks(models, planner, name, out, _named({"arm": arm, "replicate": replicate}))
    for loaded in [*([] if server else models), *([] if teacher is None else [teacher])]:
        check_reachable("The model", loaded)
    console, command = Console(quiet=quiet, highlight=False), shlex.join(sys.argv)
    _say(console, planned, planner)

    def show(task: Task) -> None:
        _show(console, task, brief=checkpoints, against=other)

    if devices is not None:
        tasks.carry_out_on(_listed(devices), planned, request, loading, command, quiet, show)
        return
    backend = _served(server, key, concurrency, console) if server else None
    rater = tasks.load_teacher(loading)
    for one in planned:
        tasks.carry_out(one, planner.job(one.source), loading, command, teacher=rater, backend=backend, quiet=quiet)
        show(one)


def _named(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _check_together(
    checkpoints: bool, best_by: str | None, out: Path | None, server: Any, devices: str | None, device: str | None
) -> None:
    if checkpoints and best_by is not None:
        raise ConfigError("--checkpoints evaluates all of a run, --best-by one of them; give one of the two")
    of_runs = "--checkpoints" if checkpoints else "--best-by" if best_by is not None else None
    if of_runs and out is not None:
        raise ConfigError(f"{of_runs} keeps the records in the run; leave out --out")
    if of_runs and server:
        raise ConfigError(f"{of_runs} loads the checkpoints of a run, which no server has; leave out --server")
    if devices is not None and (server or device is not None):
        raise ConfigError(f"--devices {devices} is a process for each device; leave out --device and --server")


def _listed(devices: str) -> list[str]:
    names = [name.strip() for name in devices.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"--devices {devices!r} names none; write cpu,cpu or cuda:0,cuda:1")
    return names


def _served(servers: list[str], key: str | None, concurrency: int, console: Console) -> Callable[[Task, Job], Backend]:
    from kepo.evaluation.openai_server import OpenAIBackend

    return lambda task, job: OpenAIBackend(
        servers,
        task.model,
        api_key=key,
        concurrency=concurrency,
        chat_template_kwargs=job.chat_template_kwargs,
        say=lambda said: console.print(said, style="yellow", markup=False),
    )


def _say(console: Console, tasks: Sequence[Task], planner: Planner) -> None:
    """What a user should know before it starts: which checkpoint, and questions of the training."""
    from kepo.evaluation.contamination import described, in_words

    for source in dict.fromkeys(task.source for task in tasks):
        job = planner.job(source)
        found = in_words({"trained_on": described(job.trained_on)})
        if found is not None:
            advice = " `--split held-out` asks only those that it has not seen." if job.split == "all" else ""
            console.print(f"{source}: {found}{advice}", style="yellow", markup=False)
    for task in tasks:
        if chosen := task.facts.get("chosen"):
            console.print(
                f"{task.source}: {chosen['checkpoint']} of {len(chosen['candidates'])} checkpoints, with "
                f"{chosen['accuracy']:.1%} of {chosen['questions']} in-domain questions of {chosen['chosen_by']!r}",
                markup=False,
            )


def _show(console: Console, task: Task, *, brief: bool, against: tuple[Any, str] | None) -> None:
    from kepo.reports.evaluation import accuracy_table, compare, comparison_table, in_one_line, measures_table
    from kepo.reports.markup import as_rich
    from kepo.runs import read_evaluation
    from kepo.trainer.model_card import refresh_model_card

    evaluation = read_evaluation(task.file)
    refresh_model_card(task.home)
    if brief:
        console.print(f"{task.model}: {in_one_line(evaluation)}", markup=False)
    else:
        console.print(as_rich(accuracy_table(evaluation, task.model)))
        console.print(as_rich(measures_table(evaluation)))
    if against is not None:
        other, label = against
        console.print(as_rich(comparison_table(compare(evaluation, other), *_labels(task.model, label))))
    if not brief:
        console.print(f"records: {task.file}", soft_wrap=True, markup=False)


def _labels(model: str, other: str) -> Sequence[str]:
    """Short names for two models, unless they are the same."""
    folder = Path(other).parents[1] if other.endswith(".parquet") and len(Path(other).parents) > 1 else Path(other)
    short = Path(model).name, folder.name
    return short if short[0] != short[1] and all(short) else (model, other)
