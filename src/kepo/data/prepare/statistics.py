"""The numbers of a data card."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from kepo.data.prepare.splitting import Item
from kepo.data.sources import Unusable
from kepo.types import SPLITS, Question


def of_split(items: Sequence[Item], available: int) -> dict[str, Any]:
    """Counts and baselines of one split.

    Args:
        items: What was drawn.
        available: How many there were to draw from.
    """
    by_modality: dict[str, list[Question]] = defaultdict(list)
    for item in items:
        by_modality[item.question.modality or "unknown"].append(item.question)
    modalities = {
        modality: {"questions": len(members), **_counted(members)} for modality, members in sorted(by_modality.items())
    }
    return {
        "questions": len(items),
        "available": available,
        "images": len(_shown(items)),
        **_counted([item.question for item in items]),
        "modalities": modalities,
    }


def _counted(questions: Sequence[Question]) -> dict[str, Any]:
    options = Counter(len(question.options) for question in questions)
    return {
        "tasks": _counts(question.task or "unknown" for question in questions),
        "datasets": _counts(str(question.metadata["dataset"]) for question in questions),
        "options": {"open" if number == 0 else str(number): options[number] for number in sorted(options)},
        **baselines(questions),
    }


def _shown(items: Iterable[Item]) -> set[str]:
    return {content for item in items if item.question.images for content in item.contents}


def baselines(questions: Sequence[Question]) -> dict[str, Any]:
    """What can be scored without looking: by chance, and by always giving the most frequent letter (or answer).

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
    found = []
    for split in SPLITS:
        count = asked[split]
        taken = Counter(item.question.modality for item in drawn[split])
        for modality in sorted(modalities):
            if count is not None and taken[modality] < count:
                found.append({"split": split, "modality": modality, "asked": count, "taken": taken[modality]})
    return found


def shared_images(splits: Mapping[str, Sequence[Item]]) -> dict[str, Any]:
    """Images that are in more than one split, told by what they show; questions without images do not count."""
    pairs = {}
    for one, other in combinations(SPLITS, 2):
        shared = _shown(splits[one]) & _shown(splits[other])
        on_later = sum(not shared.isdisjoint(item.contents) for item in splits[other] if item.question.images)
        pairs[f"{one} and {other}"] = {"images": len(shared), f"{other}_questions": on_later}
    return pairs


def unusable_counts(rows: Iterable[Unusable]) -> list[dict[str, Any]]:
    """Rows by field and reason, most frequent first."""
    counts = Counter((row.field, row.reason) for row in rows)
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [{"field": field, "reason": reason, "rows": count} for (field, reason), count in ordered]


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def repeated(contents: Iterable[str]) -> int:
    """How many contents occur more than once."""
    return sum(count > 1 for count in Counter(contents).values())
