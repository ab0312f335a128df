"""The data card: the numbers of `card.json`, and the same as a Hugging Face card, `README.md`."""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import yaml

from kepo.data.prepare.splitting import Item
from kepo.data.sources import Unusable
from kepo.types import SPLITS, Question

_KINDS = {"stratified": "by modality and question type", "paper": "by modality alone", "given": "as the source says"}


def render(card: Mapping[str, Any]) -> str:
    """`README.md` for the content of `card.json`."""
    parts = [
        _header(card),
        f"# {card['name']}, prepared",
        _made(card),
        *_splits(card),
        *_images(card),
        *_rows(card),
        "## Licenses",
        _table(("collection", "license of its images"), sorted(card["licenses"].items())),
        *card["notes"],
        "## Made from",
        _table(("file", "bytes", "SHA-256"), [list(one.values()) for one in card["identity"]["files"]]),
    ]
    return "\n\n".join(parts) + "\n"


def _header(card: Mapping[str, Any]) -> str:
    counts = {name: split["questions"] for name, split in card["splits"].items()}
    # Names of the hub; each range reaches to ten times its lower end.
    size = ("n<1K", "1K<n<10K", "10K<n<100K", "n>100K")[bisect((1_000, 10_000, 100_000), sum(counts.values()))]
    files = [{"split": name, "path": f"{name}/data-*.arrow"} for name, count in counts.items() if count]
    header = {
        "pretty_name": f"{card['name']}, prepared with kepo",
        "task_categories": ["visual-question-answering"],
        "language": ["en"],
        "license": "other",
        "license_name": "several",
        "size_categories": [size],
        "tags": ["medical", "multiple-choice"],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---"


def _made(card: Mapping[str, Any]) -> str:
    settings, identity = card["settings"], card["identity"]
    disjoint = "no image is in two splits" if settings["image_disjoint"] else "an image can be in several splits"
    side, longest = settings["size"], settings["longest_side"]
    size = f"{side}x{side} pixels" if longest is None else f"at most {longest} pixels on the longer side"
    lines = [
        f"- Split: {settings['split']} ({_KINDS[settings['split']]}); {disjoint}. Seed: {settings['seed']}.",
        f"- Images: RGB, {size}, PNG." if identity["images"] else "- Images: none; the questions alone.",
    ]
    if card["command"]:
        lines.append(f"- Command: `{card['command']}`")
    return "\n".join(lines)


def _splits(card: Mapping[str, Any]) -> list[str]:
    splits = card["splits"]
    rows = [
        (name, modality, part["questions"], *_baselines(part))
        for name, split in splits.items()
        for modality, part in (*split["modalities"].items(), ("all", split))
    ]
    head = ("split", "modality", "questions", "chance", "most frequent answer", "always that", "options: questions")
    available = _table(
        ("split", "questions", "drawn from", "images"),
        [(name, split["questions"], split["available"], split["images"]) for name, split in splits.items()],
    )
    parts = ["## Splits", available, _table(head, rows)]
    if card["shortfalls"]:
        parts.append("Fewer questions than were asked for, so all there are were taken:")
        parts.append(_records(("split", "modality", "asked", "taken"), card["shortfalls"]))
    kinds = [
        _table(("modality", title, *SPLITS), _by_kind(splits, kind))
        for kind, title in (("tasks", "question type"), ("datasets", "collection"))
    ]
    return [*parts, "## Question types and collections", *kinds]


def _by_kind(splits: Mapping[str, Any], kind: str) -> list[tuple[Any, ...]]:
    counts = {
        (modality, value, name): count
        for name, split in splits.items()
        for modality, part in split["modalities"].items()
        for value, count in part[kind].items()
    }
    pairs = sorted({(modality, value) for modality, value, _ in counts})
    return [(*pair, *(counts.get((*pair, split), 0) for split in SPLITS)) for pair in pairs]


def _images(card: Mapping[str, Any]) -> list[str]:
    if not card["identity"]["images"]:
        return []
    images = card["images"]
    drawn = images["shared_drawn"]
    return [
        "## Images in several splits",
        "Images are told apart by what they show (a hash of their pixels), not by their names.",
        _table(
            ("splits", "images in both, of all questions", "of the drawn ones", "drawn questions of the later split"),
            [(pair, whole["images"], *drawn[pair].values()) for pair, whole in images["shared_images"].items()],
        ),
        f"{images['names']} image names show {images['contents']} different images; {images['repeated']} images "
        f"have more than one name.",
    ]


def _rows(card: Mapping[str, Any]) -> list[str]:
    rows = card["rows"]
    text = (
        f"{rows['total']} rows were read: {rows['usable']} usable, {rows['unusable']} not; `unusable.jsonl` lists "
        "these with file, row, field, reason and value."
    )
    if rows["left_out"]:
        left_out = f"{rows['left_out']} usable rows that were left out, because their image is in another split"
        text += f" Listed there too are {left_out}."
    counted = [_records(("field", "reason", "rows"), card["unusable"])] if card["unusable"] else []
    return ["## Rows", text, *counted]


def _baselines(part: Mapping[str, Any]) -> tuple[str, str, str, str]:
    chance, answer, share = part["chance"], part["majority_answer"], part["majority"]
    options = ", ".join(f"{name}: {count}" for name, count in part["options"].items())
    return _share(chance), "-" if answer is None else answer, _share(share), options


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _records(columns: Sequence[str], records: Iterable[Mapping[str, Any]]) -> str:
    return _table(columns, [[record[name] for name in columns] for record in records])


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    def cell(value: Any) -> str:
        return " ".join(str(value).replace("|", "\\|").split())

    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)


# --- numbers ----------------------------------------------------------------------------------------------------------


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
