"""The checkpoint of a run that is tested, chosen by its in-domain accuracy on validation questions, never on the test.

Only the modalities trained on count: whoever trains on one source has no other to choose by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kepo.errors import ConfigError, DataError
from kepo.evaluation.accuracy import IN_DOMAIN, accuracy_by, domains
from kepo.evaluation.asking import asked_contents
from kepo.evaluation.settings import EvaluationSettings
from kepo.runs import Evaluation, checkpoints_in, read_evaluation
from kepo.types import Question

if TYPE_CHECKING:
    import pyarrow as pa

RULE = "highest in-domain accuracy, the earliest of equal ones"


@dataclass(frozen=True, slots=True)
class Choice:
    """The checkpoint that was chosen."""

    step: int
    folder: Path
    by: str  # name of the evaluation
    accuracy: float  # in-domain, 0..1
    questions: int  # number of in-domain questions
    in_domain: tuple[str, ...]
    candidates: dict[int, float]  # step -> in-domain accuracy of every checkpoint

    def described(self) -> dict[str, Any]:
        """Which it was and why, for the description of an evaluation."""
        return {
            "checkpoint": self.folder.name,
            "step": self.step,
            "chosen_by": self.by,
            "rule": RULE,
            "in_domain": list(self.in_domain),
            "accuracy": self.accuracy,
            "questions": self.questions,
            "candidates": [{"step": step, "accuracy": value} for step, value in self.candidates.items()],
        }


def choose_checkpoint(run: str | Path, by: str) -> Choice:
    """The best checkpoint of the run folder `run` by its evaluation called `by`.

    Raises:
        ConfigError: a checkpoint has no such evaluation, they answered different questions, or none is in-domain.
    """
    found = evaluated_checkpoints(run, by)
    first, evaluation = next(iter(found.items()))
    ids, in_domain = set(evaluation.table["id"].to_pylist()), evaluation.in_domain
    for step, other in found.items():
        if set(other.table["id"].to_pylist()) != ids:
            raise ConfigError(
                f"{run}: checkpoint-{step} answered other questions in {by!r} than checkpoint-{first}; "
                f"evaluate all with `kepo eval {run} --checkpoints --name {by} --overwrite`"
            )
    values = {step: _in_domain_accuracy(one.table, in_domain, run, by) for step, one in found.items()}
    step = max(values, key=lambda one: (values[one][0], -one))
    accuracy, questions = values[step]
    candidates = {one: value for one, (value, _) in values.items()}
    return Choice(step, checkpoints_in(run)[step], by, accuracy, questions, in_domain, candidates)


def evaluated_checkpoints(run: str | Path, name: str) -> dict[int, Evaluation]:
    """Step -> the evaluation called `name` of every checkpoint; raises ConfigError where one has none."""
    if not (checkpoints := checkpoints_in(run)):
        raise ConfigError(f"{run} has no whole checkpoint (checkpoint-N); train with save_strategy steps")
    found: dict[int, Evaluation] = {}
    for step, folder in checkpoints.items():
        try:
            found[step] = read_evaluation(folder, name)
        except DataError as error:
            raise ConfigError(
                f"{folder} has no evaluation {name!r} to choose by, and a choice needs all checkpoints: {error} The "
                f"command is `kepo eval {run} --checkpoints --name {name} --data VALIDATION`."
            ) from error
    return found


def _in_domain_accuracy(table: pa.Table, in_domain: Sequence[str], run: str | Path, by: str) -> tuple[float, int]:
    # A run that trained on no modality of its own is chosen by all questions.
    found = domains(table, in_domain)[IN_DOMAIN] if in_domain else accuracy_by(table, None)[None]
    if not found.n:
        raise ConfigError(
            f"{run}: the evaluation {by!r} has no question of the modality trained on ({', '.join(in_domain)}), and "
            "the choice rests on these; give --in-domain, or validation questions of this modality"
        )
    return found.estimate, found.n


def check_unseen(choice: Choice, run: str | Path, questions: Sequence[Question]) -> None:
    """Raise ConfigError if the checkpoint of `run` was chosen by some of `questions`, or the records cannot tell.

    Compared are ids, and text together with images.
    """
    evaluation = read_evaluation(choice.folder, choice.by)
    table = evaluation.table
    if table["content"].null_count:
        raise ConfigError(
            f"{choice.folder}: the records of {choice.by!r} do not say which images were shown, so it cannot be "
            f"told whether the test repeats them; evaluate again: `kepo eval {run} --checkpoints --name {choice.by} "
            "--overwrite`"
        )
    ids, contents = set(table["id"].to_pylist()), set(table["content"].to_pylist())
    _refuse([question.id for question in questions if question.id in ids], "id", choice)
    # Images are compared by their pixels, so both have to be of the size that the validation was asked in.
    generation = evaluation.description.get("generation", {})
    settings = EvaluationSettings(
        prompt_style=generation.get("prompt_style", "think"), image_size=generation.get("image_size")
    )
    shown = (id_ for id_, content in asked_contents(questions, settings) if content in contents)
    _refuse(list(shown), "text and images", choice)


def _refuse(repeated: Sequence[str], what: str, choice: Choice) -> None:
    if repeated:
        listed = ", ".join(map(repr, repeated[:3])) + (", ..." if len(repeated) > 3 else "")
        raise ConfigError(
            f"{len(repeated)} of the questions have the same {what} as questions of {choice.by!r}, by which the "
            f"checkpoint would be chosen ({listed}); a checkpoint is never chosen on what it is tested with. Keep "
            "validation and test apart."
        )
