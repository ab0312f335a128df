"""`kepo eval MODEL ... --data PATH`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kepo.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from kepo.evaluation.generate import Backend
    from kepo.evaluation.job import Job


def evaluate(
    models: Annotated[
        list[str], typer.Argument(help="Run folders, checkpoints, models, hub names; with --server, its models' names.")
    ],
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
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest output; default: the run's, else 1024.")] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Nucleus of sampling.")] = 1.0,
    samples: Annotated[int, typer.Option(help="Outputs per question.")] = 1,
    permutations: Annotated[int, typer.Option(help="Ask again in this many other orders of the options.")] = 0,
    reward: Annotated[str | None, typer.Option(help="Decides what is right; default: the run's, else choice.")] = None,
    seed: Annotated[int, typer.Option(help="Of samples, orders and --limit.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Outputs generated at once; halved when memory runs out.")] = 64,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; default: a GPU if there is one.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that comes with the model.")] = False,
    teacher: Annotated[str | None, typer.Option(help="Model that rates the reasoning (log-probability).")] = None,
    server: Annotated[str | None, typer.Option(help="OpenAI-compatible server: http://localhost:8000/v1.")] = None,
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable with the server's key.")] = None,
    api_key_file: Annotated[str | None, typer.Option(help="File with the server's key.")] = None,
    concurrency: Annotated[int, typer.Option(help="Most requests to the server at once.")] = 16,
    compare: Annotated[
        str | None, typer.Option(help="An evaluation of the same questions: a .parquet file, or a run folder.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an evaluation of this name.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar and no tables.")] = False,
) -> None:
    """Ask models questions, keep every output, and print accuracy and reasoning measures.

    Stopped by Ctrl-C or a crash, the same command goes on where it was.
    """
    from rich.console import Console

    from kepo.evaluation.job import Wanted, plan
    from kepo.evaluation.openai_server import OpenAIBackend, read_api_key
    from kepo.evaluation.records import read_evaluation

    given = {
        "prompt_style": prompt_style,
        "image_size": image_size,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "samples": samples,
        "permutations": permutations,
        "seed": seed,
        "reward": reward,
    }
    settings = {field: value for field, value in given.items() if value is not None}
    wanted = Wanted(data, data_format, split, modality, task, limit, in_domain, settings)  # type: ignore[arg-type]
    key = read_api_key(api_key_env, api_key_file)
    other = None if compare is None else read_evaluation(compare, name)
    # All is checked before the first model is loaded.
    jobs = {model: plan(model, wanted) for model in models}
    homes = _homes(jobs, out)
    rater = _teacher(teacher, device, dtype, trust_remote_code)

    def backend(model: str, job: Job) -> Backend:
        if server is not None:
            template = job.chat_template_kwargs
            return OpenAIBackend(server, model, api_key=key, concurrency=concurrency, chat_template_kwargs=template)
        from kepo.evaluation.loading import load_backend

        return load_backend(
            model,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            chat_template_kwargs=job.chat_template_kwargs,
        )

    console = Console(quiet=quiet)
    for model, job in jobs.items():
        file = _carry_out(console, job, backend(model, job), homes[model], name, rater, overwrite, quiet)
        _show(console, file, model, None if compare is None or other is None else (other, compare))


def _homes(jobs: dict[str, Job], out: Path | None) -> dict[str, Path]:
    """Where the records of each model go."""
    homes: dict[str, Path] = {}
    for model, job in jobs.items():
        below = Path(model).name or model
        home = job.home if out is None else out if len(jobs) == 1 else out / below
        if home is None:
            raise ConfigError(f"{model} is no run folder, so its records have no place; name a folder with --out")
        if home in homes.values():
            raise ConfigError(
                f"the records of two models would go to {home}; evaluate them one by one, each with --out"
            )
        homes[model] = home
    return homes


def _teacher(name: str | None, device: str | None, dtype: str, trust_remote_code: bool) -> Any:
    if name is None:
        return None
    import torch

    from kepo.teachers.local import LocalTeacher

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return LocalTeacher(name, device=device, dtype=dtype, trust_remote_code=trust_remote_code)


def _carry_out(
    console: Console, job: Job, backend: Backend, home: Path, name: str, teacher: Any, overwrite: bool, quiet: bool
) -> Path:
    from kepo.evaluation.job import describe_home
    from kepo.evaluation.run import evaluate as run

    if job.trained_on:
        console.print(
            f"{job.trained_on} of the {len(job.questions)} questions are among those that the run was trained on; "
            "`--split held-out` asks only those that it has not seen.",
            style="yellow",
        )
    describe_home(home, backend.model, job, shlex.join(sys.argv))
    return run(
        job.questions,
        backend,
        job.settings,
        home,
        name,
        data=job.data,
        split=job.split,
        in_domain=job.in_domain,
        teacher=teacher,
        overwrite=overwrite,
        quiet=quiet,
    )


def _show(console: Console, file: Path, model: str, against: tuple[Any, str] | None) -> None:
    from kepo.evaluation.records import read_evaluation
    from kepo.evaluation.summary import accuracy_table, compare, comparison_table, measures_table

    evaluation = read_evaluation(file)
    console.print(accuracy_table(evaluation, model))
    console.print(measures_table(evaluation))
    if against is not None:
        other, label = against
        console.print(comparison_table(compare(evaluation, other), *_labels(model, label)))
    console.print(f"records: {file}", highlight=False, soft_wrap=True, markup=False)


def _labels(model: str, other: str) -> Sequence[str]:
    """Short names for two models, unless they are the same."""
    folder = Path(other).parents[1] if other.endswith(".parquet") and len(Path(other).parents) > 1 else Path(other)
    short = Path(model).name, folder.name
    return short if short[0] != short[1] and all(short) else (model, other)
