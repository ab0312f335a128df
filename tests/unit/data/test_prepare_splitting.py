"""Splits that keep images together and strata in proportion, and samples that are drawn with the seed."""

from __future__ import annotations

from collections import Counter

import pytest

from kepo.data.prepare.settings import PrepareSettings
from kepo.data.prepare.splitting import Item, draw, quotas, split_items
from kepo.errors import ConfigError
from kepo.types import Question

TASKS = ("Diagnosis", "Anatomy", "Modality")


def item(number: int, content: str, modality: str = "MRI", task: str = "Diagnosis", **metadata: str) -> Item:
    question = Question(
        id=f"q{number}",
        text="?",
        answer="A",
        options=("x", "y"),
        images=(f"{content}.png",),
        modality=modality,
        task=task,
        metadata={"dataset": "one", **metadata},
    )
    return Item(question, (content,))


def many(count: int = 900) -> list[Item]:
    """Two modalities; every third image has three questions, one of each type."""
    items = []
    for number in range(count):
        image = number // 3 if number // 3 % 3 == 0 else number + 10_000
        items.append(item(number, f"i{image}", ("MRI", "CT")[number // 3 % 2], TASKS[number % 3]))
    return items


def settings(**changes: object) -> PrepareSettings:
    return PrepareSettings(**{"split": "stratified", "image_disjoint": True, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("counts", "total", "shares"),
    [
        ({"a": 50, "b": 30, "c": 20}, 10, {"a": 5, "b": 3, "c": 2}),
        # 1/3 each of 2: every remainder is 2/3, and the first two keys get one.
        ({"c": 1, "a": 1, "b": 1}, 2, {"a": 1, "b": 1, "c": 0}),
        # 5 * 7/10 = 3.5 and 5 * 3/10 = 1.5: one is left over, for the first key.
        ({"a": 7, "b": 3}, 5, {"a": 4, "b": 1}),
        ({"a": 2, "b": 1}, 3, {"a": 2, "b": 1}),
        ({"a": 2}, 0, {"a": 0}),
        ({"a": 0}, 0, {"a": 0}),
        ({}, 0, {}),
    ],
)
def test_largest_remainder(counts: dict[str, int], total: int, shares: dict[str, int]) -> None:
    keyed = {(name, ""): count for name, count in counts.items()}
    assert {name: count for (name, _), count in quotas(keyed, total).items()} == shares


def test_every_question_is_on_one_side_and_every_image_too() -> None:
    items = many()
    splits = split_items(items, settings())
    assert sorted([*splits["train"], *splits["validation"], *splits["test"]]) == list(range(len(items)))
    images = [{items[i].contents[0] for i in side} for side in (splits["train"], splits["validation"], splits["test"])]
    assert not images[0] & images[1]
    assert not images[0] & images[2]
    assert not images[1] & images[2]


def test_every_stratum_gives_its_share() -> None:
    items = many()
    splits = split_items(items, settings())
    whole, test, validation = (
        Counter((items[i].question.modality, items[i].question.task) for i in side)
        for side in (range(len(items)), splits["test"], splits["validation"])
    )
    assert len(whole) == 6
    for stratum, count in whole.items():
        assert test[stratum] == pytest.approx(0.2 * count, abs=1)
        assert validation[stratum] == pytest.approx(0.1 * 0.8 * count, abs=1)


def test_the_split_of_the_paper_is_by_modality_and_lets_images_be_shared() -> None:
    items = many()
    splits = split_items(items, settings(split="paper", image_disjoint=False))
    assert Counter(items[i].question.modality for i in splits["test"]) == {"MRI": 90, "CT": 90}
    assert {items[i].contents for i in splits["train"]} & {items[i].contents for i in splits["test"]}


def test_the_seed_decides_and_the_order_of_the_files_does_not() -> None:
    items = many()
    first = split_items(items, settings(seed=1))
    turned = items[::-1]
    again = split_items(turned, settings(seed=1))
    assert {items[i].question.id for i in first["test"]} == {turned[i].question.id for i in again["test"]}
    assert split_items(items, settings(seed=2))["test"] != first["test"]


def test_one_image_with_all_questions_stays_on_one_side() -> None:
    splits = split_items([item(number, "same") for number in range(50)], settings())
    assert (len(splits["train"]), splits["validation"], splits["test"]) == (50, [], [])


def test_no_validation_side_leaves_its_questions_in_training() -> None:
    items = many()
    whole, without = split_items(items, settings()), split_items(items, settings(validation=0))
    assert without["validation"] == []
    assert without["test"] == whole["test"]
    assert sorted([*whole["train"], *whole["validation"]]) == without["train"]


def given(*sides: str) -> list[Item]:
    return [item(number, f"i{number}", split=side) for number, side in enumerate(sides)]


def test_a_given_split_is_kept() -> None:
    items = given("test", "train", "validation", "train")
    splits = split_items(items, settings(split="given"))
    assert (splits["train"], splits["validation"], splits["test"], splits["left_out"]) == ([1, 3], [2], [0], [])


def test_a_given_split_without_validation_gets_one_from_training() -> None:
    splits = split_items(given(*["train"] * 20, "test"), settings(split="given"))
    assert (len(splits["train"]), len(splits["validation"]), splits["test"]) == (18, 2, [20])


def test_training_questions_about_test_images_of_a_given_split_are_left_out() -> None:
    items = [item(0, "a", split="test"), item(1, "a", split="train"), item(2, "b", split="train")]
    items += [item(3, "b", split="validation"), item(4, "c", split="train")]
    splits = split_items(items, settings(split="given"))
    assert (splits["train"], splits["validation"], splits["test"], splits["left_out"]) == ([4], [3], [0], [1, 2])
    kept = split_items(items, settings(split="given", image_disjoint=False))
    assert (kept["train"], kept["left_out"]) == ([1, 2, 4], [])


def test_a_draw_keeps_the_shares_of_types_and_collections() -> None:
    items = [item(n, f"a{n}", "MRI", "Diagnosis", dataset="one") for n in range(60)]
    items += [item(n, f"b{n}", "MRI", "Diagnosis", dataset="two") for n in range(60, 90)]
    items += [item(n, f"c{n}", "MRI", "Anatomy") for n in range(90, 100)]
    items += [item(n, f"d{n}", "CT", "Anatomy") for n in range(100, 105)]
    drawn = draw(items, range(len(items)), 10, seed=3, purpose="train")
    assert drawn == sorted(drawn)
    counts = Counter(
        (items[i].question.modality, items[i].question.task, items[i].question.metadata["dataset"]) for i in drawn
    )
    assert counts == {
        ("MRI", "Diagnosis", "one"): 6,
        ("MRI", "Diagnosis", "two"): 3,
        ("MRI", "Anatomy", "one"): 1,
        ("CT", "Anatomy", "one"): 5,
    }
    assert draw(items, range(len(items)), 10, seed=3, purpose="train") == drawn
    assert draw(items, range(len(items)), 10, seed=4, purpose="train") != drawn
    assert draw(items, range(len(items)), None, seed=3, purpose="train") == list(range(len(items)))
    assert draw(items, range(len(items)), 0, seed=3, purpose="train") == []


def test_a_larger_draw_of_one_stratum_holds_the_smaller_one() -> None:
    items = [item(n, f"a{n}") for n in range(100)]
    small = draw(items, range(100), 10, seed=0, purpose="train")
    assert set(small) < set(draw(items, range(100), 50, seed=0, purpose="train"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"split": "random"}, "split 'random' is unknown; use one of stratified, paper, given"),
        ({"train": -1}, "train is -1"),
        ({"train": 0, "validation": 0, "test": 0}, "nothing to prepare"),
        ({"test_share": 1.0}, r"test_share is 1\.0"),
        ({"longest_side": 100}, "size and longest_side were both given"),
        ({"size": 0}, "size is 0; give 1 to 4096"),
        ({"size": None}, "neither size nor longest_side"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        PrepareSettings(**changes)  # type: ignore[arg-type]
