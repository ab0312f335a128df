"""The data card: `card.json`, and the same numbers as a Hugging Face card, `README.md`."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from kepo.types import SPLITS

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
        text += (
            f" Listed there too are {rows['left_out']} usable rows that were left out, because their image is in "
            "another split."
        )
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
