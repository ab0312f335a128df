"""What `kepo hints` is to do: its options, and the recipe that fills in those that are left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kepo.errors import ConfigError
from kepo.exploration.filling import FillSettings

if TYPE_CHECKING:
    from kepo.data.arguments import DataArguments
    from kepo.teachers.base import HintWriter
    from kepo.types import Group, Question

DEFAULT_BANK = "hints.jsonl"


@dataclass(frozen=True)
class Options:
    """The options as given; None where left out, for the recipe's value or the default."""

    dataset: str | None
    recipe: str | None
    data_format: str | None
    modality: str | None
    task: str | None
    limit: int | None
    prompt_style: str | None
    image_size: int | None
    teacher: str | None
    teacher_urls: Sequence[str]
    api_key_env: str | None
    api_key_file: str | None
    concurrency: int
    out: Path | None
    temperature: float | None
    max_new_tokens: int | None
    batch_size: int | None
    device: str | None
    dtype: str | None
    trust_remote_code: bool
    leak_policy: str | None
    retries: int | None
    levels: int
    per_question: int
    seed: int


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        questions: Whose hints are wanted, images checked.
        data: How they are shown.
        out: The bank.
        teacher: Name under which the teacher's hints are kept.
        load_teacher: Loads it; called only when hints are missing.
        settings: How many hints.
    """

    questions: Sequence[Question]
    data: DataArguments
    out: Path
    teacher: str
    load_teacher: Callable[[], HintWriter]
    settings: FillSettings

    def group(self, place: int) -> Group:
        """A question as exploration sees it, its images opened and resized as in training."""
        from kepo.evaluation.asking import Asked, conversations
        from kepo.evaluation.settings import EvaluationSettings
        from kepo.types import Group

        question = self.questions[place]
        shown = EvaluationSettings(prompt_style=self.data.prompt_style, image_size=self.data.image_size)
        (prompt,) = conversations([Asked(question, 0)], shown)
        row = {"question": question.text}
        return Group(question.id, prompt, question.answer, question.options, correct=(), rewards=(), row=row)


def make_plan(options: Options) -> Plan:
    """The options, with the recipe's values and the defaults for what was left out.

    Raises:
        ConfigError: Options that cannot work together, or a value out of range.
        DataError: Data that cannot be used.
    """
    from kepo.data.arguments import DataArguments, load_questions, load_splits
    from kepo.data.images import check_images
    from kepo.evaluation.job import draw

    if options.recipe is not None:
        options, data = _with_recipe(options)
    elif options.dataset is None:
        raise ConfigError("There are no questions: name a file or folder of them, or a recipe with --from-recipe.")
    else:
        data = _shown(DataArguments(data_path=options.dataset), options)
    settings = FillSettings(
        levels=options.levels,
        per_question=options.per_question,
        leak_policy=options.leak_policy or "reject",
        retries=2 if options.retries is None else options.retries,
        batch_size=_batch(options),
        seed=options.seed,
    )
    _check_temperature(options)
    name, load = _teacher(options)
    if options.recipe is None:
        questions = load_questions(data)
    else:
        questions, _ = load_splits(data)  # those of training, copies with shuffled options included
    questions = draw(questions, options.limit, options.seed)
    check_images(questions)
    return Plan(questions, data, options.out or Path(DEFAULT_BANK), name, load, settings)


def _with_recipe(options: Options) -> tuple[Options, DataArguments]:
    """The options with the recipe's values for those left out, and the recipe's data."""
    from kepo.trainer.config import KEPOConfig
    from kepo.trainer.recipe import load_recipe

    recipe = load_recipe(str(options.recipe), [] if options.dataset is None else ["--data_path", options.dataset])
    training, teacher = recipe.training, recipe.teacher
    if not isinstance(training, KEPOConfig):
        raise ConfigError(f"{recipe.source} is of method 'sft', which uses no hints; name the recipe of a kepo arm.")
    values: dict[str, Any] = {
        "teacher": teacher.teacher_model_name_or_path,
        "device": teacher.teacher_device,
        "dtype": teacher.teacher_dtype,
        "batch_size": teacher.teacher_batch_size,
        "temperature": teacher.hint_temperature,
        "max_new_tokens": teacher.hint_max_new_tokens,
        "leak_policy": training.hint_leak_policy,
        "retries": training.hint_retries,
        "out": None if training.hint_bank is None else Path(training.hint_bank),
    }
    left_out = {name: value for name, value in values.items() if getattr(options, name) is None}
    return replace(options, **left_out), _shown(recipe.data, options)


def _shown(data: DataArguments, options: Options) -> DataArguments:
    """The data settings with what the options say of them."""
    given = {
        "data_format": options.data_format,
        "modality": options.modality,
        "task_filter": options.task,
        "prompt_style": options.prompt_style,
        "image_size": options.image_size,
    }
    return replace(data, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def _batch(options: Options) -> int:
    """Requests per call of the teacher; a server is kept busy, and answers are written a few times a minute."""
    return 4 * options.concurrency if options.teacher_urls else 8 if options.batch_size is None else options.batch_size


def _temperature(options: Options) -> float:
    return 1.0 if options.temperature is None else options.temperature


def _check_temperature(options: Options) -> None:
    temperature = _temperature(options)
    if not temperature >= 0:
        raise ConfigError(f"temperature is {temperature}; give 0 (greedy) or more.")
    if temperature == 0 and options.per_question > 1:
        raise ConfigError(
            f"per_question is {options.per_question} and temperature 0: greedy hints are all the same. Set a "
            "temperature, or ask for one hint per question."
        )


def _teacher(options: Options) -> tuple[str, Callable[[], HintWriter]]:
    """The teacher's name, and how it is loaded."""
    if not options.teacher:
        raise ConfigError("No teacher is named: set --teacher to a folder, a hub name, or a model of --teacher-url.")
    settings = {
        "hint_temperature": _temperature(options),
        "hint_max_new_tokens": 256 if options.max_new_tokens is None else options.max_new_tokens,
    }
    if options.teacher_urls:
        from kepo.evaluation.openai_server import read_api_key
        from kepo.teachers.remote import RemoteTeacher  # type: ignore[import-not-found]

        key = read_api_key(options.api_key_env, options.api_key_file)
        remote = RemoteTeacher(
            list(options.teacher_urls), options.teacher, api_key=key, concurrency=options.concurrency, **settings
        )
        return remote.name, lambda: remote
    return options.teacher, lambda: _local_teacher(options, settings)


def _local_teacher(options: Options, settings: dict[str, Any]) -> HintWriter:
    import torch

    from kepo.teachers.local import LocalTeacher

    quantized = chat_template = None
    if options.recipe is not None:
        from kepo.trainer.launch import quantization
        from kepo.trainer.recipe import load_recipe

        recipe = load_recipe(options.recipe)
        quantized, chat_template = quantization(recipe.teacher), recipe.training.chat_template_kwargs
    return LocalTeacher(
        str(options.teacher),
        device=options.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        dtype=options.dtype or "auto",
        quantization_config=quantized,
        chat_template_kwargs=chat_template,
        batch_size=_batch(options),
        trust_remote_code=options.trust_remote_code,
        **settings,
    )
