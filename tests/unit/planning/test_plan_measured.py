"""The formulas against what torch keeps, on small models of both kinds."""

from __future__ import annotations

import pytest
import torch

from benchmarks.memory import (
    LLAVAS,
    Row,
    activation_rows,
    cache_rows,
    head_rows,
    llava,
    packed_rows,
    qwen3_vl_small,
    static_rows,
)

CPU = torch.device("cpu")
# Not counted: rotary tables, the embedding. On small models they weigh more than on large ones.
ACTIVATIONS = (0.88, 1.05)


@pytest.fixture(scope="module", params=["llava", "qwen3_vl"])
def model(request: pytest.FixtureRequest) -> tuple[str, torch.nn.Module, int]:
    torch.manual_seed(0)
    if request.param == "llava":
        return "LLaVA", llava(LLAVAS["LLaVA small"]), 96
    return "Qwen3-VL", qwen3_vl_small(), 128


def test_weights_gradients_and_states_are_exact(model) -> None:
    name, network, _ = model
    rows = list(static_rows(name, network.float()))
    assert [row.part for row in rows] == ["weights", "gradients", "optimizer states"]
    assert [row.ratio for row in rows] == [1.0, 1.0, 1.0]


@pytest.mark.slow
def test_activations_are_near(model) -> None:
    name, network, image_size = model
    rows: list[Row] = list(activation_rows(name, network, 5, 190, image_size, CPU))
    assert len(rows) == 6
    low, high = ACTIVATIONS
    assert {row.part: round(row.ratio, 3) for row in rows if not low < row.ratio < high} == {}


@pytest.mark.slow
def test_activations_of_packs_are_near(model) -> None:
    name, network, image_size = model
    rows: list[Row] = list(packed_rows(name, network, 1, 4, 190, image_size, CPU))
    assert len(rows) == 6
    low, high = ACTIVATIONS
    assert {row.part: round(row.ratio, 3) for row in rows if not low < row.ratio < high} == {}


def test_a_cache_is_exact(model) -> None:
    name, network, image_size = model
    rows = list(cache_rows(name, network, 2, 100, image_size, CPU))
    assert {row.part: row.ratio for row in rows} == {
        "key-value cache, float32": 1.0, "key-value cache, bfloat16": 1.0, "key-value cache, autocast": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize("chunk", [32, 128])
def test_the_output_head_is_near(chunk: int) -> None:
    (row,) = head_rows(tokens=256, hidden=64, vocab=8192, chunk=chunk, device=CPU)
    assert 0.95 < row.ratio < 1.15
