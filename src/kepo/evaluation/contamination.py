"""Which questions of an evaluation the model was trained on, by their content (see `kepo.data.contents`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from kepo.data.arguments import DataArguments, load_questions, split_questions
from kepo.data.contents import Overlap, contents_of, overlap
from kepo.errors import KepoError
from kepo.runs import Run, is_run, open_run
from kepo.runs.trained_on import read_trained_on
from kepo.types import Content, Question

_EXAMPLES = 5


def trained_on_before(model: str, questions: Sequence[Question]) -> Overlap | None:
    """Which of the questions the model in the folder `model` was trained on.

    Args:
        model: A run folder, one of its checkpoints, or anything else.
        questions: To be asked.

    Returns:
        None where nothing is known: the model is no run, or its run kept nothing and its data are gone.
    """
    known = _trained_on(Path(model), frozenset())
    return None if known is None else overlap(questions, known)


def described(found: Overlap | None) -> dict[str, Any] | None:
    """What was found, for the description of an evaluation."""
    if found is None:
        return None
    counts = {"asked": found.asked, "same": len(found.same), "alike": len(found.alike), "image": len(found.image)}
    return {**counts, "examples": list((*found.same, *found.alike, *found.image)[:_EXAMPLES])}


def in_words(description: Mapping[str, Any]) -> str | None:
    """What an evaluation's description says about questions that were trained on; None where it found none."""
    found = description.get("trained_on")
    if not isinstance(found, Mapping) or not (found.get("same") or found.get("alike") or found.get("image")):
        return None
    parts = [
        f"{found[name]} {what}"
        for name, what in (
            ("same", "were trained on (question, options and images are the same)"),
            ("alike", "have the text of a training question and images that look like its own (resized, compressed)"),
            ("image", "show an image that was trained on with another question"),
        )
        if found.get(name)
    ]
    examples = ", ".join(map(repr, found.get("examples", [])))
    return f"Of {found.get('asked')} questions {'; '.join(parts)}. Examples: {examples}."


def questions_of_run(data: Mapping[str, Any]) -> list[Question]:
    """The training questions of a run, read again from the data that its config names; images are not opened.

    Raises:
        KepoError: The data are not there any more, or cannot be read.
    """
    args = DataArguments(**known_fields(data))
    return split_questions(args, load_questions(args))[0]


def known_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `DataArguments` in the config of a run."""
    known = {one.name for one in fields(DataArguments)}
    # Copies of training questions in another order are no questions of their own.
    return {**{name: value for name, value in data.items() if name in known}, "option_shuffles": 0}


def _trained_on(folder: Path, seen: frozenset[Path]) -> Collection[Content] | None:
    """What the run that `folder` is, or is a checkpoint of, was trained on, and the runs that its model came from."""
    place = next((parent for parent in (folder, folder.parent) if folder.is_dir() and is_run(parent)), None)
    if place is None or place.resolve() in seen:
        return None
    run = open_run(place)
    start = run.setting("model", "model_name_or_path")
    before = None if start is None else _trained_on(run.located(start), seen | {place.resolve()})
    own = _of_run(run)
    return before if own is None else [*(before or ()), *own]


def _of_run(run: Run) -> Collection[Content] | None:
    kept = read_trained_on(run.folder)
    config = run.manifest.get("config", {})
    if kept is not None or "training" not in config or not _names_data(config.get("data")):
        return kept
    # An older run kept nothing, but its data may still be there.
    try:
        return contents_of(questions_of_run(config["data"]))
    except KepoError:
        return None


def _names_data(data: Mapping[str, Any] | None) -> bool:
    """A script's run knows its prompt style at most."""
    return data is not None and bool(data.get("data_path") or data.get("reasoning_tasks"))
