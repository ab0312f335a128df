"""Accuracy from the records of an evaluation: over all questions, by group, in and out of domain.

A table has one row per (question, permutation, sample); its columns are described in `docs/evaluation.md`. Accuracy is
that of permutation 0, the data's own order of options. A question sampled several times counts once, by the mean of
its samples. Legend: R tables (replicates), Q questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import nan

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kepo.errors import DataError
from kepo.statistics.intervals import Interval, bootstrap_mean, wilson, wilson_of_mean

IN_DOMAIN = "in-domain"
OUT_OF_DOMAIN = "out-of-domain"


def question_scores(table: pa.Table) -> dict[str, float]:
    """Question id -> mean correctness over its samples (0..1), in the order of the table."""
    grouped = _per_question(table, [])
    return dict(zip(grouped["id"].to_pylist(), grouped["correct_mean"].to_pylist(), strict=True))


def accuracy_by(table: pa.Table, column: str | None) -> dict[str | None, Interval]:
    """Accuracy with its 95 % interval, for each value of a column.

    Wilson's interval if every question was answered once, or all scores are equal; else a bootstrap over questions, as
    their scores are no longer correct or incorrect.

    Args:
        table: Records of an evaluation.
        column: "modality", "task", "level", ...; None for all questions together, with None as the one key.

    Returns:
        Value, as text -> interval, sorted by value; None stands for the questions without one, and comes last.
    """
    grouped = _per_question(table, [] if column is None else [column])
    scores = grouped["correct_mean"].to_numpy()
    sampled = (pc.max(grouped["sample_count"]).as_py() or 0) > 1
    if column is None:
        return {None: _interval(scores, sampled)}
    values = grouped[f"{column}_first"].to_pylist()
    order = sorted({value for value in values if value is not None}) + [None] * (None in values)
    groups = {key: scores[[value == key for value in values]] for key in order}
    return {None if key is None else str(key): _interval(group, sampled) for key, group in groups.items()}


def split_domains(table: pa.Table, in_domain: Sequence[str]) -> dict[str, pa.Table]:
    """The records of "in-domain" and of "out-of-domain" questions; those without modality are in neither table.

    `in_domain` are the modalities trained on; if it is empty nothing is known, and both tables are empty.

    Args:
        table: Records of an evaluation.
        in_domain: Modalities trained on.
    """
    _check_columns(table, ["modality"])
    known = pc.is_valid(table["modality"]) if in_domain else pa.array([False] * len(table), pa.bool_())
    inside = pc.is_in(table["modality"].cast(pa.string()), value_set=pa.array(list(in_domain), pa.string()))
    return {
        IN_DOMAIN: table.filter(pc.and_(known, inside)),
        OUT_OF_DOMAIN: table.filter(pc.and_(known, pc.invert(inside))),
    }


def domains(table: pa.Table, in_domain: Sequence[str]) -> dict[str, Interval]:
    """Accuracy on "in-domain" and on "out-of-domain" questions, every question with the same weight.

    Both names are always there; without a question of it (see `split_domains`) n is 0 and the estimate NaN.

    Args:
        table: Records of an evaluation.
        in_domain: Modalities trained on.
    """
    return {name: accuracy_by(part, None)[None] for name, part in split_domains(table, in_domain).items()}


def macro_accuracy(table: pa.Table, column: str = "modality") -> float:
    """Mean of the groups' accuracies, every group with the same weight; NaN when no question has a group.

    Args:
        table: Records of an evaluation.
        column: What the groups are by.
    """
    groups = [interval.estimate for key, interval in accuracy_by(table, column).items() if key is not None]
    return float(np.mean(groups)) if groups else nan


def majority_letter_accuracy(table: pa.Table) -> float:
    """What always answering the most frequent letter would score; open questions count as incorrect.

    NaN when there is no question.
    """
    _check_columns(table, ["answer", "options"])
    grouped = _per_question(table, ["answer", "option_count"])
    if not len(grouped):
        return nan
    rows = zip(grouped["answer_first"].to_pylist(), grouped["option_count_first"].to_pylist(), strict=True)
    letters = Counter(answer for answer, count in rows if count)
    return max(letters.values(), default=0) / len(grouped)


def paired_scores(tables: Sequence[pa.Table]) -> tuple[list[str], np.ndarray]:
    """The question ids in the order of the first table, and their scores in every table, (R, Q), 0..1.

    Raises:
        DataError: The tables hold different questions (the message names up to three), or there is no table.
    """
    if not tables:
        raise DataError("There is no evaluation to compare; give at least one.")
    scores = [question_scores(table) for table in tables]
    ids = list(scores[0])
    for number, other in enumerate(scores[1:], start=2):
        _check_same_questions(scores[0], other, number)
    return ids, np.array([[score[id_] for id_ in ids] for score in scores]).reshape(len(scores), len(ids))


def _check_same_questions(first: dict[str, float], other: dict[str, float], number: int) -> None:
    for holder, lacking, names in ((first, other, (number, 1)), (other, first, (1, number))):
        if missing := [id_ for id_ in holder if id_ not in lacking]:
            shown = ", ".join(map(repr, missing[:3])) + (", ..." if len(missing) > 3 else "")
            raise DataError(
                f"Evaluation {names[0]} lacks {len(missing)} question(s) of evaluation {names[1]}: {shown}. "
                "Only evaluations of the same questions can be compared."
            )


def _per_question(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """One row per question of permutation 0: `id`, `correct_mean`, `sample_count`, and `NAME_first` of each column."""
    if "option_count" in columns:
        table = table.append_column("option_count", pc.list_value_length(table["options"]))
    _check_columns(table, ["id", "permutation", "sample", "correct", *columns])
    chosen = table.filter(pc.equal(table["permutation"], 0))
    if chosen["correct"].null_count:
        raise DataError("The column 'correct' has empty rows; every answer must be scored. Run the evaluation again.")
    aggregates = [("correct", "mean"), ("sample", "count"), ("sample", "count_distinct")]
    # "first" needs one thread, which also keeps the order of the table.
    grouped = chosen.group_by("id", use_threads=False).aggregate([*aggregates, *((name, "first") for name in columns)])
    twice = grouped.filter(pc.not_equal(grouped["sample_count"], grouped["sample_count_distinct"]))
    if len(twice):
        raise DataError(
            f"Question {twice['id'][0].as_py()!r} has the same sample more than once ({len(twice)} such question(s)); "
            "ids must be unique within an evaluation."
        )
    return grouped


def _check_columns(table: pa.Table, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise DataError(
            f"The evaluation has no column {missing[0]!r}; it has {', '.join(table.column_names)}. "
            "Is this file written by `kepo eval`?"
        )


def _interval(scores: np.ndarray, sampled: bool) -> Interval:
    # Without a question Wilson's interval says what is known: anything between 0 and 1.
    if not sampled or not len(scores):
        return wilson(int(scores.sum()), len(scores))
    # Of equal scores, such as those of one question, a bootstrap would know no doubt.
    return bootstrap_mean(scores) if np.ptp(scores) > 0 else wilson_of_mean(float(scores.mean()), len(scores))
