"""Accuracy from evaluation records: what counts once, what is left out, and what is refused."""

from __future__ import annotations

from math import isnan
from typing import Any

import pyarrow as pa
import pytest

from kepo.errors import DataError
from kepo.evaluation.accuracy import (
    accuracy_by,
    domains,
    macro_accuracy,
    majority_letter_accuracy,
    paired_scores,
    question_scores,
    split_domains,
)
from kepo.statistics.intervals import Interval, bootstrap_mean, wilson

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("modality", pa.string()),
        ("level", pa.int32()),
        ("permutation", pa.int32()),
        ("sample", pa.int32()),
        ("answer", pa.string()),
        ("options", pa.list_(pa.string())),
        ("correct", pa.bool_()),
    ]
)


def _row(id_: str, correct: bool | None, **other: Any) -> dict[str, Any]:
    plain = {"modality": "MRI", "level": 1, "permutation": 0, "sample": 0, "answer": "A", "options": ["x", "y"]}
    return {"id": id_, "correct": correct, **plain, **other}


def _table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def test_a_question_scores_the_mean_of_its_samples() -> None:
    table = _table(_row("q2", True), _row("q1", False), _row("q1", True, sample=1), _row("q2", True, sample=1))
    assert question_scores(table) == {"q2": 1.0, "q1": 0.5}
    assert list(question_scores(table)) == ["q2", "q1"]


def test_permuted_options_do_not_count() -> None:
    table = _table(_row("q", True), _row("q", False, permutation=1), _row("q", False, permutation=2))
    assert question_scores(table) == {"q": 1.0}


def test_accuracy_of_all_is_the_share_with_wilsons_interval() -> None:
    table = _table(*(_row(f"q{i}", i < 8) for i in range(10)))
    assert accuracy_by(table, None) == {None: wilson(8, 10)}


def test_accuracy_of_sampled_answers_is_over_questions_not_samples() -> None:
    rows = [_row(f"q{i}", i < 2 and s < 2, sample=s) for i in range(4) for s in range(4)]
    # Question means .5, .5, 0, 0. As 16 answers the interval would be half as wide.
    assert accuracy_by(_table(*rows), None) == {None: bootstrap_mean([0.5, 0.5, 0.0, 0.0])}


def test_accuracy_by_group() -> None:
    table = _table(
        _row("a", True, modality="MRI"),
        _row("b", True, modality=None),
        _row("c", False, modality="CT"),
        _row("d", True, modality="CT"),
    )
    groups = accuracy_by(table, "modality")
    assert groups == {"CT": wilson(1, 2), "MRI": wilson(1, 1), None: wilson(1, 1)}
    assert list(groups) == ["CT", "MRI", None]


def test_levels_are_sorted_as_numbers() -> None:
    table = _table(*(_row(f"q{level}", True, level=level) for level in (10, 2, 1)))
    assert list(accuracy_by(table, "level")) == ["1", "2", "10"]


def test_accuracy_without_records_knows_nothing() -> None:
    interval = accuracy_by(_table(), None)[None]
    assert (interval.low, interval.high, interval.n) == (0.0, 1.0, 0)
    assert accuracy_by(_table(), "modality") == {}


def test_domains_weigh_every_question_alike() -> None:
    table = _table(
        _row("a", True),
        _row("b", False, modality="CT"),
        _row("c", True, modality="CT"),
        _row("d", True, modality="X-Ray"),
        _row("e", True, modality=None),
    )
    assert domains(table, ["MRI"]) == {"in-domain": wilson(1, 1), "out-of-domain": wilson(2, 3)}


def test_domains_are_empty_when_the_training_modalities_are_unknown() -> None:
    found = domains(_table(_row("a", True)), [])
    assert [interval.n for interval in found.values()] == [0, 0]
    assert list(found) == ["in-domain", "out-of-domain"]


def test_splitting_keeps_every_record_of_a_question() -> None:
    table = _table(_row("a", True), _row("a", True, permutation=1), _row("b", True, modality="CT"))
    parts = split_domains(table, ["MRI"])
    assert {name: part["id"].to_pylist() for name, part in parts.items()} == {
        "in-domain": ["a", "a"],
        "out-of-domain": ["b"],
    }


def test_splitting_questions_without_any_modality() -> None:
    table = _table(_row("a", True)).drop_columns("modality").append_column("modality", pa.nulls(1))
    assert [len(part) for part in split_domains(table, ["MRI"]).values()] == [0, 0]


def test_macro_accuracy_weighs_every_group_alike() -> None:
    table = _table(
        *(_row(f"m{i}", True) for i in range(9)), _row("c", False, modality="CT"), _row("n", False, modality=None)
    )
    assert macro_accuracy(table) == 0.5
    assert isnan(macro_accuracy(_table(_row("n", True, modality=None))))


def test_majority_letter() -> None:
    table = _table(
        _row("a", True, answer="B"),
        _row("a", True, answer="A", permutation=1),
        _row("a", False, answer="B", sample=1),
        _row("b", True, answer="B"),
        _row("c", True, answer="C", options=["x", "y", "z"]),
        _row("d", True, answer="large", options=[]),
        _row("e", True, answer="large", options=[]),
        _row("f", True, answer="large", options=[]),
    )
    assert majority_letter_accuracy(table) == 2 / 6


def test_majority_letter_without_questions_or_options() -> None:
    assert isnan(majority_letter_accuracy(_table()))
    assert majority_letter_accuracy(_table(_row("a", True, options=[]))) == 0.0


def test_paired_scores_are_aligned_by_id() -> None:
    first = _table(_row("a", True), _row("b", False))
    second = _table(_row("b", True), _row("a", False))
    ids, scores = paired_scores([first, second])
    assert ids == ["a", "b"]
    assert scores.tolist() == [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize(("order", "lacking", "having"), [((0, 1), 2, 1), ((1, 0), 1, 2)])
def test_paired_scores_refuse_other_questions_and_name_them(order: tuple[int, int], lacking: int, having: int) -> None:
    tables = [_table(*(_row(id_, True) for id_ in "abcde")), _table(_row("e", True))]
    message = rf"Evaluation {lacking} lacks 4 question\(s\) of evaluation {having}: 'a', 'b', 'c', \.\.\.\."
    with pytest.raises(DataError, match=message):
        paired_scores([tables[i] for i in order])


def test_up_to_three_missing_questions_are_all_named() -> None:
    tables = [_table(*(_row(id_, True) for id_ in "abcd")), _table(_row("d", True))]
    with pytest.raises(DataError, match=r"lacks 3 question\(s\) of evaluation 1: 'a', 'b', 'c'\. Only"):
        paired_scores(tables)


def test_paired_scores_of_nothing() -> None:
    with pytest.raises(DataError, match="no evaluation"):
        paired_scores([])
    ids, scores = paired_scores([_table(), _table()])
    assert (ids, scores.shape) == ([], (2, 0))


def test_the_same_id_twice_is_refused() -> None:
    with pytest.raises(DataError, match="Question 'a' has the same sample more than once"):
        question_scores(_table(_row("b", True), _row("a", True), _row("a", False)))


def test_an_answer_that_was_not_judged_is_refused() -> None:
    with pytest.raises(DataError, match="'correct' has empty rows"):
        question_scores(_table(_row("a", None)))


def test_a_missing_column_is_named() -> None:
    table = _table(_row("a", True))
    with pytest.raises(DataError, match="no column 'task'; it has id, modality"):
        accuracy_by(table, "task")
    with pytest.raises(DataError, match="no column 'correct'"):
        question_scores(table.drop_columns("correct"))
    with pytest.raises(DataError, match="no column 'modality'"):
        domains(table.drop_columns("modality"), ["MRI"])
    with pytest.raises(DataError, match="no column 'options'"):
        majority_letter_accuracy(table.drop_columns("options"))


def test_one_question_is_enough() -> None:
    table = _table(_row("a", True))
    assert accuracy_by(table, None) == {None: wilson(1, 1)}
    sampled = accuracy_by(_table(_row("a", True), _row("a", False, sample=1)), None)[None]
    assert isinstance(sampled, Interval)
    assert (sampled.estimate, sampled.n) == (0.5, 1)
    assert 0 < sampled.low < 0.1
    assert 0.9 < sampled.high < 1
