"""What `kepo hints` is to do: its options, and the recipe that fills in those that are left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kepo.errors import ConfigError
from kepo.exploration.filling import FillSettings

if TYPE_CHECKING:
    from kepo.data.arguments import DataArguments
    from kepo.recipes.arguments import TeacherArguments
    from kepo.teachers.base import HintWriter
    from kepo.trainer.config import KEPOConfig
    from kepo.types import Group, Question

DEFAULT_BANK = "hints.jsonl"


@dataclass(frozen=True)
class Plan:
    """What is to be done."""

    questions: Sequence[Question]  # images checked
    data: DataArguments  # how the questions are shown
    out: Path  # the bank
    teacher: str  # name under which the teacher's hints are kept
    load_teacher: Callable[[], HintWriter]  # called only when hints are missing
    settings: FillSettings

    def group(self, place: int) -> Group:
        """A question as exploration sees it, its images opened and resized as in training."""
        from kepo.evaluation.asking import OrderedQuestion, conversations
        from kepo.evaluation.settings import EvaluationSettings
        from kepo.types import Group

        question = self.questions[place]
        shown = EvaluationSettings(prompt_style=self.data.prompt_style, image_size=self.data.image_size)
        (prompt,) = conversations([OrderedQuestion(question, 0)], shown)
        return Group(question.id, prompt, question.answer, question.options, correct=(), rewards=())


def make_plan(
    dataset: str | None,
    recipes: Sequence[str],
    options: Mapping[str, Any],
    *,
    limit: int | None,
    out: Path | None,
    trust_remote_code: bool,
) -> Plan:
    """The options of `kepo hints`, with the recipes' values and the defaults for what was left out (None, or empty).

    `options` are named as the fields of `DataArguments`, `TeacherArguments` and `FillSettings` that they set.

    Raises:
        ConfigError: Options that cannot work together, or a value out of range.
        DataError: Data that cannot be used.
    """
    from kepo.data.arguments import DataArguments, load_questions, load_splits
    from kepo.data.images import check_images
    from kepo.evaluation.job import draw
    from kepo.recipes.arguments import TeacherArguments

    training = None
    if recipes:
        source, writer, training = _of_recipe(recipes, dataset)
    elif dataset is not None:
        source, writer = DataArguments(data_path=dataset), TeacherArguments()
    else:
        raise ConfigError("There are no questions: name a file or folder of them, or a recipe with --from-recipe.")
    source, writer = replace(source, **_given(options, source)), replace(writer, **_given(options, writer))
    # Requests per call of a served teacher: enough to keep servers busy, few enough that little is lost by a stop.
    batch = 4 * writer.teacher_concurrency * len(writer.teacher_url) or writer.teacher_batch_size
    settings = FillSettings(batch_size=batch)
    if training is not None:
        settings = replace(settings, hint_leak_policy=training.hint_leak_policy, hint_retries=training.hint_retries)
        trust_remote_code = trust_remote_code or training.trust_remote_code
    settings = replace(settings, **_given(options, settings))
    _check(writer, settings)
    # Of a recipe those of training, copies with shuffled options included.
    questions = draw(load_questions(source) if training is None else load_splits(source)[0], limit, settings.seed)
    check_images(questions)
    template = None if training is None else training.chat_template_kwargs
    return Plan(
        questions,
        source,
        out or Path((training and training.hint_bank) or DEFAULT_BANK),
        str(writer.teacher_model_name_or_path),
        partial(_load_teacher, writer, template, trust_remote_code),
        settings,
    )


def _of_recipe(recipes: Sequence[str], dataset: str | None) -> tuple[DataArguments, TeacherArguments, KEPOConfig]:
    from kepo.recipes.recipe import load_recipe
    from kepo.trainer.config import KEPOConfig

    loaded = load_recipe(recipes, [] if dataset is None else ["--data_path", dataset])
    if not isinstance(loaded.training, KEPOConfig):
        raise ConfigError(f"{loaded.source} is of method 'sft', which uses no hints; name the recipe of a kepo arm.")
    return loaded.data, loaded.teacher, loaded.training


def _given(options: Mapping[str, Any], target: DataArguments | TeacherArguments | FillSettings) -> dict[str, Any]:
    """The options that set a field of `target`, those left out aside."""
    names = {field.name for field in fields(target)}
    return {name: value for name, value in options.items() if name in names and value not in (None, (), [])}


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

    from kepo.recipes.building import load_teacher

    if teacher.teacher_device is None and not teacher.teacher_url:
        teacher = replace(teacher, teacher_device="cuda" if torch.cuda.is_available() else "cpu")
    return load_teacher(teacher, chat_template_kwargs, trust_remote_code)
