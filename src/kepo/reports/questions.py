"""The questions that a run was trained on, found again by the data settings that the run noted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kepo.errors import KepoError
from kepo.reports.document import line
from kepo.reports.study import RunData

if TYPE_CHECKING:
    from kepo.types import Question

_ANCESTORS = 4


class QuestionBank:
    """Loads the questions of runs, each data set once; what cannot be loaded is noted in `problems`."""

    def __init__(self) -> None:
        self._loaded: dict[str, dict[str, Question]] = {}
        self.problems: list[str] = []

    def of(self, run: RunData) -> Mapping[str, Question]:
        """Id -> question of the run's training data; empty where it is not there (any more)."""
        settings = run.run.manifest.get("config", {}).get("data") or {}
        settings = {**settings, **_found_paths(settings, run.run.folder)}
        key = json.dumps(settings, sort_keys=True, default=str)
        if key not in self._loaded:
            self._loaded[key] = self._load(settings) if settings else {}
        return self._loaded[key]

    def _load(self, settings: Mapping[str, Any]) -> dict[str, Question]:
        from kepo.data.arguments import DataArguments, load_questions, split_questions
        from kepo.data.augment import shuffle_options

        known = {field.name for field in fields(DataArguments)}
        try:
            args = DataArguments(**{name: value for name, value in settings.items() if name in known})
            everything = load_questions(args)
            train, _ = split_questions(args, everything) if args.option_shuffles else (everything, [])
            questions = shuffle_options(train, args.option_shuffles, args.split_seed)
        except (KepoError, OSError) as error:
            self.problems.append(f"Training questions could not be loaded again: {line(error, 300)}")
            return {}
        return {question.id: question for question in questions}


def _found_paths(settings: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """The paths among the settings, where they lie now: a study that was moved takes its data along."""
    return {
        name: str(found)
        for name in ("data_path", "image_root")
        if settings.get(name) and (found := _find(Path(settings[name]), folder)) is not None
    }


def _find(path: Path, folder: Path) -> Path | None:
    if path.exists():
        return path
    tails = [Path(*path.parts[-count:]) for count in (3, 2, 1) if len(path.parts) >= count]
    places = (place / tail for tail in tails for place in list(folder.resolve().parents)[:_ANCESTORS])
    return next((place for place in places if place.exists()), None)
