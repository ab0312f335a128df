"""The data card: `card.json`, and the same numbers as a Hugging Face card, `README.md`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from kepo.types import SPLITS

_KINDS = {
    "stratified": "by modality and question type",
    "paper": "by modality alone",
    "given": "as the source says",
}


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
        *_files(card),
    ]
    return "\n\n".join(parts) + "\n"


def _header(card: Mapping[str, Any]) -> str:
    total = sum(split["questions"] for split in card["splits"].values())
    # A range that the hub knows; the upper end of each is ten times the lower one.
    size = next(
        name
        for limit, name in ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (float("inf"), "n>100K"))
        if total < limit
    )
    files = [
        {"split": name, "path": f"{name}/data-*.arrow"} for name, split in card["splits"].items() if split["questions"]
    ]
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
    by_size = settings["longest_side"] is None
    side = settings["size"] if by_size else settings["longest_side"]
    size = f"{side}x{side} pixels" if by_size else f"at most {side} pixels on the longer side"
    lines = [
        f"- Split: {settings['split']} ({_KINDS[settings['split']]}); {disjoint}. Seed: {settings['seed']}.",
        f"- Images: RGB, {size}, PNG." if identity["images"] else "- Images: none; the questions alone.",
    ]
    if card["command"]:
        lines.append(f"- Command: `{card['command']}`")
    return "\n".join(lines)


def _splits(card: Mapping[str, Any]) -> list[str]:
    splits = card["splits"]
    rows = []
    for name, split in splits.items():
        for modality, part in (*split["modalities"].items(), ("all", split)):
            rows.append((name, modality, part["questions"], *_baselines(part), _counted(part["options"])))
    head = ("split", "modality", "questions", "chance", "most frequent answer", "always that", "options: questions")
    available = _table(
        ("split", "questions", "drawn from", "images"),
        [(name, split["questions"], split["available"], split["images"]) for name, split in splits.items()],
    )
    parts = ["## Splits", available, _table(head, rows)]
    if card["shortfalls"]:
        parts.append("Fewer questions than were asked for, so all there are were taken:")
        columns = ("split", "modality", "asked", "taken")
        parts.append(_table(columns, [[row[name] for name in columns] for row in card["shortfalls"]]))
    parts.append("## Question types and collections")
    for kind, title in (("tasks", "question type"), ("datasets", "collection")):
        parts.append(_table(("modality", title, *SPLITS), _by_kind(splits, kind)))
    return parts


def _by_kind(splits: Mapping[str, Any], kind: str) -> list[tuple[Any, ...]]:
    found = {
        (modality, value)
        for split in splits.values()
        for modality, part in split["modalities"].items()
        for value in part[kind]
    }

    def count(split: str, modality: str, value: str) -> int:
        return splits[split]["modalities"].get(modality, {}).get(kind, {}).get(value, 0)

    return [(*pair, *(count(split, *pair) for split in SPLITS)) for pair in sorted(found)]


def _images(card: Mapping[str, Any]) -> list[str]:
    if not card["identity"]["images"]:
        return []
    images = card["images"]
    return [
        "## Images in several splits",
        "Images are told apart by what they show (a hash of their pixels), not by their names.",
        _table(
            ("splits", "images in both, of all questions", "of the drawn ones", "drawn questions of the later split"),
            [
                (pair, whole["images"], *images["shared_drawn"][pair].values())
                for pair, whole in images["shared_images"].items()
            ],
        ),
        f"{images['names']} image names show {images['contents']} different images; {images['repeated']} images "
        f"have more than one name.",
    ]


def _rows(card: Mapping[str, Any]) -> list[str]:
    rows = card["rows"]
    parts = [
        "## Rows",
        f"{rows['total']} rows were read: {rows['usable']} usable, {rows['unusable']} not; `unusable.jsonl` lists "
        "these with file, row, field, reason and value."
        + (
            f" Listed there too are {rows['left_out']} usable rows that were left out, because their image is in "
            "another split."
            if rows["left_out"]
            else ""
        ),
    ]
    if card["unusable"]:
        columns = ("field", "reason", "rows")
        parts.append(_table(columns, [[row[name] for name in columns] for row in card["unusable"]]))
    return parts


def _files(card: Mapping[str, Any]) -> list[str]:
    files = card["identity"]["files"]
    return [
        "## Made from",
        _table(("file", "bytes", "SHA-256"), [(one["name"], one["bytes"], one["sha256"]) for one in files]),
    ]


def _baselines(part: Mapping[str, Any]) -> tuple[str, str, str]:
    chance, answer, share = part["chance"], part["majority_answer"], part["majority"]
    return (
        "-" if chance is None else f"{chance:.1%}",
        "-" if answer is None else str(answer),
        "-" if share is None else f"{share:.1%}",
    )


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items())


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
