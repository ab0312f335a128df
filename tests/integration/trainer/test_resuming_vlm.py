"""A vision-language model whose names on disk are not those in memory goes on from its own weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from kepo.errors import ConfigError
from kepo.trainer.resuming import CheckpointWeights, load_translated, names_on_disk
from tests.tiny_models import build_text_model, build_vlm


def _trainer(model: torch.nn.Module) -> SimpleNamespace:
    """What of a trainer the callback looks at."""
    accelerator = SimpleNamespace(unwrap_model=lambda one: one)
    return SimpleNamespace(model=model, accelerator=accelerator, is_deepspeed_enabled=False, is_fsdp_enabled=False)


def test_the_weights_of_a_checkpoint_are_loaded_by_their_names_in_memory(tmp_path: Path) -> None:
    begun = AutoModelForImageTextToText.from_pretrained(build_vlm(tmp_path / "begun", "llava", seed=1))
    saved = AutoModelForImageTextToText.from_pretrained(build_vlm(tmp_path / "checkpoint-2", "llava", seed=2))
    assert names_on_disk(tmp_path / "checkpoint-2") - begun.state_dict().keys()  # else this test shows nothing
    assert begun.load_state_dict(load_file(tmp_path / "checkpoint-2" / "model.safetensors"), False).missing_keys
    CheckpointWeights(_trainer(begun), tmp_path / "checkpoint-2").on_train_begin(None, None, None)
    for name, weights in saved.state_dict().items():
        torch.testing.assert_close(begun.state_dict()[name], weights, rtol=0, atol=0, msg=name)


def test_a_model_that_the_trainer_can_load_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = AutoModelForCausalLM.from_pretrained(build_text_model(tmp_path / "model", "llama"))
    monkeypatch.setattr("kepo.trainer.resuming.load_translated", lambda *_: pytest.fail("loaded a second time"))
    CheckpointWeights(_trainer(model), tmp_path / "model").on_train_begin(None, None, None)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(build_text_model(tmp_path / "model", "llama"))
    other = build_text_model(tmp_path / "other", "llama")
    model.register_parameter("more", torch.nn.Parameter(torch.zeros(1)))
    with pytest.raises(ConfigError, match="1 names differ, such as 'more'"):
        load_translated(model, other)
