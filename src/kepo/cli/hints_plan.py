"""What `kepo hints` is to do: its options, and the recipe that fills in those that are left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kepo.errors import ConfigError
from kepo.exploration.filling import FillSettings

if TYPE_CHECKING:
    from kepo.data.arguments import DataArguments
    from kepo.recipes.arguments import TeacherArguments
    from kepo.teachers.base import HintWriter
    from kepo.types import Group, Question

DEFAULT_BANK = "hints.jsonl"


@dataclass(frozen=True)
class Options:
    """The options as given, by the fields they set; None where left out, for the recipe's value or the default."""

    dataset: str | None
    recipe: str | None
    data: Mapping[str, Any]  # fields of DataArguments
    teacher: Mapping[str, Any]  # fields of TeacherArguments
    hints: Mapping[str, Any]  # fields of FillSettings
    limit: int | None
    out: Path | None
    trust_remote_code: bool


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
        from kepo.evaluation.asking import OrderedQuestion, conversations
        from kepo.evaluation.settings import EvaluationSettings
        from kepo.types import Group

        question = self.questions[place]
        shown = EvaluationSettings(prompt_style=self.data.prompt_style, image_size=self.data.image_size)
        (prompt,) = conversations([OrderedQuestion(question, 0)], shown)
        row = {"question": question.text}
        return Group(question.id, prompt, question.answer, question.options, correct=(), rewards=(), row=row)


def make_plan(options: Options) -> Plan:
    """The options, with the recipe's values and the defaults for what was left out.

    Raises:
        ConfigError: Options that cannot work together, or a value out of range.
        DataError: Data that cannot be used.
    """
    from kepo.data.images import check_images
    from kepo.evaluation.job import draw

    base = _defaults(options) if options.recipe is None else _of_recipe(options)
    data = replace(base.data, **_given(options.data))
    teacher = replace(base.teacher, **_given(options.teacher))
    settings = replace(base.settings, batch_size=_batch(teacher), **_given(options.hints))
    _check(teacher, settings)
    questions = draw(base.questions(data), options.limit, settings.seed)
    check_images(questions)
    return Plan(
        questions,
        data,
        options.out or base.out,
        str(teacher.teacher_model_name_or_path),
        partial(_load_teacher, teacher, base.chat_template_kwargs, options.trust_remote_code or base.trust_remote_code),
        settings,
    )


@dataclass(frozen=True)
class _Base:
    """What the options are put over."""

    data: DataArguments
    teacher: TeacherArguments
    settings: FillSettings
    out: Path
    questions: Callable[[DataArguments], list[Question]]
    chat_template_kwargs: Mapping[str, Any] | None = None
    trust_remote_code: bool = False


def _defaults(options: Options) -> _Base:
    from kepo.data.arguments import DataArguments, load_questions
    from kepo.recipes.arguments import TeacherArguments

    if options.dataset is None:
        raise ConfigError("There are no questions: name a file or folder of them, or a recipe with --from-recipe.")
    data = DataArguments(data_path=options.dataset)
    return _Base(data, TeacherArguments(), FillSettings(), Path(DEFAULT_BANK), load_questions)


def _of_recipe(options: Options) -> _Base:
    from kepo.data.arguments import load_splits
    from kepo.recipes.recipe import load_recipe
    from kepo.trainer.config import KEPOConfig

    recipe = load_recipe(str(options.recipe), [] if options.dataset is None else ["--data_path", options.dataset])
    training = recipe.training
    if not isinstance(training, KEPOConfig):
        raise ConfigError(f"{recipe.source} is of method 'sft', which uses no hints; name the recipe of a kepo arm.")
    return _Base(
        recipe.data,
        recipe.teacher,
        FillSettings(hint_leak_policy=training.hint_leak_policy, hint_retries=training.hint_retries),
        Path(training.hint_bank or DEFAULT_BANK),
        lambda data: load_splits(data)[0],  # those of training, copies with shuffled options included
        training.chat_template_kwargs,
        training.trust_remote_code,
    )


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, [])}


def _batch(teacher: TeacherArguments) -> int:
    """Requests per call of the teacher; enough to keep servers busy, few enough that little is lost by a stop."""
    served = 4 * teacher.teacher_concurrency * len(teacher.teacher_url)
    return served or teacher.teacher_batch_size


def _check(teacher: TeacherArguments, settings: FillSettings) -> None:
    if not teacher.teacher_model_name_or_path:
        raise ConfigError("No teacher is named: set --teacher to a folder, a hub name, or a model of --teacher-url.")
    if teacher.hint_temperature == 0 and settings.per_question > 1:
        raise ConfigError(
            f"per_question is {settings.per_question} and temperature 0: greedy hints are all the same. Set a "
            "temperature, or ask for one hint per question."
        )


def _load_teacher(
    teacher: TeacherArguments, chat_template_kwargs: Mapping[str, Any] | None, trust_remote_code: bool
) -> HintWriter:
    import torch

    from kepo.recipes.launch import load_teacher

    if teacher.teacher_device is None and not teacher.teacher_url:
        teacher = replace(teacher, teacher_device="cuda" if torch.cuda.is_available() else "cpu")
    return load_teacher(teacher, chat_template_kwargs, trust_remote_code)
