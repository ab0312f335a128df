"""What `kepo eval MODEL` means: which questions, which settings, and where the records go.

What is not given is taken from the run that the model belongs to, so that it is asked as it was trained.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from kepo.data.arguments import DataArguments, load_questions, load_splits
from kepo.data.contents import Overlap
from kepo.data.images import check_images
from kepo.errors import ConfigError
from kepo.evaluation.contamination import known_fields, trained_on_before
from kepo.evaluation.settings import EvaluationSettings
from kepo.rewards.imported import reward_called
from kepo.runs import is_run, open_run, write_manifest
from kepo.types import Question

Split: TypeAlias = Literal["all", "train", "held-out"]


@dataclass(frozen=True, slots=True)
class Request:
    """The options of `kepo eval`; None is taken from the run, or from the defaults of `EvaluationSettings`."""

    data: str | None = None  # path of the questions
    data_format: str = "auto"
    split: Split = "all"  # "held-out" and "train" are the run's own splits of its own data
    modality: str | None = None  # keep only these, comma-separated
    task: str | None = None  # keep only these, comma-separated
    limit: int | None = None  # ask this many questions, drawn with the seed
    in_domain: str | None = None  # modalities trained on, comma-separated
    settings: Mapping[str, Any] = field(default_factory=dict)  # fields of `EvaluationSettings`


@dataclass(frozen=True, slots=True)
class Job:
    """One evaluation, resolved."""

    settings: EvaluationSettings
    questions: Sequence[Question]  # images checked
    data: str  # where they come from
    split: str | None  # of the run's data; None for given data
    in_domain: tuple[str, ...]  # modalities trained on
    trained_on: Overlap | None  # which of the questions the model was trained on; None: not known
    run_config: Mapping[str, Any]  # from the run's `run.json`; empty for other models
    home: Path | None  # the run or checkpoint folder that records go to by default; None for other models

    @property
    def chat_template_kwargs(self) -> Mapping[str, Any] | None:
        """Variables of the chat template in training."""
        return self.run_config.get("training", {}).get("chat_template_kwargs")


def plan(model: str, request: Request) -> Job:
    """What evaluating `model` means; raises ConfigError or DataError for settings or questions that cannot be used."""
    folder = Path(model)
    run = next((parent for parent in (folder, folder.parent) if folder.is_dir() and is_run(parent)), None)
    config: Mapping[str, Any] = open_run(run).manifest.get("config", {}) if run else {}
    settings = EvaluationSettings(**{**_of_the_run(config), **request.settings})
    data, questions = _questions(config.get("data"), request)
    questions = draw(questions, request.limit, settings.seed)
    return Job(
        settings=settings,
        questions=questions,
        data=str(data.data_path or ", ".join(data.reasoning_tasks)),
        split=None if request.data else request.split,
        in_domain=_in_domain(questions, request.in_domain, config.get("data", {}).get("modality")),
        trained_on=trained_on_before(model, questions),
        run_config=config,
        home=folder if run else None,
    )


def _of_the_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `EvaluationSettings` as the run was trained."""
    data, training, rewards = config.get("data", {}), config.get("training", {}), config.get("run", {})
    names, correctness = rewards.get("reward_funcs") or (), training.get("correctness_reward")
    found = {
        "prompt_style": data.get("prompt_style"),
        "image_size": data.get("image_size"),
        "max_new_tokens": training.get("max_completion_length"),
        "reward": reward_called(correctness, names) if correctness else next(iter(names), None),
    }
    return {name: value for name, value in found.items() if value is not None}


def _questions(of_the_run: Mapping[str, Any] | None, request: Request) -> tuple[DataArguments, list[Question]]:
    if request.split not in get_args(Split):
        raise ConfigError(f"split {request.split!r} is unknown; use one of {', '.join(get_args(Split))}")
    narrowed = {"modality": request.modality, "task_filter": request.task}
    if request.data is not None:
        if request.split != "all":
            raise ConfigError(f"--split {request.split} is a split of the run's own data; leave out --data")
        args = DataArguments(data_path=request.data, data_format=request.data_format, **narrowed)  # type: ignore[arg-type]
    elif not (of_the_run and (of_the_run.get("data_path") or of_the_run.get("reasoning_tasks"))):
        raise ConfigError(
            "--data is missing: name the file or folder of the questions (the folder of a run of `kepo train` brings "
            "its own)"
        )
    elif request.split == "all":
        given = {name: value for name, value in narrowed.items() if value is not None}
        args = DataArguments(**{**known_fields(of_the_run), **given})
    else:
        args = DataArguments(**known_fields(of_the_run))
        train, held_out = load_splits(args)
        if not (split := train if request.split == "train" else held_out):
            raise ConfigError("the run held no questions out (num_eval is 0); use --split all or --data")
        return args, _narrowed(split, request)
    questions = load_questions(args)
    check_images(questions)
    return args, questions


def _narrowed(questions: Sequence[Question], request: Request) -> list[Question]:
    def keeps(value: str | None, names: str | None) -> bool:
        return names is None or str(value).casefold() in {name.strip().casefold() for name in names.split(",")}

    return [one for one in questions if keeps(one.modality, request.modality) and keeps(one.task, request.task)]


def draw(questions: list[Question], limit: int | None, seed: int) -> list[Question]:
    """At most `limit` questions in the order of the data; drawn, because data is often sorted by modality."""
    if limit is None or limit >= len(questions):
        return questions
    if limit < 1:
        raise ConfigError(f"limit is {limit}; ask at least 1 question")
    return [questions[place] for place in sorted(random.Random(seed).sample(range(len(questions)), limit))]


def _in_domain(questions: Sequence[Question], given: str | None, of_the_run: str | None) -> tuple[str, ...]:
    """The modalities trained on, written as in the data; one that was given must be that of a question."""
    present = {one.modality.casefold(): one.modality for one in questions if one.modality}
    names = [name.strip() for name in (given if given is not None else of_the_run or "").split(",") if name.strip()]
    unknown = [name for name in names if name.casefold() not in present]
    if given is not None and unknown:
        raise ConfigError(
            f"--in-domain {given!r}: no question has the modality {unknown[0]!r}; present are "
            f"{', '.join(sorted(present.values())) or 'none at all'}"
        )
    return tuple(present.get(name.casefold(), name) for name in names)


def describe_home(folder: Path, model: str, job: Job, command: str, labels: Mapping[str, str] | None = None) -> None:
    """Make `folder` a run folder, so that reports find a model that was only evaluated; a run is left as it is.

    `labels` are "arm" and "replicate" in reports.
    """
    if is_run(folder) or job.home == folder:
        return
    data = {"data_path": job.data, "prompt_style": job.settings.prompt_style, "image_size": job.settings.image_size}
    untrained = {"model": {"model_name_or_path": model}, "data": data}
    # Named as an arm of its own it is a model as it is, even where it was trained once: the start of others.
    config = {"run": dict(labels), **untrained} if labels else dict(job.run_config) or untrained
    manifest = {"status": "finished", "command": command, "seed": job.settings.seed, "config": config}
    write_manifest(folder, manifest)
