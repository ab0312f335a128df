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
    from kepo.trainer.config import KEPOConfig
    from kepo.types import Group, Question

DEFAULT_BANK = "hints.jsonl"


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
        return Group(question.id, prompt, question.answer, question.options, correct=(), rewards=())


def make_plan(
    dataset: str | None,
    recipes: Sequence[str],
    *,
    data: Mapping[str, Any],
    teacher: Mapping[str, Any],
    hints: Mapping[str, Any],
    limit: int | None,
    out: Path | None,
    trust_remote_code: bool,
) -> Plan:
    """The options, with the recipe's values and the defaults for what was left out (None, or an empty list).

    Args:
        dataset: File or folder of the questions.
        recipes: Whose training the hints are for; later ones over earlier ones.
        data: Fields of `DataArguments`.
        teacher: Fields of `TeacherArguments`.
        hints: Fields of `FillSettings`.
        limit: Questions, drawn with the seed.
        out: The bank.
        trust_remote_code: Run code that comes with the model.

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
        asked, writer, training = _of_recipe(recipes, dataset)
    elif dataset is not None:
        asked, writer = DataArguments(data_path=dataset), TeacherArguments()
    else:
        raise ConfigError("There are no questions: name a file or folder of them, or a recipe with --from-recipe.")
    asked, writer = replace(asked, **_given(data)), replace(writer, **_given(teacher))
    fields = {"batch_size": _batch(writer), **_given(hints)}
    if training is not None:
        fields = {"hint_leak_policy": training.hint_leak_policy, "hint_retries": training.hint_retries, **fields}
        trust_remote_code = trust_remote_code or training.trust_remote_code
    settings = FillSettings(**fields)
    _check(writer, settings)
    # Of a recipe those of training, copies with shuffled options included.
    questions = draw(load_questions(asked) if training is None else load_splits(asked)[0], limit, settings.seed)
    check_images(questions)
    template = None if training is None else training.chat_template_kwargs
    return Plan(
        questions,
        asked,
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
