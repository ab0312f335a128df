"""The scripted teacher keeps the teacher's protocol, its scores are what they say, and it loads no torch by itself."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from kepo.errors import TeacherError
from kepo.teachers.base import DenseScores, HintWriter, ScoreRequest, Teacher
from kepo.teachers.scripted import ScriptedTeacher, favourite_token_scores, uniform_scores
from kepo.types import Conversation


def _ask(text: str) -> Conversation:
    return [{"role": "user", "content": text}]


def test_it_is_a_teacher() -> None:
    teacher = ScriptedTeacher()
    assert isinstance(teacher, Teacher)
    assert isinstance(teacher, HintWriter)
    teacher.check_student(None, 10)
    teacher.place("cpu", None, lambda n: n)
    assert teacher.head is None
    assert teacher.name == "scripted"


def test_one_text_for_all() -> None:
    assert ScriptedTeacher("look").write_hints([_ask("a"), _ask("b")]) == ["look", "look"]


def test_a_sequence_is_told_in_turn_and_over_again() -> None:
    teacher = ScriptedTeacher(["one", "two"])
    assert teacher.write_hints([_ask("a"), _ask("b"), _ask("c")]) == ["one", "two", "one"]
    assert teacher.write_hints([_ask("d")]) == ["two"]


def test_an_empty_script_has_no_hint() -> None:
    assert ScriptedTeacher().write_hints([_ask("a")]) == [""]
    assert ScriptedTeacher([]).write_hints([_ask("a")]) == [""]


def test_a_mapping_is_looked_up_in_the_request() -> None:
    teacher = ScriptedTeacher({"liver": "edge", "lung": "apex"})
    assert teacher.write_hints([_ask("the lung?"), _ask("the liver?"), _ask("the knee?")]) == ["apex", "edge", ""]


def test_a_function_is_called_with_the_request() -> None:
    assert ScriptedTeacher(lambda c: c[-1]["content"].upper()).write_hints([_ask("a")]) == ["A"]


def test_it_records_what_it_was_asked() -> None:
    teacher = ScriptedTeacher("look", scores=uniform_scores(4))
    teacher.write_hints([_ask("a"), _ask("b")])
    teacher.write_hints([])
    request = ScoreRequest(_ask("a"), (1, 2))
    teacher.score([request])
    teacher.score([])
    assert teacher.hint_conversations == [_ask("a"), _ask("b")]
    assert teacher.hint_calls == [2, 0]
    assert teacher.score_requests == [request]
    assert teacher.score_calls == [1, 0]


def test_without_scores_only_nothing_can_be_scored() -> None:
    teacher = ScriptedTeacher("look")
    assert teacher.score([]) == []
    with pytest.raises(TeacherError, match=r"2 rows .* scores="):
        teacher.score([ScoreRequest("a", (1,)), ScoreRequest("b", (1,))])


def test_favourite_token_scores() -> None:
    (scores,) = ScriptedTeacher(scores=favourite_token_scores(5, 3, 0.8)).score([ScoreRequest("a", (3, 0))])
    assert scores.ids.tolist() == [[0, 1, 2, 3, 4]] * 2
    assert scores.logps.exp().flatten().tolist() == pytest.approx([0.05, 0.05, 0.05, 0.8, 0.05] * 2)  # 0.2 / 4
    assert scores.token_logps.tolist() == pytest.approx([math.log(0.8), math.log(0.05)])


def test_uniform_scores() -> None:
    (scores,) = ScriptedTeacher(scores=uniform_scores(8)).score([ScoreRequest("a", (7, 0, 3))])
    assert scores.logps.shape == (3, 8)
    assert scores.logps.flatten().tolist() == pytest.approx([-math.log(8)] * 24)
    assert scores.token_logps.tolist() == pytest.approx([-math.log(8)] * 3)


@pytest.mark.parametrize(("vocab", "token", "p"), [(1, 0, 0.5), (4, 4, 0.5), (4, -1, 0.5), (4, 0, 0.0), (4, 0, 1.0)])
def test_scores_that_cannot_be_are_refused(vocab: int, token: int, p: float) -> None:
    with pytest.raises(TeacherError, match="vocab_size"):
        favourite_token_scores(vocab, token, p)


def test_uniform_scores_of_a_vocabulary_of_one_are_refused() -> None:
    with pytest.raises(TeacherError, match="vocab_size=1"):
        uniform_scores(1)


@pytest.mark.parametrize("ids", [(0, 4), (-1,)])
def test_a_completion_outside_the_vocabulary_is_refused(ids: tuple[int, ...]) -> None:
    with pytest.raises(TeacherError, match=r"the script knows 0\.\.3"):
        uniform_scores(4)(ScoreRequest("a", ids))


def test_dense_scores_come_with_their_head() -> None:
    import torch

    from kepo.objective.divergence import OutputHead

    head = OutputHead(torch.eye(3))
    dense = DenseScores(hidden=torch.zeros(1, 3), token_logps=torch.zeros(1))
    teacher = ScriptedTeacher(scores=lambda request: dense, head=head)
    assert teacher.head is head
    assert teacher.score([ScoreRequest("a", (0,))]) == [dense]


@pytest.mark.parametrize("module", ["kepo.teachers.scripted", "kepo.exploration"])
def test_no_model_library_is_loaded(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'trl', 'transformers') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
