"""The numbers of a data card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from kepo.data.prepare.splitting import Item
from kepo.data.sources import Unusable
from kepo.types import SPLITS, Question


def of_split(items: Sequence[Item], available: int) -> dict[str, Any]:
    """Counts and baselines of one split: `items` were drawn of `available` ones."""
    questions = [item.question for item in items]
    modalities = {
        modality: _counted([question for question in questions if (question.modality or "unknown") == modality])
        for modality in sorted({question.modality or "unknown" for question in questions})
    }
    whole = {"questions": len(items), "available": available, "images": len(_contents(items))}
    return {**whole, **_counted(questions), "modalities": modalities}


def _counted(questions: Sequence[Question]) -> dict[str, Any]:
    options = _counts(len(question.options) for question in questions)
    return {
        "questions": len(questions),
        "tasks": _counts(question.task or "unknown" for question in questions),
        "datasets": _counts(str(question.metadata["dataset"]) for question in questions),
        "options": {str(number or "open"): count for number, count in options.items()},
        **baselines(questions),
    }


def _counts(values: Iterable[Any]) -> dict[Any, int]:
    return dict(sorted(Counter(values).items()))


def _contents(items: Iterable[Item]) -> set[str]:
    return {content for item in items if item.question.images for content in item.contents}


def baselines(questions: Sequence[Question]) -> dict[str, Any]:
    """What scores without the images: chance, and always giving the most frequent letter (or answer).

    Returns:
        `chance`: mean of 1 / number of options over the questions that have options; None where none has.
        `majority_answer`, `majority`: the most frequent letter, or text of an open answer, and its share of the
        questions; None without questions.
    """
    chances = [1 / len(question.options) for question in questions if question.options]
    answers = Counter(question.answer for question in questions)
    # Of equally frequent ones the first in the alphabet.
    answer = min(answers, key=lambda text: (-answers[text], text), default=None)
    return {
        "chance": sum(chances) / len(chances) if chances else None,
        "majority_answer": answer,
        "majority": None if answer is None else answers[answer] / len(questions),
    }


def shortfalls(
    drawn: Mapping[str, Sequence[Item]], asked: Mapping[str, int | None], modalities: Iterable[str]
) -> list[dict[str, Any]]:
    """Where a split has fewer questions of a modality than were asked for."""
    taken = Counter((split, item.question.modality) for split in SPLITS for item in drawn[split])
    return [
        {"split": split, "modality": modality, "asked": count, "taken": taken[split, modality]}
        for split in SPLITS
        for modality in sorted(modalities)
        if (count := asked[split]) is not None and taken[split, modality] < count
    ]


def shared_images(splits: Mapping[str, Sequence[Item]]) -> dict[str, Any]:
    """Images that are in more than one split, by content; questions without images do not count."""
    pairs = {}
    for one, other in combinations(SPLITS, 2):
        shared = _contents(splits[one]) & _contents(splits[other])
        on_later = sum(not shared.isdisjoint(item.contents) for item in splits[other] if item.question.images)
        pairs[f"{one} and {other}"] = {"images": len(shared), f"{other}_questions": on_later}
    return pairs


def unusable_counts(rows: Iterable[Unusable]) -> list[dict[str, Any]]:
    """Rows by field and reason, most frequent first."""
    counts = Counter((row.field, row.reason) for row in rows)
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [{"field": field, "reason": reason, "rows": count} for (field, reason), count in ordered]
