"""Which checkpoint is tested, and that it is never chosen on the questions of the test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kepo.errors import ConfigError
from kepo.evaluation.asking import asked_contents
from kepo.evaluation.choosing import check_unseen, choose_checkpoint
from kepo.evaluation.run import evaluate
from kepo.evaluation.settings import EvaluationSettings
from kepo.types import Question
from tests.tiny_models import tiny_image
from tests.unit.evaluation.fakes import FakeBackend, questions

SETTINGS = EvaluationSettings(max_new_tokens=8, image_size=8)


def _asked(count: int = 8) -> list[Question]:
    """Questions that a letter each answers right: in-domain ones are the even numbers."""
    return [replace(one, images=(tiny_image(place),)) for place, one in enumerate(questions(count))]


def _checkpoint(run: Path, step: int, right: Sequence[int], asked: Sequence[Question], **more: Any) -> Path:
    """A whole checkpoint whose evaluation "validation" has the questions at `right` right."""
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text("{}")
    letters = {one.text: one.answer if place in right else "Z" for place, one in enumerate(asked)}

    def answer(prompt: str) -> str:
        return next(f"<think>t</think><answer>{letter}</answer>" for text, letter in letters.items() if text in prompt)

    description = {"in_domain": ["MRI"], **more}
    evaluate(asked, FakeBackend(answer), SETTINGS, folder, "validation", description=description, quiet=True)
    return folder


def test_the_best_in_domain_checkpoint_is_chosen_and_the_earliest_of_equal_ones(tmp_path: Path) -> None:
    asked = _asked()
    _checkpoint(tmp_path, 10, [0, 1, 3, 5, 7], asked)  # best out of domain, which does not count
    _checkpoint(tmp_path, 20, [0, 2, 4], asked)
    _checkpoint(tmp_path, 30, [2, 4, 6, 1], asked)
    _checkpoint(tmp_path, 100, [0], asked)
    choice = choose_checkpoint(tmp_path, "validation")
    assert (choice.step, choice.accuracy, choice.questions) == (20, 0.75, 4)
    assert choice.candidates == {10: 0.25, 20: 0.75, 30: 0.75, 100: 0.25}
    described = choice.described()
    assert (described["checkpoint"], described["chosen_by"]) == ("checkpoint-20", "validation")
    assert described["candidates"][2] == {"step": 30, "accuracy": 0.75}


def test_a_choice_needs_the_same_questions_of_all_whole_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no whole checkpoint"):
        choose_checkpoint(tmp_path, "validation")
    _checkpoint(tmp_path, 10, [0], _asked())
    half = tmp_path / "checkpoint-15"
    half.mkdir()  # was being saved when the run was killed
    assert choose_checkpoint(tmp_path, "validation").step == 10
    (half / "trainer_state.json").write_text("{}")
    with pytest.raises(ConfigError, match="checkpoint-15 has no evaluation 'validation'"):
        choose_checkpoint(tmp_path, "validation")
    half.joinpath("trainer_state.json").unlink()
    _checkpoint(tmp_path, 20, [0], _asked(6))
    with pytest.raises(ConfigError, match="checkpoint-20 answered other questions"):
        choose_checkpoint(tmp_path, "validation")


def test_without_in_domain_questions_there_is_no_choice(tmp_path: Path) -> None:
    _checkpoint(tmp_path, 10, [0], _asked(), in_domain=["Fundus"])
    with pytest.raises(ConfigError, match=r"no question of the modality trained on \(Fundus\)"):
        choose_checkpoint(tmp_path, "validation")


def test_a_test_that_repeats_validation_questions_is_refused(tmp_path: Path) -> None:
    asked = _asked()
    _checkpoint(tmp_path, 10, [0], asked)
    choice = choose_checkpoint(tmp_path, "validation")
    others = [replace(one, id=f"t{place}", text=f"Another {place}?") for place, one in enumerate(asked)]
    check_unseen(choice, tmp_path, others)  # the same images with other texts are another question
    with pytest.raises(ConfigError, match=r"1 of the questions have the same id .*'q3'"):
        check_unseen(choice, tmp_path, [*others, replace(others[3], id="q3")])
    repeated = replace(asked[5], id="renamed", text=asked[5].text.upper())
    with pytest.raises(ConfigError, match=r"the same text and images .*'renamed'"):
        check_unseen(choice, tmp_path, [*others, repeated])
    check_unseen(choice, tmp_path, [*others, replace(repeated, images=(tiny_image(40),))])


def test_an_image_is_told_by_its_pixels_not_by_its_path(tmp_path: Path) -> None:
    image = tiny_image(3)
    image.save(tmp_path / "a.png")
    embedded = replace(questions(1)[0], images=(image,))
    on_disk = replace(embedded, images=(tmp_path / "a.png",))
    assert dict(asked_contents([embedded], SETTINGS)) == dict(asked_contents([on_disk], SETTINGS))


def test_a_run_of_no_modality_is_chosen_by_all_questions(tmp_path: Path) -> None:
    _checkpoint(tmp_path, 10, [0, 2], _asked(), in_domain=[])
    _checkpoint(tmp_path, 20, [1, 3, 5], _asked(), in_domain=[])
    choice = choose_checkpoint(tmp_path, "validation")
    assert (choice.step, choice.questions) == (20, 8)
