"""Procedural questions and their scores, there and back through JSON."""

from __future__ import annotations

import json
import sys

import pytest

from kepo.data import load_reasoning_gym, to_dataset
from kepo.data.reasoning import encode_metadata
from kepo.errors import DataError, MissingExtraError
from kepo.rewards import reasoning_gym_score
from kepo.rewards.verifiers import decode_metadata


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(
        MissingExtraError, match=r"the task 'gcd' needs .*reasoning-gym.*pip install 'kepo\[reasoning\]'"
    ):
        load_reasoning_gym("gcd", 1, 0, None)


def test_questions_are_the_same_for_the_same_seed() -> None:
    pytest.importorskip("reasoning_gym")
    questions = load_reasoning_gym("chain_sum", 3, seed=5, config={"min_terms": 2, "max_terms": 2})
    assert [question.id for question in questions] == ["chain_sum-5-0", "chain_sum-5-1", "chain_sum-5-2"]
    assert all(question.options == () and question.task == "chain_sum" for question in questions)
    assert all(question.metadata["source_dataset"] == "chain_sum" for question in questions)
    assert all(question.metadata["num_terms"] == 2 for question in questions)
    again = load_reasoning_gym("chain_sum", 3, seed=5, config={"min_terms": 2, "max_terms": 2})
    assert again == questions
    other = load_reasoning_gym("chain_sum", 3, seed=6, config={"min_terms": 2, "max_terms": 2})
    assert [question.text for question in other] != [question.text for question in questions]


# rearc compares with tuples, knights_knaves nests them, graph_color has integer keys and no single right answer.
@pytest.mark.parametrize("task", ["chain_sum", "rearc", "knights_knaves", "leg_counting"])
def test_the_right_answer_scores_one_after_json(task: str) -> None:
    pytest.importorskip("reasoning_gym")
    row = to_dataset(load_reasoning_gym(task, 1, seed=3), "think")[0]
    right, wrong = f"<think>x</think><answer>{row['answer']}</answer>", "<answer>surely not</answer>"
    columns = {"answer": [row["answer"]] * 3, "metadata": [row["metadata"]] * 3, "options": [[]] * 3}
    scores = reasoning_gym_score([right, wrong, row["answer"]], **columns)
    assert scores[0] == 1.0
    assert scores[1] < 0.1
    assert scores[2] == 0.0


def test_a_task_with_many_right_answers() -> None:
    pytest.importorskip("reasoning_gym")
    (question,) = load_reasoning_gym("graph_color", 1, seed=3)
    assert question.answer == ""
    colours = decode_metadata(json.loads(json.dumps(question.metadata)))["possible_answer"]
    assert all(isinstance(vertex, int) for vertex in colours)
    given = "<answer>" + json.dumps({str(vertex): colour for vertex, colour in colours.items()}) + "</answer>"
    assert reasoning_gym_score([given], [""], [question.metadata]) == [1.0]


def test_encoding_survives_json() -> None:
    value = {"a": (1, [(2, 3)]), "b": {1: (4,), "c": None}, "d": [{"e": 1.5}]}
    written = json.loads(json.dumps(encode_metadata(value)))
    assert decode_metadata(written) == value
    assert written["d"] == [{"e": 1.5}]


@pytest.mark.parametrize(
    ("task", "size", "config", "says"),
    [
        ("chain_sums", 1, None, "'chain_sums' is unknown to reasoning-gym; it has, among others, chain_sum"),
        ("qqqq", 1, None, "'qqqq' is unknown to reasoning-gym"),
        ("chain_sum", 0, None, "size is 0; ask for at least 1"),
        ("chain_sum", 1, {"terms": 3}, "reasoning_config: the task 'chain_sum' refuses .*'terms'"),
        ("chain_sum", 1, {"min_terms": -1}, "reasoning_config: the task 'chain_sum' refuses"),
    ],
)
def test_what_is_refused(task: str, size: int, config: dict[str, int] | None, says: str) -> None:
    pytest.importorskip("reasoning_gym")
    with pytest.raises(DataError, match=says):
        load_reasoning_gym(task, size, 0, config)
