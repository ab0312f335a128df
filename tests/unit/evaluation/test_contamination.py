"""Which questions of an evaluation a run was trained on, wherever its data lie now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from PIL import Image

from kepo.data.contents import contents_of
from kepo.data.dataset import to_dataset
from kepo.errors import DataError
from kepo.evaluation.contamination import described, in_words, trained_on_before
from kepo.evaluation.job import Request, plan
from kepo.runs.trained_on import TRAINED_ON, read_trained_on, write_trained_on
from kepo.trainer.trained_on import keep_trained_on
from kepo.types import Question

OPTIONS = ("cyst", "naevus")


def questions(folder: Path, numbers: range) -> list[Question]:
    folder.mkdir(exist_ok=True, parents=True)
    made = []
    for n in numbers:
        file = folder / f"{n}.png"
        Image.new("RGB", (16, 16), (10 * n, 255 - 10 * n, 40)).save(file)
        made.append(Question(f"q{n}", f"What is shown in {n}?", "A", OPTIONS, images=(file,), modality="CT"))
    return made


def run_in(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True)
    manifest = {"status": "finished", "seed": 1, "config": {"training": {"max_steps": 1}, **config}}
    (folder / "run.json").write_text(json.dumps(manifest))
    return folder


def test_what_a_run_kept_is_found_again_in_other_files(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    write_trained_on(run, contents_of(questions(tmp_path / "train", range(8))), resumed=False)
    found = trained_on_before(str(run), questions(tmp_path / "test", range(5, 12)))
    assert found is not None
    assert found.same == ("q5", "q6", "q7")
    words = in_words({"trained_on": json.loads(json.dumps(described(found)))})
    assert words is not None
    assert words.startswith("Of 7 questions 3 were trained on (question, options and images are the same). Examples:")


def test_of_unseen_questions_nothing_is_said(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    write_trained_on(run, contents_of(questions(tmp_path / "train", range(5))), resumed=False)
    found = trained_on_before(str(run), questions(tmp_path / "test", range(5, 9)))
    assert not found
    assert described(found) == {"asked": 4, "same": 0, "alike": 0, "image": 0, "examples": []}
    assert in_words({"trained_on": described(found)}) is None


def test_a_checkpoint_belongs_to_its_run_and_a_run_to_the_run_that_it_started_from(tmp_path: Path) -> None:
    first = run_in(tmp_path / "sft")
    write_trained_on(first, contents_of(questions(tmp_path / "a", range(3))), resumed=False)
    second = run_in(tmp_path / "kepo", model={"model_name_or_path": str(first / "checkpoint-3")})
    (first / "checkpoint-3").mkdir()
    (second / "checkpoint-9").mkdir()
    write_trained_on(second, contents_of(questions(tmp_path / "b", range(3, 5))), resumed=False)
    asked = questions(tmp_path / "test", range(8))
    for model in (second, second / "checkpoint-9"):
        found = trained_on_before(str(model), asked)
        assert found is not None
        assert found.same == ("q0", "q1", "q2", "q3", "q4")


def test_an_older_run_kept_nothing_so_its_data_are_read_again(tmp_path: Path) -> None:
    rows = [
        {"question": one.text, "options": OPTIONS, "answer": "A", "image": one.images[0].name, "modality": "CT"}
        for one in questions(tmp_path / "train", range(6))
    ]
    data = tmp_path / "train" / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = run_in(tmp_path / "run", data={"data_path": str(data), "option_shuffles": 2})
    asked = questions(tmp_path / "test", range(4, 9))
    found = trained_on_before(str(run), asked)
    assert found is not None
    assert found.same == ("q4", "q5")
    data.unlink()
    assert trained_on_before(str(run), asked) is None


def test_of_a_model_that_is_no_run_nothing_is_known(tmp_path: Path) -> None:
    assert trained_on_before("Qwen/Qwen3-VL-2B-Instruct", questions(tmp_path, range(2))) is None
    assert described(None) is None


def test_a_plan_of_kepo_eval_finds_them_in_data_of_another_path(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run", data={"data_path": "gone.jsonl"})
    write_trained_on(run, contents_of(questions(tmp_path / "train", range(4))), resumed=False)
    rows = [
        {"id": one.id, "question": one.text.upper(), "options": OPTIONS[::-1], "answer": "A", "image": f"{n}.png"}
        for n, one in enumerate(questions(tmp_path / "test", range(6)))
    ]
    data = tmp_path / "test" / "test.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = plan(str(run), Request(data=str(data), settings={"image_size": 8})).trained_on
    assert found is not None
    assert found.same == ("q0", "q1", "q2", "q3")


def test_resumed_on_other_data_a_run_was_trained_on_both(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    first, second = (contents_of(questions(tmp_path / "train", numbers)) for numbers in (range(3), range(2, 5)))
    write_trained_on(run, first, resumed=False)
    write_trained_on(run, second, resumed=True)
    assert read_trained_on(run) == [*first, *second[1:]]
    write_trained_on(run, second, resumed=False)  # a new run in the same folder
    assert read_trained_on(run) == second


def test_a_damaged_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / TRAINED_ON).write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"trained_on\.parquet cannot be read.*delete it"):
        read_trained_on(tmp_path)


@pytest.mark.parametrize("image_size", [None, 4])
def test_the_rows_of_a_training_set_are_the_questions_they_were_made_of(tmp_path: Path, image_size: int | None) -> None:
    asked = questions(tmp_path / "images", range(3))
    keep_trained_on(tmp_path, to_dataset(asked, "think", image_size), resumed=False)
    assert read_trained_on(tmp_path) == contents_of(asked)


def test_rows_that_somebody_else_made_count_with_their_prompt(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8), "red")
    prompts = [[{"role": "user", "content": "What is it?"}], [{"role": "user", "content": "And that?"}]]
    keep_trained_on(tmp_path, Dataset.from_dict({"prompt": prompts, "images": [[image], []]}), resumed=False)
    expected = [Question("a", "what is it?", "", images=(image,)), Question("b", "And that?", "")]
    assert read_trained_on(tmp_path) == contents_of(expected)


def test_a_stream_is_not_used_up(tmp_path: Path) -> None:
    stream = Dataset.from_dict({"prompt": ["a", "b"]}).to_iterable_dataset()
    keep_trained_on(tmp_path, stream, resumed=False)
    assert read_trained_on(tmp_path) is None
    assert len(list(stream)) == 2
