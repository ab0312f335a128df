"""What the arms of the step benchmark train on, and how many tokens that needs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from benchmarks.workload import (
    Group,
    Replay,
    Rollouts,
    has_advantage,
    has_gradient,
    is_gated,
    questions,
    qwen_processor,
    repeated,
    tokens_needed,
)
from kepo.models.tokenizer import IMAGE, train_tokenizer

MIXED = Group(((1, 1), (2, 2, 2), (3,)), (True, False, False), prompt=[0] * 10)
FAILED = Group(((4,), (5,), (6,)), (False,) * 3, prompt=[0] * 20)
SOLVED = Group(((7,), (8, 8), (9,)), (True,) * 3, prompt=[0] * 30)


def test_tokens_needed_by_hand() -> None:
    groups = [MIXED, FAILED, SOLVED]
    assert tokens_needed(groups, has_advantage) == 10 + (2 + 3 + 1)  # the mixed group alone
    assert tokens_needed(groups, is_gated) == (10 + 2) + (30 + 1 + 2 + 1)  # correct rollouts
    assert tokens_needed(groups, has_gradient) == (10 + 6) + (30 + 4)  # not the failed group
    assert tokens_needed([FAILED], has_gradient) == 0


def _rollouts() -> Rollouts:
    return Rollouts([1, 0], group_size=3, lengths=(2, 5), tokens=range(10, 99), eos=1)


def test_rollouts_are_the_same_every_time_and_rewarded_by_what_they_are() -> None:
    rollouts = _rollouts()
    assert rollouts.groups == _rollouts().groups
    first, second = rollouts.groups
    assert (sum(first.correct), sum(second.correct)) == (1, 0)
    rows = [*first.completions, *second.completions]
    assert all(2 <= len(row) <= 5 and row[-1] == 1 for row in rows)
    assert rollouts.reward(completion_ids=[list(row) for row in rows]) == [
        *map(float, first.correct), *map(float, second.correct)
    ]  # fmt: skip
    assert rollouts.reward(completion_ids=[[1]]) == [0.0]
    assert rollouts.open_share == pytest.approx(1 / 6)


def test_a_trainer_gets_the_rollouts_of_each_prompt_whatever_their_order() -> None:
    calls: list[int] = []
    trainer = SimpleNamespace(_generate_single_turn=lambda prompts, *_: calls.append(len(prompts)))
    rollouts = _rollouts()
    replay = Replay(trainer, rollouts)
    first, second = (list(map(list, group.completions)) for group in rollouts.groups)
    made, logps = trainer._generate_single_turn([[5], [6], [5], [6]], None, {})
    assert (made, logps) == ([first[0], second[0], first[1], second[1]], None)
    assert [group.prompt for group in rollouts.groups] == [[5], [6]]
    replay.samples = False
    assert trainer._generate_single_turn([[6]])[0] == [second[0]]
    assert calls == [4]
    with pytest.raises(ValueError, match="2 groups"):
        trainer._generate_single_turn([[7]])


def test_every_step_has_the_same_prompts() -> None:
    rows = repeated(questions(2, 8), times=3)
    assert len(rows) == 6
    assert rows["id"][:4] == ["0", "1", "0", "1"]
    assert rows["prompt"][0] != rows["prompt"][1]


def test_a_processor_of_qwen_vl_without_videos_expands_images() -> None:
    tokenizer = train_tokenizer(["What is it?"], 400)
    processor = qwen_processor(tokenizer, 64)
    asked = repeated(questions(2, 64), times=1)
    texts = [f"{IMAGE}What?", f"{IMAGE}What is it?"]
    read = processor(images=[row["images"] for row in asked], text=texts, padding=True, return_tensors="pt")
    image = tokenizer.convert_tokens_to_ids(IMAGE)
    assert (read["input_ids"] == image).sum(1).tolist() == [4, 4]  # (64 / 16 / 2)^2
    assert read["mm_token_type_ids"].tolist() == (read["input_ids"] == image).long().tolist()
    assert read["image_grid_thw"].tolist() == [[1, 4, 4]] * 2
