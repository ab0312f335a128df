"""PhantomVQA written to disk and read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from kepo.data import load_omnimedvqa
from kepo.data.files import load_jsonl
from kepo.phantom.files import draw, scene_of, write_omnimedvqa, write_questions
from kepo.phantom.questions import phantom_questions
from kepo.phantom.render import render

QUESTIONS = phantom_questions(16, seed=4)


def test_questions_come_back_from_json_lines_with_their_pictures(tmp_path: Path) -> None:
    write_questions(tmp_path / "test.jsonl", QUESTIONS, size=24)
    again = load_jsonl(tmp_path / "test.jsonl")
    for found, question in zip(again, QUESTIONS, strict=True):
        assert (found.id, found.text, found.answer, found.options) == (
            question.id,
            question.text,
            question.answer,
            question.options,
        )
        assert (found.modality, found.task, found.metadata) == (question.modality, question.task, question.metadata)
        picture = np.asarray(Image.open(found.images[0]))
        assert np.array_equal(picture, np.asarray(render(scene_of(question), 24)))


def test_splits_in_one_folder_share_the_image_folder(tmp_path: Path) -> None:
    write_questions(tmp_path / "train.jsonl", phantom_questions(3, seed=1), size=8)
    write_questions(tmp_path / "test.jsonl", phantom_questions(3, seed=2), size=8)
    assert len(list((tmp_path / "images").glob("*.png"))) == 6
    assert len(load_jsonl(tmp_path / "train.jsonl")) == 3


def test_nothing_is_left_beside_a_finished_file(tmp_path: Path) -> None:
    write_questions(tmp_path / "deep" / "test.jsonl", QUESTIONS[:2], size=8)
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["images", "test.jsonl"]


def test_the_published_layout_is_read_by_the_omnimedvqa_reader(tmp_path: Path) -> None:
    write_omnimedvqa(tmp_path, "Phantom", QUESTIONS, size=8)
    again = {question.id: question for question in load_omnimedvqa(tmp_path)}
    assert len(again) == len(QUESTIONS)
    for question in QUESTIONS:
        found = next(other for name, other in again.items() if name.endswith(question.id))
        assert (found.text, found.answer, found.options) == (question.text, question.answer, question.options)
        assert (found.modality, found.task) == (question.modality, question.task)
        assert "facts" not in found.metadata, "the layout has no place for them"


def test_pictures_drawn_in_memory_are_those_of_the_files(tmp_path: Path) -> None:
    drawn = draw(QUESTIONS[:2], size=24)
    write_questions(tmp_path / "test.jsonl", QUESTIONS[:2], size=24)
    for question, stored in zip(drawn, load_jsonl(tmp_path / "test.jsonl"), strict=True):
        assert question.images[0].size == (24, 24)
        assert np.array_equal(np.asarray(question.images[0]), np.asarray(Image.open(stored.images[0])))


def test_a_scene_is_read_from_its_question() -> None:
    assert all(scene_of(question).record() == question.metadata["scene"] for question in QUESTIONS)
