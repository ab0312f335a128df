"""Measures on texts that a hand can check, and their summary."""

from __future__ import annotations

from typing import Any

import pytest

from kepo.evaluation.reasoning import is_consistent, reasoning_text, statements, summarize_reasoning
from kepo.evaluation.records import to_table

OPTIONS = ("carcinoma", "small cell carcinoma", "cyst", "normal")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("<think> a b </think><answer>A</answer>", "a b"),
        ("a b</think><answer>A</answer>", "a b"),  # the chat template wrote the opening tag
        ("<think>cut off", "cut off"),
        ("<think>not closed <answer>A</answer>", "not closed"),
        ("<THINK>x</Think >y", "x"),
        ("<answer>A</answer>", ""),
        ("", ""),
        ("<think>first</think><think>second</think>", "first"),
    ],
)
def test_the_reasoning_is_what_stands_inside_think(output: str, expected: str) -> None:
    assert reasoning_text(output) == expected


def _answered(reasoning: str, letter: str = "C") -> str:
    return f"<think>{reasoning}</think><answer>{letter}</answer>"


@pytest.mark.parametrize(
    ("reasoning", "expected"),
    [
        ("First carcinoma, but round: a cyst.", True),
        ("First a cyst, but ragged: carcinoma.", False),
        ("A CYST", True),
        ("it is a cyst, not a carcinoma", True),
        ("a cyst rather than carcinoma", True),
        ("a cyst-like shape", None),  # another word
        ("abnormal", None),  # "normal" inside a longer word
        ("", None),
        ("nothing is named", None),
    ],
)
def test_the_last_option_named_is_the_one_answered(reasoning: str, expected: bool | None) -> None:
    assert is_consistent(_answered(reasoning), OPTIONS) is expected


def test_the_longest_option_is_the_one_that_is_named() -> None:
    assert is_consistent(_answered("small cell\ncarcinoma", "B"), OPTIONS) is True
    assert is_consistent(_answered("small cell carcinoma", "A"), OPTIONS) is False
    assert is_consistent(_answered("a small cell", "B"), ("small", "small cell")) is True


def test_no_readable_answer_is_neither_consistent_nor_not() -> None:
    assert is_consistent("<think>cyst</think>", OPTIONS) is None
    assert is_consistent("<think>cyst</think><answer>A or C</answer>", OPTIONS) is None


def test_open_questions_have_no_consistency() -> None:
    assert is_consistent(_answered("cyst"), ()) is None


@pytest.mark.parametrize("letter", ["A", "B"])
def test_options_that_read_the_same_are_consistent_under_either_letter(letter: str) -> None:
    assert is_consistent(_answered("a cyst", letter), ("cyst", "Cyst", "x")) is True


def test_options_of_one_letter_or_with_special_characters_do_no_harm() -> None:
    assert is_consistent(_answered("a thing (+) [x", "A"), ("a", "b")) is None
    assert is_consistent(_answered("it is (+) [x", "A"), ("(+) [x", "b")) is True


FACTS = {"size": "large", "border": "ragged", "disease": "carcinoma", "disease stage": "2.5"}


@pytest.mark.parametrize(
    ("reasoning", "expected"),
    [
        ("size large; border ragged; disease carcinoma", (3, 3)),
        ("size: small, border = ragged", (2, 1)),
        ("The size is LARGE. and the border is ragged\nDisease carcinoma.", (3, 3)),
        ("disease stage 2.5", (1, 1)),
        ("disease stage 2.6. size large", (2, 1)),
        ("size large; size large; size small", (3, 2)),
        ("size  \t large", (1, 1)),
        ("size", (0, 0)),
        ("sizes large; oversize large; colour red", (0, 0)),
        ("size very large", (1, 0)),
        ("", (0, 0)),
    ],
)
def test_statements_are_counted_and_checked(reasoning: str, expected: tuple[int, int]) -> None:
    assert statements(reasoning, FACTS) == expected


def test_without_facts_nothing_is_stated() -> None:
    assert statements("size large", {}) == (0, 0)


def test_facts_may_be_numbers_and_hold_special_characters() -> None:
    assert statements("n (all): 3", {"n (all)": 3}) == (1, 1)


def record(**columns: Any) -> dict[str, Any]:
    """A record of a question without anything special."""
    row: dict[str, Any] = {
        "id": "q",
        "permutation": 0,
        "sample": 0,
        "options": ["x", "y"],
        "predicted": "A",
        "correct": True,
        "tokens": 10,
        "finished": True,
        "formatted": True,
        "consistent": None,
        "statements": 0,
        "true_statements": 0,
        "teacher_logp": None,
    }
    return {**row, **columns}


def test_the_summary_of_a_table() -> None:
    table = to_table(
        [
            record(id="a", statements=4, true_statements=1, consistent=True, tokens=10, teacher_logp=-1.0),
            record(id="b", statements=2, true_statements=2, consistent=False, tokens=30, teacher_logp=-2.0),
            record(id="c", formatted=False, finished=False, tokens=20),
            record(id="c", permutation=1, formatted=False, tokens=999, teacher_logp=-9.0),
        ]
    )
    summary = summarize_reasoning(table)
    assert summary.format_rate == pytest.approx(2 / 3)
    assert summary.finished == pytest.approx(2 / 3)
    assert summary.consistency == pytest.approx(1 / 2)  # of the two that name an option
    assert summary.factual_accuracy == pytest.approx(3 / 6)  # of all statements together, not the mean of 1/4 and 1
    assert summary.all_true == pytest.approx(1 / 2)
    assert summary.teacher_logp == pytest.approx(-1.5)
    assert summary.tokens == pytest.approx(20)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(True, 3, 2), (True, 3, 3), (True, 0, 0), (True, 2, 2), (False, 3, 0)], 0.25),  # one of four correct ones
        ([(False, 3, 0)], None),
        ([(True, 0, 0)], None),  # nothing is stated at all
    ],
)
def test_a_correct_answer_after_a_false_statement_is_counted(
    rows: list[tuple[bool, int, int]], expected: float | None
) -> None:
    columns = ("correct", "statements", "true_statements")
    table = to_table([record(id=str(n), **dict(zip(columns, row, strict=True))) for n, row in enumerate(rows)])
    assert summarize_reasoning(table).correct_but_false == expected


def test_a_summary_has_none_for_what_no_record_has() -> None:
    summary = summarize_reasoning(to_table([record()]))
    assert summary.consistency is None
    assert summary.factual_accuracy is None
    assert summary.all_true is None
    assert summary.teacher_logp is None
    assert summary.option_order_robustness is None
    assert summarize_reasoning(to_table([])).tokens is None


def test_robustness_compares_the_text_of_the_option_not_its_letter() -> None:
    table = to_table(
        [
            record(id="a", predicted="A", options=["x", "y"]),
            record(id="a", permutation=1, predicted="B", options=["y", "x"]),  # x again
            record(id="b", predicted="A", options=["x", "y"]),
            record(id="b", permutation=1, predicted="A", options=["y", "x"]),  # y now
            record(id="c", predicted=None, options=["x", "y"]),
            record(id="c", permutation=1, predicted=None, options=["y", "x"]),  # no answer twice is not robust
        ]
    )
    assert summarize_reasoning(table).option_order_robustness == pytest.approx(1 / 3)


def test_robustness_pairs_samples_by_number() -> None:
    table = to_table(
        [
            record(sample=0, predicted="A"),
            record(sample=1, predicted="B"),
            record(permutation=1, sample=0, predicted="A"),
            record(permutation=1, sample=1, predicted="B"),
        ]
    )
    assert summarize_reasoning(table).option_order_robustness == 1.0
