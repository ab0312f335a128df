"""`load_best_model_at_end`: the run ends with the weights of the best evaluation, not with the last ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from kepo import KEPOTrainer
from tests.tiny_runs import even_start, questions

FIELDS: dict[str, Any] = {
    "teacher": None,
    "exploration": "none",
    "distillation_weight": 0.0,
    "max_steps": 9,
    "num_iterations": 3,
    "save_strategy": "steps",
    "save_steps": 2,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_score",
    "greater_is_better": True,
    "num_generations_eval": 4,
    "rollout_log": False,
}


@pytest.mark.parametrize("images", [False, True], ids=["text", "names on disk are others"])
def test_the_best_checkpoint_is_loaded(
    make_trainer: Callable[..., KEPOTrainer], student: str, vlm: str, tmp_path: Path, images: bool
) -> None:
    model, auto = (vlm, AutoModelForImageTextToText) if images else (student, AutoModelForCausalLM)
    dataset = questions(images=images)
    trainer = make_trainer((even_start,), model=model, dataset=dataset, eval_dataset=dataset, **FIELDS)
    scores: dict[int, float] = {3: 0.9, 6: 0.1, 9: 0.2}
    trainer.evaluate = lambda *_, **__: {"eval_score": scores[trainer.state.global_step]}
    trainer.train()
    best = tmp_path / "run" / "checkpoint-3"
    assert trainer.state.best_model_checkpoint == str(best)
    kept, last = (auto.from_pretrained(folder) for folder in (best, tmp_path / "run" / "checkpoint-9"))
    differs = False
    for name, weights in trainer.model.named_parameters():
        torch.testing.assert_close(weights, kept.get_parameter(name), rtol=0, atol=0, msg=name)
        differs |= not torch.equal(weights, last.get_parameter(name))
    assert differs, "the last weights were the best ones, so nothing was shown"
