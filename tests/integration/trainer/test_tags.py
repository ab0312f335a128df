"""Tags that are special tokens, and prompts that open the reasoning, on the way from sampled ids to rewards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from kepo import KEPOTrainer
from kepo.rewards import choice_accuracy, think_format
from tests.tiny_models import CHAT_TEMPLATE, TAGS, build_text_model, build_tokenizer

ROW = {"prompt": [{"role": "user", "content": "Which?"}], "answer": "A", "options": ["MRI", "CT"]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "written", "cut"),
    [
        ("", "<think>CT</think><answer>A</answer>", "<think>CT <answer>A</answer> no"),
        ("<think>", "CT</think><answer>A</answer>", "CT <answer>A</answer> no"),
    ],
)
def test_rewards_see_the_tags(
    end: str,
    written: str,
    cut: str,
    tmp_path: Path,
    make_trainer: Callable[..., KEPOTrainer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    template = CHAT_TEMPLATE.replace("'<|assistant|>' -}}", f"'<|assistant|>{end}' -}}}}")
    tokenizer = build_tokenizer(chat_template=template)
    tokenizer.add_special_tokens({"extra_special_tokens": list(TAGS)})
    folder = build_text_model(tmp_path / "student", tokenizer=tokenizer)
    trainer = make_trainer(
        rewards=(choice_accuracy, think_format),
        model=str(folder),
        teacher=None,
        dataset=Dataset.from_list([ROW] * 8),
        exploration="none",
        distillation_weight=0.0,
        max_completion_length=16,
    )
    texts = [written, cut] * 4
    ids = [[*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for text in texts]
    monkeypatch.setattr(trainer, "_generate_single_turn", lambda *_: (ids, None))
    rewards: list[Any] = []
    original = trainer.score_rollouts
    monkeypatch.setattr(trainer, "score_rollouts", lambda *a, **k: rewards.append(original(*a, **k)) or rewards[-1])
    trainer.model.train()
    trainer.make_generation_batch([ROW] * 8)
    assert rewards[0].tolist() == [[1.0, 1.0], [0.0, 0.0]] * 4
