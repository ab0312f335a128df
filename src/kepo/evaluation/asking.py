"""From questions to prompts: other orders of the options, images opened, messages built."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kepo.data.images import opened
from kepo.data.option_order import movable_options, reordered
from kepo.errors import DataError
from kepo.evaluation.settings import EvaluationSettings
from kepo.prompts import build_prompt
from kepo.types import Conversation, Question

if TYPE_CHECKING:
    from PIL.Image import Image


class OrderedQuestion(NamedTuple):
    """One question in one order of its options; permutation 0 is the data's own."""

    question: Question
    permutation: int

    @property
    def key(self) -> tuple[str, int]:
        """Identifies it among the records."""
        return self.question.id, self.permutation


def check_questions(questions: Sequence[Question]) -> None:
    """Raise DataError if there are no questions, two have one id, or an answer is not the letter of an option."""
    if not questions:
        raise DataError("there are no questions to ask; check the path and the filters")
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise DataError(f"question {question.id!r}: two questions have this id; ids must be unique")
        seen.add(question.id)
        if question.options and question.answer not in question.letters:
            raise DataError(
                f"question {question.id!r}, field 'answer': {question.answer!r} is not the letter of one of its "
                f"{len(question.options)} options ({', '.join(question.letters)})"
            )


def ordered_questions(questions: Iterable[Question], settings: EvaluationSettings) -> Iterator[OrderedQuestion]:
    """Every question in the order of the data, each followed by its other option orders.

    Options that refer to others stay where they are, see `kepo.data.option_order`.
    """
    for question in questions:
        yield OrderedQuestion(question, 0)
        movable = len(movable_options(question.options) or ())
        orders = option_orders(movable, settings.permutations, f"{settings.seed}:{question.id}")
        for permutation, order in enumerate(orders, start=1):
            yield OrderedQuestion(reordered(question, order), permutation)


def option_orders(options: int, number: int, seed: str) -> list[tuple[int, ...]]:
    """Up to `number` orders of 0..options-1, all different and none the rising one; 2 options have 1, 3 have 5."""
    own = tuple(range(options))
    draw = random.Random(seed)
    orders: list[tuple[int, ...]] = []
    while len(orders) < min(number, math.factorial(options) - 1):
        order = tuple(draw.sample(own, options))
        if order != own and order not in orders:
            orders.append(order)
    return orders


def content_of(text: str, conversation: Conversation) -> str:
    """Hash of the text, without case, spaces and options, and of the pixels of the images in `conversation`."""
    digest = hashlib.sha256(" ".join(text.casefold().split()).encode(errors="surrogatepass"))
    for message in conversation:
        parts = message["content"] if isinstance(message["content"], list) else []
        for image in (part["image"] for part in parts if part["type"] == "image"):
            digest.update(f"{image.mode} {image.size}".encode() + image.tobytes())
    return digest.hexdigest()[:32]


def asked_contents(questions: Sequence[Question], settings: EvaluationSettings) -> Iterator[tuple[str, str]]:
    """(id, `content_of`) of every question as it would be asked; opens one image at a time."""
    for question in questions:
        [conversation] = conversations([OrderedQuestion(question, 0)], settings)
        yield question.id, content_of(question.text, conversation)


def sampling_seed(ordered: OrderedQuestion, seed: int) -> int:
    """A seed for each question and order, 0..2**63-1, whatever else is asked."""
    digest = hashlib.sha256(f"{seed}:{ordered.permutation}:{ordered.question.id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def conversations(batch: Sequence[OrderedQuestion], settings: EvaluationSettings) -> list[Conversation]:
    """The prompts, images as parts in front of the text, as TRL puts them in training.

    Raises:
        DataError: an image cannot be used.
    """
    shown: dict[str, list[Image]] = {}
    built = []
    for question, _ in batch:
        if question.id not in shown:
            shown[question.id] = [_open(image, question.id, settings.image_size) for image in question.images]
        built.append(_with_images(build_prompt(question, settings.prompt_style), shown[question.id]))
    return built


def _with_images(conversation: Conversation, images: Sequence[Image]) -> Conversation:
    if not images:
        return conversation
    first, *rest = conversation
    parts = [{"type": "image", "image": image} for image in images]
    return [{**first, "content": [*parts, {"type": "text", "text": first["content"]}]}, *rest]


def _open(image: Any, question: str, size: int | None) -> Image:
    """An image as training shows it."""
    try:
        return opened(image, size)
    except DataError as error:
        raise DataError(f"question {question!r}, field 'images': {image} {error}") from error
