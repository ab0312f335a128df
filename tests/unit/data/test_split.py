"""Two sides that share no image."""

from __future__ import annotations

import pytest
from PIL import Image

from kepo.data.split import split_disjoint
from kepo.errors import DataError
from kepo.types import Question


def question(number: int, *images: object) -> Question:
    return Question(id=f"q{number}", text=f"question {number}", answer="x", images=images)


ALONE = [question(n, f"{n}.png") for n in range(20)]


def ids(questions: list[Question]) -> list[str]:
    return [question.id for question in questions]


def test_sizes_order_and_disjointness() -> None:
    train, evaluation = split_disjoint(ALONE, 12, 5, seed=1)
    assert (len(train), len(evaluation)) == (12, 5)
    assert not set(ids(train)) & set(ids(evaluation))
    for side in (train, evaluation):
        assert side == sorted(side, key=lambda q: int(q.id[1:]))


def test_the_seed_decides() -> None:
    assert split_disjoint(ALONE, 12, 5, seed=1) == split_disjoint(ALONE, 12, 5, seed=1)
    assert split_disjoint(ALONE, 12, 5, seed=1)[1] != split_disjoint(ALONE, 12, 5, seed=2)[1]


def test_evaluation_does_not_depend_on_how_many_are_trained_on() -> None:
    small, large = split_disjoint(ALONE, 3, 5, seed=1), split_disjoint(ALONE, 12, 5, seed=1)
    assert small[1] == large[1]
    assert set(ids(small[0])) < set(ids(large[0]))


def test_everything_is_trained_on_by_default() -> None:
    assert split_disjoint(ALONE, None, 0, seed=1) == (ALONE, [])
    train, evaluation = split_disjoint(ALONE, None, 5, seed=1)
    assert sorted(ids(train) + ids(evaluation)) == sorted(ids(ALONE))


@pytest.mark.parametrize("seed", range(8))
def test_questions_that_share_an_image_stay_together(seed: int) -> None:
    # 0 - 1 - 2 hang together through two images; 3 and 4 share one; the rest stand alone.
    chain = [question(0, "a"), question(1, "a", "b"), question(2, "b"), question(3, "c"), question(4, "c")]
    questions = [*chain, *(question(n, f"{n}") for n in range(5, 12))]
    train, evaluation = split_disjoint(questions, None, 4, seed=seed)
    for together in ({"q0", "q1", "q2"}, {"q3", "q4"}):
        assert not (together & set(ids(train)) and together & set(ids(evaluation)))
    assert len(evaluation) == 4


def test_equal_decoded_images_and_equal_texts_stay_together() -> None:
    red = [Image.new("RGB", (2, 2), "red") for _ in range(2)]
    pictures = [question(0, red[0]), question(1, red[1])]
    texts = [Question(id=f"t{n}", text="1+1?", answer="2") for n in range(2)]
    for pair in (pictures, texts):
        with pytest.raises(DataError, match="0 are left for training, because 1 share an image"):
            split_disjoint(pair, 1, 1, seed=0)
    different = [question(0, Image.new("RGB", (2, 2), "red")), question(1, Image.new("RGB", (2, 2), "blue"))]
    assert [len(side) for side in split_disjoint(different, 1, 1, seed=0)] == [1, 1]


@pytest.mark.parametrize(
    ("num_train", "num_eval", "says"),
    [
        (18, 3, "18 for training and 3 for evaluation were asked for, but there are 20 questions; lower num_train"),
        (21, 0, "21 for training and 0 for evaluation were asked for, but there are 20"),
        (None, 20, "the rest for training and 20 for evaluation were asked for, but there are 20"),
        (0, 1, "num_train=0, num_eval=1: num_train is at least 1"),
        (1, -1, "num_eval at least 0"),
    ],
)
def test_more_than_there_are(num_train: int | None, num_eval: int, says: str) -> None:
    with pytest.raises(DataError, match=says):
        split_disjoint(ALONE, num_train, num_eval, seed=0)
