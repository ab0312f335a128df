"""The probe itself: the checks of this folder, in order, on a trainer that is ready to start."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from trl import prepare_multimodal_messages

from kepo.errors import DataError
from kepo.exploration.hints import read_hint, request_for
from kepo.models.encoding import tokenizer_of
from kepo.prompts import prompt_text
from kepo.teachers.base import Teacher
from kepo.trainer.adapter import TRLAdapter
from kepo.trainer.probe.data import is_sized, questions_per_batch
from kepo.trainer.probe.model import check_trainable, context_length
from kepo.trainer.probe.prompts import (
    REFUSALS,
    check_shapes,
    image_column,
    read_images,
    read_prompts,
    refused,
    rendered,
)
from kepo.trainer.probe.records import HintCheck, Probe, Rows, Scope, evenly
from kepo.trainer.probe.rewards import Asked, Rewarded, check_rewards
from kepo.trainer.rows import row_answer, row_images, row_options, row_prompt_style
from kepo.types import Group, Prompt

logger = logging.getLogger(__name__)


def look(trainer: TRLAdapter, correctness: int, scope: Scope, style: str | None = None, own: bool = False) -> Probe:
    """Probe a trainer before its first step.

    Args:
        trainer: Ready to start.
        correctness: Index of the reward function that says what is correct.
        scope: How much is looked at.
        style: The prompt style that the prompts were made with; None: as the prompts themselves say, if they do.
        own: Prompts or completions come from the user's own code, so rows are not looked at.

    Raises:
        ConfigError: Settings or a model with which nothing could be learned.
        DataError: A row that cannot be trained on; names it.
    """
    trainable, parameters = check_trainable(trainer.model)
    dataset, processor = trainer.train_dataset, trainer.processing_class
    base: dict[str, Any] = {
        "per_batch": questions_per_batch(trainer.args),
        "max_completion": trainer.args.max_completion_length,
        "context": context_length(trainer.model.config),
        "trainable": trainable,
        "parameters": parameters,
    }
    notes = ["learning_rate is 0: nothing will be learned."] if trainer.args.learning_rate == 0 else []
    if own or not is_sized(dataset) or "prompt" not in dataset.column_names:
        notes.append("The data is streamed or comes from your own code, so its rows were not looked at.")
        return Probe(**base, notes=tuple(notes))
    _check_evaluation(trainer, scope)
    rows = _rows("train_dataset", dataset)
    texts = read_prompts(dataset, processor, rows, scope)
    shapes = read_images(dataset, processor, rows, scope)
    share = slice(trainer.processes.index, None, trainer.processes.count)
    given = check_shapes(dataset, processor, rows, shapes, scope.shapes, share)
    tokens = {number: _tokens(trainer, rows, number) for number in texts.to_render}
    longest = max(tokens, key=lambda number: len(tokens[number]))
    _check_context(rows.where(longest), len(tokens[longest]), base["max_completion"], base["context"])
    found = _rewarded(trainer, correctness, scope, style, rows)
    first = texts.to_render[0]
    return Probe(
        **base,
        rows=len(dataset),
        texts_read=texts.read,
        row=rows.where(first),
        prompt=rendered(trainer.tokenizer, tokens[first]),
        completion=found.completion,
        incorrect=found.incorrect,
        rewards=found.rewards,
        rewarded_rows=found.rows,
        longest_prompt=len(tokens[longest]),
        longest_row=rows.where(longest),
        images=shapes.distinct,
        image_shapes=given,
        notes=(*notes, *found.notes),
    )


def _rows(name: str, dataset: Any) -> Rows:
    ids = dataset.select_columns(["id"])["id"] if "id" in dataset.column_names else None
    return Rows(name, range(len(dataset)), ids)


def _check_evaluation(trainer: TRLAdapter, scope: Scope) -> None:
    """The prompts and images of evaluation data pass the processor too."""
    given = trainer.eval_dataset
    sets = given if isinstance(given, dict) else {"": given}
    for name, dataset in sets.items():
        if not is_sized(dataset) or "prompt" not in dataset.column_names or len(dataset) == 0:
            continue
        rows = _rows(f"eval_dataset {name!r}" if name else "eval_dataset", dataset)
        texts = read_prompts(dataset, trainer.processing_class, rows, scope)
        shapes = read_images(dataset, trainer.processing_class, rows, scope)
        check_shapes(dataset, trainer.processing_class, rows, shapes, scope.shapes, slice(None))
        for number in texts.to_render:
            _tokens_of(trainer, rows, number, dataset)


def _tokens(trainer: TRLAdapter, rows: Rows, number: int) -> list[int]:
    return _tokens_of(trainer, rows, number, trainer.train_dataset)


def _tokens_of(trainer: TRLAdapter, rows: Rows, number: int, dataset: Any) -> list[int]:
    """The token ids of a row's prompt as rollouts are sampled from it."""
    try:
        return trainer.tokenize_prompts([full_prompt(dataset[number])])[0]
    except REFUSALS as error:
        raise refused(rows, number, error) from error


def full_prompt(row: dict[str, Any]) -> Prompt:
    """The prompt of a data set row with its images, as TRL puts them in."""
    prompt: Prompt = row["prompt"]
    images = row_images(row)
    if isinstance(prompt, str) or not images:
        return prompt
    return list(prepare_multimodal_messages(prompt, images=images))


def _check_context(where: str, prompt: int, completion: int | None, context: int | None) -> None:
    if context is None or completion is None or prompt + completion <= context:
        return
    raise DataError(
        f"{where}: its prompt takes {prompt} tokens, and with max_completion_length {completion} that is "
        f"{prompt + completion}, but the model reads {context} at most. Lower max_completion_length, make images "
        "smaller (image_size), remove the longest rows, or use a model with a longer context."
    )


def _rewarded(trainer: TRLAdapter, correctness: int, scope: Scope, style: str | None, rows: Rows) -> Rewarded:
    dataset = trainer.train_dataset
    numbers = evenly(len(dataset), scope.rows)
    if not trainer.reward_funcs:
        return Rewarded(None, None, (), 0, ())
    column = image_column(dataset)
    # Images are decoded for the first row only: rewards seldom read them.
    bare = dataset if column is None else dataset.remove_columns([column])
    data = [dataset[numbers[0]], *(bare[number] for number in numbers[1:])]
    if column is not None:  # all rows have the same columns
        data = [data[0], *({**row, column: None} for row in data[1:])]
    prompts = [row["prompt"] for row in data]
    opened = _opens_reasoning(trainer, full_prompt(dataset[numbers[0]]))
    asked = Asked(trainer, rows, numbers, data, prompts, opened)
    style = _style_of_rows(data) if style is None else style
    return check_rewards(asked, correctness, trainer.args.correctness_threshold, style, scope)


def _style_of_rows(data: Sequence[Mapping[str, Any]]) -> str | None:
    """The one prompt style of these rows, see `row_prompt_style`; None: unknown, or mixed."""
    styles = {row_prompt_style(row) for row in data}
    return styles.pop() if len(styles) == 1 else None


def _opens_reasoning(trainer: TRLAdapter, prompt: Prompt) -> bool:
    """Whether the chat template ends a prompt with <think>."""
    if isinstance(prompt, str):
        return prompt.rstrip().endswith("<think>")
    return bool(trainer.tokenizer.decode(trainer.tokenize_prompts([prompt])[0][-8:]).rstrip().endswith("<think>"))


def look_at_hint(trainer: TRLAdapter, teacher: Teacher) -> HintCheck | None:
    """One hint of the teacher for the first question, and its audit; None for data without true answers."""
    row = trainer.train_dataset[0]
    answer = row_answer(row)
    group = Group(
        key=str(row.get("id", 0)),
        prompt=full_prompt(row),
        answer=None if answer is None else str(answer),
        options=row_options(row),
        correct=(),
        rewards=(),
    )
    level = trainer.args.hint_level
    request = request_for(group, level)
    if request is None:
        return None
    [raw] = teacher.write_hints([request])
    hint = read_hint(raw, group, level, trainer.args.hint_leak_policy)
    return HintCheck(prompt_text(request), raw, hint.written, hint.leaks, hint.text)


def look_at_supervised(trainer: Any, scope: Scope) -> Probe:
    """Probe TRL's supervised trainer on data of `kepo.data.to_sft_dataset`: its model, prompts and images.

    Raises:
        ConfigError: Nothing would be trained, or the model cannot read the images.
        DataError: A row that the processor refuses.
    """
    trainable, parameters = check_trainable(trainer.model)
    dataset, processor = trainer.train_dataset, trainer.processing_class
    notes = ("Supervised training: there are no rollouts, and no rewards to check.",)
    shown: dict[str, Any] = {}
    if "prompt" in dataset.column_names:  # of a text model TRL has tokenized it already
        rows = _rows("train_dataset", dataset)
        shown["texts_read"] = read_prompts(dataset, processor, rows, scope).read
        shapes = read_images(dataset, processor, rows, scope, mixed=True)
        given = check_shapes(dataset, processor, rows, shapes, scope.shapes, slice(None))
        shown |= {"images": shapes.distinct, "image_shapes": given}
    if "input_ids" in dataset.column_names:
        ids = dataset[0]["input_ids"]
        shown |= {"row": "train_dataset, row 0", "prompt": rendered(tokenizer_of(processor), ids)}
    return Probe(rows=len(dataset), trainable=trainable, parameters=parameters, notes=notes, **shown)


def say(probe: Probe, but: Probe | None = None) -> None:
    """Log what is worth knowing before the run starts; what the probe `but` found was logged before."""
    for note in probe.notes:
        if but is None or note not in but.notes:
            logger.warning("%s", note)
