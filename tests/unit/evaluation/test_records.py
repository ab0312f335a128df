"""What is asked, what is written, and that a run that was stopped goes on without asking twice."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from kepo.errors import ConfigError, DataError
from kepo.evaluation.asking import content_of, option_orders, ordered_questions
from kepo.evaluation.run import ask, evaluate
from kepo.evaluation.settings import EvaluationSettings
from kepo.runs.evaluations import evaluation_schema, read_evaluation
from kepo.types import Question
from tests.tiny_models import tiny_image
from tests.unit.evaluation.fakes import FakeBackend, always, by_text, questions

SETTINGS = EvaluationSettings(max_new_tokens=8)


def _evaluate(folder: Path, backend: Any = None, count: int = 6, settings: Any = SETTINGS, **more: Any) -> Path:
    return evaluate(questions(count), backend or FakeBackend(always("A")), settings, folder, quiet=True, **more)


def test_one_row_per_question_with_every_column(tmp_path: Path) -> None:
    file = _evaluate(tmp_path, count=5)
    assert file == tmp_path / "evaluation" / "test.parquet"
    table = read_evaluation(tmp_path).table
    assert table.schema.equals(evaluation_schema())
    assert table["id"].to_pylist() == ["q0", "q1", "q2", "q3", "q4"]
    assert table["correct"].to_pylist() == [True, False, False, False, True]
    [row] = table.slice(1, 1).to_pylist()
    prompt = row.pop("prompt")
    assert prompt.startswith("user: What is 1?\nA) round\nB) oval\n")
    assert row == {
        "id": "q1",
        "modality": "CT",
        "task": "Shape",
        "level": 1,
        "permutation": 0,
        "sample": 0,
        "completion": "<think>shape round</think><answer>A</answer>",
        "answer": "B",
        "options": ["round", "oval", "ragged", "large"],
        "predicted": "A",
        "correct": False,
        "tokens": 7,
        "finished": True,
        "formatted": True,
        "consistent": True,
        "statements": 1,
        "true_statements": 1,
        "teacher_logp": None,
        "images": [],
        "metadata": '{"level": 1, "facts": {"shape": "round"}}',
        "content": content_of("What is 1?", []),
    }


def test_the_description_says_what_was_done(tmp_path: Path) -> None:
    _evaluate(tmp_path, name="mine", description={"data": "some/file.jsonl", "split": "held-out", "in_domain": ["MRI"]})
    description = read_evaluation(tmp_path, "mine").description
    shown = {key: description[key] for key in ("name", "model", "data", "split", "in_domain", "questions", "backend")}
    assert shown == {
        "name": "mine",
        "model": "fake",
        "data": "some/file.jsonl",
        "split": "held-out",
        "in_domain": ["MRI"],
        "questions": 6,
        "backend": "transformers",
    }
    assert description["generation"]["max_new_tokens"] == 8
    assert description["generation"]["prompt_style"] == "think"
    assert description["started"] <= description["ended"]
    assert "kepo" in description["versions"]


def test_other_orders_are_asked_after_each_question_and_judged_by_text(tmp_path: Path) -> None:
    settings = replace(SETTINGS, permutations=2)
    _evaluate(tmp_path, FakeBackend(by_text("oval")), count=2, settings=settings)
    rows = read_evaluation(tmp_path).table.to_pylist()
    assert [(row["id"], row["permutation"]) for row in rows] == [
        ("q0", 0), ("q0", 1), ("q0", 2), ("q1", 0), ("q1", 1), ("q1", 2),
    ]  # fmt: skip
    for row in rows:
        assert row["options"]["ABCD".index(row["predicted"])] == "oval"
        assert row["options"]["ABCD".index(row["answer"])] == ("round" if row["id"] == "q0" else "oval")
        assert row["correct"] == (row["id"] == "q1")
    assert len({tuple(row["options"]) for row in rows if row["id"] == "q0"}) == 3


def test_orders_are_all_different_and_as_many_as_there_are() -> None:
    assert option_orders(2, 5, "s") == [(1, 0)]
    orders = option_orders(3, 9, "s")
    assert len(orders) == len(set(orders)) == 5
    assert (0, 1, 2) not in orders
    assert option_orders(0, 3, "s") == []
    assert option_orders(4, 3, "s") == option_orders(4, 5, "s")[:3]


def test_what_else_is_asked_changes_neither_order_nor_seed_of_a_question() -> None:
    settings = replace(SETTINGS, permutations=2)
    all_of_them = {asked.key: asked for asked in ordered_questions(questions(5), settings)}
    assert list(ordered_questions(questions(5)[3:4], settings)) == [all_of_them["q3", number] for number in range(3)]
    backends = [FakeBackend(always("A"), batch_size=size) for size in (1, 4)]
    for backend, asked in zip(backends, (questions(5), questions(5)[2:]), strict=True):
        ask(asked, backend, settings)
    assert backends[0].seeds[6:] == backends[1].seeds
    assert len(set(backends[0].seeds)) == 15


def test_images_stand_in_front_of_the_text_resized_and_upright(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("L", (20, 10)).save(path, exif=exif)
    question = Question("q", "What?", "A", ("x", "y"), images=(path, tiny_image(1, 8)))
    backend = FakeBackend(always("A"))
    table = ask([question], backend, SETTINGS)
    parts = backend.asked[0][0]["content"]
    assert [part["type"] for part in parts] == ["image", "image", "text"]
    assert (parts[0]["image"].size, parts[0]["image"].mode) == ((10, 20), "RGB")
    assert table["images"].to_pylist() == [[str(path)]]
    ask([question], backend, replace(SETTINGS, image_size=6))
    assert [part["image"].size for part in backend.asked[1][0]["content"][:2]] == [(6, 6), (6, 6)]


def test_an_image_that_cannot_be_opened_names_the_question(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no image")
    question = Question("q7", "What?", "A", ("x", "y"), images=(tmp_path / "x.png",))
    with pytest.raises(
        DataError, match=r"question 'q7', field 'images': .*x\.png is not an image that Pillow can read"
    ):
        ask([question], FakeBackend(always("A")), SETTINGS)


@pytest.mark.parametrize(
    ("style", "output", "predicted", "correct", "formatted"),
    [
        ("think", "The answer is B", None, False, False),
        ("plain", "The answer is B", "B", True, True),
        ("answer", "<answer>B</answer>", "B", True, True),
        ("answer", "<think>x</think><answer>B</answer>", "B", True, False),
        ("plain", "no idea", None, False, False),
    ],
)
def test_the_prompt_style_decides_what_counts_as_an_answer(
    style: Any, output: str, predicted: str | None, correct: bool, formatted: bool
) -> None:
    settings = replace(SETTINGS, prompt_style=style)
    [row] = ask(questions(2)[1:], FakeBackend(lambda _: output), settings).to_pylist()
    assert (row["predicted"], row["correct"], row["formatted"]) == (predicted, correct, formatted)


def test_open_questions_and_other_rewards() -> None:
    open_question = Question("o", "How many?", "42", metadata={"unit": "cm"})
    [row] = ask([open_question], FakeBackend(lambda _: "<answer> 42. </answer>"), SETTINGS).to_pylist()
    assert (row["predicted"], row["correct"], row["options"], row["consistent"]) == ("42.", True, [], None)
    settings = replace(SETTINGS, reward=f"{__name__}:_likes_long_metadata")
    [row] = ask([open_question], FakeBackend(lambda _: "x"), settings).to_pylist()
    assert row["correct"] is True
    settings = replace(SETTINGS, reward=f"{__name__}:_likes_it_half")
    [row] = ask([open_question], FakeBackend(lambda _: "x"), settings).to_pylist()
    assert row["correct"] is False


def _likes_it_half(completions: list[str], **_: Any) -> list[float]:
    return [0.5] * len(completions)


def _likes_long_metadata(completions: list[str], metadata: list[str], **_: Any) -> list[float]:
    return [float(json.loads(one) == {"unit": "cm"}) for one in metadata]


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _evaluate(tmp_path, FakeBackend(always("A"), fail_after=2), count=10)
    assert not (tmp_path / "evaluation" / "test.parquet").exists()
    again = FakeBackend(always("A"))
    _evaluate(tmp_path, again, count=10)
    assert again.calls == [2]  # eight of ten were answered before
    rest = read_evaluation(tmp_path).table
    straight = tmp_path / "straight"
    _evaluate(straight, count=10)
    assert rest.equals(read_evaluation(straight).table)
    assert sorted(file.name for file in (tmp_path / "evaluation").iterdir()) == ["test.json", "test.parquet"]


def test_a_lost_part_in_the_middle_is_asked_again(tmp_path: Path) -> None:
    for stop in (1, 1, 1):
        with pytest.raises(KeyboardInterrupt):
            _evaluate(tmp_path, FakeBackend(always("A"), batch_size=2, fail_after=stop), count=8)
    parts = sorted((tmp_path / "evaluation" / ".test.parts").glob("part-*"))
    assert len(parts) == 3
    parts[1].unlink()
    again = FakeBackend(always("A"))
    _evaluate(tmp_path, again, count=8)
    assert sum(again.calls) == 4
    assert read_evaluation(tmp_path).table["id"].to_pylist() == [f"q{number}" for number in range(8)]


def test_a_finished_evaluation_is_not_asked_again(tmp_path: Path) -> None:
    first = _evaluate(tmp_path)
    backend = FakeBackend(always("B"))
    assert _evaluate(tmp_path, backend) == first
    assert backend.calls == []


@pytest.mark.parametrize("finished", [True, False])
def test_records_of_other_settings_are_refused_and_overwritten_on_demand(tmp_path: Path, finished: bool) -> None:
    if finished:
        _evaluate(tmp_path)
    else:
        with pytest.raises(KeyboardInterrupt):
            _evaluate(tmp_path, FakeBackend(always("A"), fail_after=1))
    other = replace(SETTINGS, max_new_tokens=9)
    with pytest.raises(ConfigError, match=r"max_new_tokens: 8 there, 9 now.*--overwrite"):
        _evaluate(tmp_path, settings=other)
    with pytest.raises(ConfigError, match=r"questions: '6 .* there, '5 .* now"):
        _evaluate(tmp_path, count=5)
    _evaluate(tmp_path, FakeBackend(always("B")), settings=other, overwrite=True)
    evaluation = read_evaluation(tmp_path)
    assert evaluation.description["generation"]["max_new_tokens"] == 9
    assert set(evaluation.table["predicted"].to_pylist()) == {"B"}


def test_other_weights_under_the_same_name_are_refused(tmp_path: Path) -> None:
    _evaluate(tmp_path)
    backend = FakeBackend(always("A"))
    backend.fingerprint = "2"
    with pytest.raises(ConfigError, match="weights: '1' there, '2' now"):
        _evaluate(tmp_path, backend)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _evaluate(tmp_path, FakeBackend(always("A"), fail_after=1))
    [part] = (tmp_path / "evaluation" / ".test.parts").glob("part-*")
    part.write_bytes(part.read_bytes()[:40])
    with pytest.raises(DataError, match=r"part-000001\.parquet cannot be read.*delete it"):
        _evaluate(tmp_path)


def test_a_full_disk_is_said_in_words_and_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", full)
        with pytest.raises(DataError, match=r"could not be written: .*No space left on device.*same command"):
            _evaluate(tmp_path)
    assert not (tmp_path / "evaluation" / "test.parquet").exists()
    _evaluate(tmp_path)
    assert len(read_evaluation(tmp_path).table) == 6


@pytest.mark.parametrize("name", ["", "../x", ".hidden", "a/b", "a b"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="may only hold letters"):
        _evaluate(tmp_path, name=name)


def test_questions_that_cannot_be_told_apart_or_judged_are_refused() -> None:
    one, two = questions(2)
    backend = FakeBackend(always("A"))
    with pytest.raises(DataError, match="there are no questions"):
        ask([], backend, SETTINGS)
    with pytest.raises(DataError, match="'q0': two questions have this id"):
        ask([one, replace(two, id="q0")], backend, SETTINGS)
    with pytest.raises(DataError, match="'q1', field 'answer': 'oval' is not the letter"):
        ask([one, replace(two, answer="oval")], backend, SETTINGS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"samples": 0},
        {"samples": 2},  # greedy
        {"permutations": -1},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"image_size": 0},
        {"prompt_style": "thin"},
        {"reward": "acuracy"},
    ],
)
def test_settings_outside_their_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        EvaluationSettings(**wrong)


def test_reading_what_is_not_there_or_no_evaluation(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is none"):
        read_evaluation(tmp_path)
    _evaluate(tmp_path)
    with pytest.raises(DataError, match="there are test"):
        read_evaluation(tmp_path, "other")
    other = tmp_path / "rollouts.parquet"
    pq.write_table(read_evaluation(tmp_path).table.select(["id"]), other)
    with pytest.raises(DataError, match="has no column 'modality'"):
        read_evaluation(other)
