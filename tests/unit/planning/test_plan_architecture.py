"""Sizes of models: published counts, a folder, and errors that say what to do."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest

from kepo.errors import ConfigError
from kepo.planning.architecture import load_architecture, published_config
from tests.tiny_models import build_text_model, build_vlm

# The hub's counts of these models' safetensors.
PUBLISHED_COUNTS = {
    "Qwen/Qwen3-VL-2B-Instruct": 2_127_532_032,
    "Qwen/Qwen3-VL-4B-Instruct": 4_437_815_808,
    "Qwen/Qwen3-VL-8B-Instruct": 8_767_123_696,
    "Qwen/Qwen3-VL-32B-Instruct": 33_357_390_064,
    "Qwen/Qwen3-VL-30B-A3B-Instruct": 31_070_754_032,
    "Qwen/Qwen3-VL-235B-A22B-Instruct": 235_670_022_896,
}


@pytest.mark.parametrize("name", PUBLISHED_COUNTS)
def test_published_models_have_their_parameters(name: str) -> None:
    sizes = load_architecture(name)
    assert sizes.parameters == PUBLISHED_COUNTS[name]
    assert sizes.source.startswith("shipped table, from ")
    assert sizes.tied == (name.split("-")[2] in ("2B", "4B"))
    assert sizes.decoder.vocab == 151936


def test_all_of_the_table_is_tested() -> None:
    sizes = json.loads((files("kepo.planning") / "qwen3_vl.json").read_text())
    assert {f"Qwen/Qwen3-VL-{size}-Instruct" for size in sizes} == set(PUBLISHED_COUNTS)


def test_an_image_of_the_paper_takes_144_tokens() -> None:
    tower = load_architecture("Qwen/Qwen3-VL-2B-Instruct").tower
    assert tower is not None
    assert tower.patches(384) == 24 * 24
    assert tower.tokens(384) == 12 * 12
    assert tower.mergers == 4


def test_variants_share_a_config_and_strangers_have_none() -> None:
    assert published_config("Qwen3-VL-8B-Thinking") is not None
    assert published_config("Qwen/Qwen3-VL-7B-Instruct") is None
    assert published_config("someone/else") is None


def test_experts_count_with_all_that_one_token_goes_through() -> None:
    sizes = load_architecture("Qwen/Qwen3-VL-30B-A3B-Instruct")
    assert sizes.decoder.mlp_width == 8 * 768
    assert sizes.linear_parameters < 0.1 * sizes.parameters  # experts are no linear layers; quantization leaves them


def test_a_folder_is_read_without_its_weights(tmp_path: Path) -> None:
    folder = build_text_model(tmp_path / "model", "qwen3")
    (folder / "model.safetensors").unlink()
    sizes = load_architecture(str(folder))
    assert sizes.tower is None
    assert sizes.decoder.qk_norm
    assert sizes.decoder.kv_heads == 1
    # 2 layers of: q, o 32 x 32 each, k, v 32 x 16 each, MLP 3 x 32 x 64
    assert sizes.linear_parameters == 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64)
    assert sizes.linear_widths == 2 * (2 * 64 + 2 * 48 + 3 * 96)


def test_a_llava_folder(tmp_path: Path) -> None:
    sizes = load_architecture(str(build_vlm(tmp_path / "model", "llava")))
    assert sizes.tower is not None
    assert sizes.tower.tokens(999) == 4  # its images have one size
    assert not sizes.tower.fused_qkv
    assert not sizes.decoder.qk_norm


def test_a_folder_without_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"without config\.json"):
        load_architecture(str(tmp_path))


def test_a_model_that_is_nowhere_says_what_would_do() -> None:
    # Whether the hub is offline by its environment variable or cannot be reached.
    with pytest.raises(ConfigError, match=r"(?s)'nobody/nothing' .*(cannot be reached|is offline).*give the folder"):
        load_architecture("nobody/nothing")
