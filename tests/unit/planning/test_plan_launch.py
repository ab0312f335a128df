"""What an accelerate config says about memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kepo.errors import ConfigError
from kepo.planning.settings import Launch, read_launch


@pytest.mark.parametrize(
    ("name", "strategy", "gpus"),
    [
        ("single-1gpu", "single", 1), ("ddp-4gpu", "ddp", 4), ("zero2-8gpu", "zero2", 8), ("zero3-4gpu", "zero3", 4),
        ("fsdp2-8gpu", "fsdp", 8), ("multi_gpu", "ddp", 8), ("zero1", "zero1", 8), ("fsdp1", "fsdp", 8),
    ],
)  # fmt: skip
def test_shipped_configs(name: str, strategy: str, gpus: int) -> None:
    assert read_launch(name) == Launch(strategy, gpus)


def test_another_number_of_gpus() -> None:
    assert read_launch("zero3-8gpu", gpus=2) == Launch("zero3", 2)
    assert read_launch("fsdp2-8gpu", gpus=1).strategy == "single"


def test_what_is_sharded() -> None:
    shards = {s: (Launch(s, 8).parameter_shards, Launch(s, 8).gradient_shards, Launch(s, 8).optimizer_shards)
              for s in ("ddp", "zero1", "zero2", "zero3", "fsdp")}  # fmt: skip
    assert shards == {"ddp": (1, 1, 1), "zero1": (1, 1, 8), "zero2": (1, 8, 8), "zero3": (8, 8, 8), "fsdp": (8, 8, 8)}


def test_a_deepspeed_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text(
        json.dumps({"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}}})
    )
    config = tmp_path / "mine.yaml"
    config.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: DEEPSPEED\nnum_processes: 4\nmixed_precision: bf16\n"
        "deepspeed_config:\n  deepspeed_config_file: ds.json\n"
    )
    assert read_launch(str(config)) == Launch("zero3", 4, offload_optimizer=True)


def test_no_config_is_one_gpu_or_zero3() -> None:
    assert read_launch(None, 1) == Launch("single", 1)
    assert read_launch(None, 8) == Launch("zero3", 8)


@pytest.mark.parametrize("text", ["", "just text", "distributed_type: TPU\nnum_processes: 8\n"])
def test_what_is_no_config_for_this_is_named(tmp_path: Path, text: str) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        read_launch(str(config))
