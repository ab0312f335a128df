"""Rows of a group are read, rendered and processed once, with the batch that TRL makes of separate rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import GRPOTrainer

from kepo import KEPOTrainer
from kepo.trainer.adapter.equal_rows import rows_once
from tests.tiny_models import ARCHITECTURES_VLM, UnavailableHere, build_text_model, build_vlm
from tests.tiny_runs import even_start, questions

OFF: dict[str, Any] = {"teacher": None, "distillation_weight": 0.0, "exploration": "none"}


def _first_batch(trainer: KEPOTrainer, make: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    trainer.model.train()
    torch.manual_seed(3)
    return make(trainer, next(iter(trainer.get_train_dataloader())))


@pytest.mark.parametrize("architecture", ["llama", *ARCHITECTURES_VLM])
def test_the_batch_is_trls(make_trainer: Callable[..., KEPOTrainer], tmp_path: Path, architecture: str) -> None:
    images = architecture in ARCHITECTURES_VLM
    try:
        model = str((build_vlm if images else build_text_model)(tmp_path / "model", architecture))
    except UnavailableHere as reason:
        pytest.skip(str(reason))
    trainer = make_trainer((even_start,), model=model, dataset=questions(2, images=images), **OFF)
    calls = []
    processor = trainer.processing_class
    call = type(processor).__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(processor), "__call__", lambda *a, **k: calls.append(k.get("text")) or call(*a, **k))
        ours = _first_batch(trainer, KEPOTrainer.make_generation_batch)
    assert not images or [len(texts) for texts in calls] == [2, 2]
    assert trainer.processing_class is processor
    trainer._rows_are_equal = False
    theirs = _first_batch(trainer, GRPOTrainer._generate_and_score_completions)
    assert ours.keys() >= theirs.keys()
    for name, value in theirs.items():
        same = torch.equal(ours[name], value) if torch.is_tensor(value) else ours[name] == value
        assert same, name


def test_a_row_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    read = Dataset.__getitems__
    monkeypatch.setattr(Dataset, "__getitems__", lambda self, keys: asked.append(keys) or read(self, keys))
    dataset = questions(2, images=True)
    expected = [dataset[row] for row in (1, 1, 0)]
    rows = rows_once(dataset).__getitems__([1, 1, 0])
    assert asked == [[1, 0]]
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in expected]
    rows[0]["new"] = 1  # as TRL adds what a rollout brought
    assert "new" not in rows[1]
    assert type(dataset) is Dataset


@pytest.mark.parametrize("share", [True, False])
def test_the_prompt_of_a_group_is_prefilled_once(
    make_trainer: Callable[..., KEPOTrainer], vlm: str, monkeypatch: pytest.MonkeyPatch, share: bool
) -> None:
    monkeypatch.setattr("kepo.models.shared_prefill.SharedPrefill._is_worth_it", lambda *_: True)
    trainer = make_trainer((even_start,), model=vlm, dataset=questions(2, images=True), share_prompt=share, **OFF)
    sizes: list[int] = []
    trainer.model.model.language_model.register_forward_pre_hook(
        lambda _m, _a, kwargs: sizes.append(kwargs["inputs_embeds"].shape[:2].numel()), with_kwargs=True
    )
    batch = _first_batch(trainer, KEPOTrainer.make_generation_batch)
    width = batch["prompt_ids"].size(1)
    assert max(sizes) == (2 * (width - 1) if share else 8 * width)
