"""Rollouts that go on from the cache of their shared prompt: the same tokens, from fewer."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from kepo.models.encoding import encode
from kepo.models.shared_prefill import EqualRows, SharedPrefill, repeated
from tests.tiny_models import (
    ARCHITECTURES_TEXT,
    ARCHITECTURES_VLM,
    UnavailableHere,
    build_qwen_vl_model,
    build_text_model,
    build_vlm,
    tiny_image,
)

INDEX = [0, 0, 1, 0, 2, 1]
ROWS = EqualRows(INDEX, [0, 2, 4], [1, 1, 1])
TEXTS = ["What does the image show?", "A) MRI B) CT", "Reason step by step, then give the result of 12 plus 30."]


def _prompts(images: bool) -> list[Any]:
    if not images:
        return [[{"role": "user", "content": text}] for text in TEXTS]
    parts = [
        [{"type": "image", "image": tiny_image(place)}, {"type": "text", "text": text}]
        for place, text in enumerate(TEXTS)
    ]
    return [[{"role": "user", "content": part}] for part in parts]


def _config(**fields: Any) -> GenerationConfig:
    return GenerationConfig(max_new_tokens=8, pad_token_id=0, **{"do_sample": False, "eos_token_id": 2, **fields})


def _batch(fields: dict[str, torch.Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(plain arguments of `generate`, those of the shared one)"""
    token_fields = {name: fields.pop(name)[INDEX] for name in ("input_ids", "attention_mask")}
    return {**token_fields, **repeated(fields, ROWS)}, {**token_fields, **fields}


def _computed(model: Any) -> list[int]:
    """Tokens that go through the decoder's first layer, call by call."""
    counts: list[int] = []
    layer = next(
        module for name, module in model.named_modules() if name.endswith("layers.0.self_attn") and "vision" not in name
    )
    layer.register_forward_pre_hook(
        lambda _m, args, kwargs: counts.append((args[0] if args else kwargs["hidden_states"]).shape[:2].numel()),
        with_kwargs=True,
    )
    return counts


def _assert_same(model: Any, fields: dict[str, torch.Tensor]) -> None:
    plain, shared = _batch(fields)
    config = _config(return_dict_in_generate=True, output_logits=True)
    expected = model.generate(**plain, generation_config=config)
    prefill = SharedPrefill(model, least=1)
    counts = _computed(model)
    with prefill.rows(ROWS):
        got = model.generate(**shared, generation_config=config)
    assert prefill.enabled, "it turned itself off"
    assert max(counts) == 3 * (plain["input_ids"].size(1) - 1)
    assert torch.equal(got.sequences, expected.sequences)
    torch.testing.assert_close(got.logits[0], expected.logits[0], rtol=0, atol=1e-5)
    config = _config(do_sample=True, eos_token_id=list(range(2, 300, 3)))
    counts.clear()
    for seed in range(3):
        torch.manual_seed(seed)
        expected = model.generate(**plain, generation_config=config)
        state = torch.get_rng_state()
        torch.manual_seed(seed)
        with prefill.rows(ROWS):
            assert torch.equal(model.generate(**shared, generation_config=config), expected), "rows that end early"
        assert torch.equal(torch.get_rng_state(), state)
    assert min(counts) < len(INDEX)
    prefill._least = 10**6
    counts.clear()
    with prefill.rows(ROWS):
        torch.manual_seed(2)
        assert torch.equal(model.generate(**shared, generation_config=config), expected), "rows that end, prompts apart"
    assert max(counts) == plain["input_ids"].numel()
    torch.manual_seed(2)
    assert torch.equal(model.generate(**plain, generation_config=config), expected), "outside of rows"


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("architecture", [*ARCHITECTURES_TEXT, *ARCHITECTURES_VLM])
def test_greedy_tokens_and_first_logits_are_equal(tmp_path: Path, architecture: str, training: bool) -> None:
    images = architecture in ARCHITECTURES_VLM
    try:
        folder = (build_vlm if images else build_text_model)(tmp_path / "model", architecture)
    except UnavailableHere as reason:
        pytest.skip(str(reason))
    load = AutoModelForImageTextToText if images else AutoModelForCausalLM
    model = load.from_pretrained(folder, dtype=torch.float32).train(training)
    processor = AutoProcessor.from_pretrained(folder, padding_side="left")
    fields = encode(processor, _prompts(images), None, "cpu")
    assert not fields["attention_mask"].all(), "there is no padding"
    _assert_same(model, fields)


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "qwen3_vl"])
def test_positions_in_space_go_on(tmp_path: Path, architecture: str) -> None:
    """Qwen-VL without its processor, which needs torchvision."""
    model = AutoModelForImageTextToText.from_pretrained(build_qwen_vl_model(tmp_path / "model", architecture))
    config = model.config
    side = 2 * config.vision_config.spatial_merge_size
    image = [config.vision_start_token_id, *[config.image_token_id] * 4, config.vision_end_token_id]
    rows = [[40, *image, 41, 42], [0, 0, *image, 43], [*image, 50, 51, 52]]
    ids = torch.tensor(rows)
    torch.manual_seed(0)
    width = 3 * config.vision_config.temporal_patch_size * config.vision_config.patch_size**2
    fields = {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "mm_token_type_ids": (ids == config.image_token_id).long(),
        "pixel_values": torch.randn(3 * side * side, width),
        "image_grid_thw": torch.tensor([[1, side, side]] * 3),
    }
    _assert_same(model, fields)


@pytest.mark.parametrize("setting", [{"cache_implementation": "static"}, {"num_beams": 2}, {"use_cache": False}])
def test_settings_that_need_their_own_cache_turn_it_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, setting: dict[str, Any]
) -> None:
    folder = build_text_model(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    fields = encode(AutoProcessor.from_pretrained(folder, padding_side="left"), _prompts(False), None, "cpu")
    plain, shared = _batch(fields)
    expected = model.generate(**plain, generation_config=_config(**setting))
    prefill = SharedPrefill(model, least=1)
    with caplog.at_level(logging.WARNING, logger="kepo"):
        for _ in range(2):
            with prefill.rows(ROWS):
                assert torch.equal(model.generate(**shared, generation_config=_config(**setting)), expected)
    assert not prefill.enabled
    assert [record.message for record in caplog.records if next(iter(setting)) in record.message]
    assert len(caplog.records) == 1


def test_a_model_that_goes_on_differently_is_found_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = build_text_model(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    fields = encode(AutoProcessor.from_pretrained(folder, padding_side="left"), _prompts(False), None, "cpu")
    plain, shared = _batch(fields)
    expected = model.generate(**plain, generation_config=_config())
    layer = model.model.layers[0]

    def forgets(_module: Any, _args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        cache = kwargs["past_key_values"]
        if cache.get_seq_length() == plain["input_ids"].size(1) - 1:
            cache.layers[0].keys.zero_()
        return _args, kwargs

    layer.register_forward_pre_hook(forgets, with_kwargs=True)
    prefill = SharedPrefill(model, least=1)
    with caplog.at_level(logging.WARNING, logger="kepo"), prefill.rows(ROWS):
        assert torch.equal(model.generate(**shared, generation_config=_config()), expected)
    assert "log-probabilities differ" in caplog.text
