"""What `kepo eval MODEL` means: which questions, which settings, and where the records go.

What is not said is taken from the run that the model belongs to, so that it is asked as it was trained.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from kepo.data.arguments import DataArguments, load_questions, load_splits, split_questions
from kepo.data.images import check_images
from kepo.errors import ConfigError
from kepo.evaluation.settings import EvaluationSettings
from kepo.runs import is_run, open_run, write_manifest
from kepo.types import Question

Split: TypeAlias = Literal["all", "train", "held-out"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for; None is taken from the run, or from the defaults of `EvaluationSettings`.

    Attributes:
        data: Path of the questions.
        data_format: See `kepo.data.arguments`.
        split: "held-out" and "train" are the run's own sides of its own data.
        modality: Keep only these, comma-separated.
        task: Keep only these, comma-separated.
        limit: Ask this many questions, drawn with the seed.
        in_domain: Modalities trained on, comma-separated.
        settings: Fields of `EvaluationSettings` that were given.
    """

    data: str | None = None
    data_format: str = "auto"
    split: Split = "all"
    modality: str | None = None
    task: str | None = None
    limit: int | None = None
    in_domain: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """One evaluation, resolved.

    Attributes:
        settings: How questions are asked.
        questions: What is asked, images checked.
        data: Where they come from.
        split: Which side of the run's data, None for given data.
        in_domain: Modalities trained on.
        chat_template_kwargs: Variables of the chat template in training.
        trained_on: How many of the questions the run was trained on, as far as is known.
        run_config: The run's own settings, from its `run.json`; empty for other models.
        home: The run or checkpoint folder that records go to unless told otherwise; None for other models.
    """

    settings: EvaluationSettings
    questions: Sequence[Question]
    data: str
    split: str | None
    in_domain: tuple[str, ...]
    chat_template_kwargs: Mapping[str, Any] | None
    trained_on: int
    run_config: Mapping[str, Any]
    home: Path | None


def plan(model: str, wanted: Wanted) -> Job:
    """What evaluating `model` means.

    Raises:
        ConfigError: settings that do not fit together.
        DataError: questions that cannot be used, or an in-domain modality that none of them has.
    """
    folder = Path(model)
    run = next((parent for parent in (folder, folder.parent) if folder.is_dir() and is_run(parent)), None)
    config: Mapping[str, Any] = open_run(run).manifest.get("config", {}) if run else {}
    settings = EvaluationSettings(**{**_of_the_run(config), **wanted.settings})
    data, questions = _questions(config.get("data"), wanted)
    questions = draw(questions, wanted.limit, settings.seed)
    return Job(
        settings=settings,
        questions=questions,
        data=str(data.data_path or ", ".join(data.reasoning_tasks)),
        split=None if wanted.data else wanted.split,
        in_domain=_in_domain(questions, wanted.in_domain, config.get("data", {}).get("modality")),
        chat_template_kwargs=config.get("training", {}).get("chat_template_kwargs"),
        trained_on=_trained_on(questions, data, config.get("data")),
        run_config=config,
        home=folder if run else None,
    )


def _of_the_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `EvaluationSettings` as the run was trained."""
    if not config:
        return {}
    data, training, rewards = config.get("data", {}), config.get("training", {}), config.get("run", {})
    found = {
        "prompt_style": data.get("prompt_style"),
        "image_size": data.get("image_size"),
        "max_new_tokens": training.get("max_completion_length"),
        "reward": training.get("correctness_reward") or next(iter(rewards.get("reward_funcs") or ()), None),
    }
    return {name: value for name, value in found.items() if value is not None}


def _questions(of_the_run: Mapping[str, Any] | None, wanted: Wanted) -> tuple[DataArguments, list[Question]]:
    if wanted.split not in get_args(Split):
        raise ConfigError(f"split {wanted.split!r} is unknown; use one of {', '.join(get_args(Split))}")
    narrowed = {"modality": wanted.modality, "task_filter": wanted.task}
    if wanted.data is not None:
        if wanted.split != "all":
            raise ConfigError(f"--split {wanted.split} is a side of the run's own data; leave out --data")
        args = DataArguments(data_path=wanted.data, data_format=wanted.data_format, **narrowed)  # type: ignore[arg-type]
        questions = load_questions(args)
        check_images(questions)
        return args, questions
    if of_the_run is None:
        raise ConfigError("--data is missing: name the file or folder of the questions (a run folder brings its own)")
    trained = _known_fields(of_the_run)
    if wanted.split == "all":
        args = DataArguments(**{**trained, **{name: value for name, value in narrowed.items() if value is not None}})
        questions = load_questions(args)
        check_images(questions)
        return args, questions
    args = DataArguments(**trained)
    train, held_out = load_splits(args)
    side = train if wanted.split == "train" else held_out
    if not side:
        raise ConfigError("the run held no questions out (num_eval is 0); use --split all or --data")
    return args, _narrowed(side, wanted)


def _known_fields(of_the_run: Mapping[str, Any]) -> dict[str, Any]:
    known = {one.name for one in fields(DataArguments)}
    # Copies of training questions in another order are no questions of their own.
    return {**{name: value for name, value in of_the_run.items() if name in known}, "option_shuffles": 0}


def _trained_on(questions: Sequence[Question], asked: DataArguments, of_the_run: Mapping[str, Any] | None) -> int:
    """How many of `questions` the run was trained on; 0 where they come from other data."""
    if not of_the_run or not asked.data_path or not of_the_run.get("data_path"):
        return 0
    if Path(asked.data_path).resolve() != Path(of_the_run["data_path"]).resolve():
        return 0
    args = DataArguments(**_known_fields(of_the_run))
    train, _ = split_questions(args, load_questions(args))
    seen = {question.id for question in train}
    return sum(question.id in seen for question in questions)


def _narrowed(questions: Sequence[Question], wanted: Wanted) -> list[Question]:
    def keeps(value: str | None, names: str | None) -> bool:
        return names is None or str(value).casefold() in {name.strip().casefold() for name in names.split(",")}

    return [one for one in questions if keeps(one.modality, wanted.modality) and keeps(one.task, wanted.task)]


def draw(questions: list[Question], limit: int | None, seed: int) -> list[Question]:
    """At most `limit` questions in the order of the data; drawn, because data is often sorted by modality."""
    if limit is None or limit >= len(questions):
        return questions
    if limit < 1:
        raise ConfigError(f"limit is {limit}; ask at least 1 question")
    return [questions[place] for place in sorted(random.Random(seed).sample(range(len(questions)), limit))]


def _in_domain(questions: Sequence[Question], given: str | None, of_the_run: str | None) -> tuple[str, ...]:
    """The modalities trained on, written as in the data.

    Raises:
        ConfigError: one that was given is in no question. A run's own may be, where other data is asked.
    """
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

    Args:
        folder: Where its records go.
        model: Its name.
        job: What it is asked.
        command: How it was evaluated.
        labels: "arm" and "replicate" in reports.

    Raises:
        DataError: it cannot be written.
    """
    if is_run(folder) or job.home == folder:
        return
    data = {"data_path": job.data, "prompt_style": job.settings.prompt_style, "image_size": job.settings.image_size}
    config = dict(job.run_config) or {"model": {"model_name_or_path": model}, "data": data}
    if labels:
        # Named as an arm of its own it is a model as it is, even where it was trained once: the start of others.
        config = {"run": dict(labels), "model": {"model_name_or_path": model}, "data": data}
    manifest = {"status": "finished", "command": command, "seed": job.settings.seed, "config": config}
    write_manifest(folder, manifest)
