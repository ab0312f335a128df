"""The rollout browser's data: plain records that the page's script turns into cards."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from kepo.reports.document import line, visible
from kepo.reports.images import Thumbnails
from kepo.reports.rollouts import Shown
from kepo.reports.study import Study
from kepo.rewards.tags import reasoning_span

_LONGEST = 4000
"""Characters of a text that are shown."""


def browser_data(study: Study, shown: Sequence[Shown], thumbnails: Thumbnails) -> dict[str, Any]:
    """What the page's script needs: the cards, the names they refer to by place, and the images."""
    runs = list(dict.fromkeys(one.run.name for one in shown))
    arms = [arm.name for arm in study.arms]
    cards = [
        {"arm": arms.index(one.run.arm), "run": runs.index(one.run.name), **_card(one, thumbnails)} for one in shown
    ]
    return {
        "arms": [arm.label for arm in study.arms],
        "runs": [line(name) for name in runs],
        "images": thumbnails.uris,
        "cards": cards,
    }


def as_json(data: Mapping[str, Any]) -> str:
    """`data` as JSON that can stand inside a `<script>` element: nothing in it can close one."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _card(one: Shown, thumbnails: Thumbnails) -> dict[str, Any]:
    row = one.row
    completion = row["completion"] or ""
    start, end = reasoning_span(completion)
    return {
        "question": _text(row["question"] or row["prompt"]),
        "options": [_text(option) for option in row["options"] or ()],
        "id": line(row["id"]),
        "replicate": line(one.run.replicate),
        "step": row["step"],
        "modality": line(row.get("modality") or ""),
        "task": line(row.get("task") or ""),
        "truth": _text(row.get("answer")),
        "before": _text(completion[:start]),
        "reasoning": _text(completion[start:end]),
        "after": _text(completion[end:]),
        "correct": one.correct,
        "rewards": [[line(name[7:]), _finite(row[name])] for name in row if name.startswith("reward/")],
        **{name: _finite(row.get(name)) for name in ("reward", "advantage", "gate")},
        "tokens": row.get("tokens"),
        "failed": bool(row.get("group_all_failed")),
        **_exploration(row),
        "images": _images(one, thumbnails),
    }


def _exploration(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "injected": bool(row["injected"]),
        "hint": _text(row.get("hint")),
        "level": row.get("hint_level"),
        "attempt": row.get("attempt"),
        "attempts": row.get("attempts"),
        "tried": [_text(hint) for hint in row.get("hints_tried") or ()],
        "failure": line(row.get("exploration_failure") or ""),
    }


def _images(one: Shown, thumbnails: Thumbnails) -> list[int | None]:
    """Places of its images; null for one that was not found, or that the log does not name."""
    places = [thumbnails.add(one.run.run.located(image)) for image in one.row["images"] or ()]
    return places or ([None] if "[image]" in (one.row["prompt"] or "") else [])


def _text(text: str | None) -> str:
    shown = visible("" if text is None else text).strip("\n")
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}… ({len(shown) - _LONGEST:,} more characters)"


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)
