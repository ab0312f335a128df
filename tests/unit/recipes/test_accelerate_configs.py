"""Accelerate configs: ours parse, and names are found in TRL's first, then in ours, then as files."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import launch_command_parser

from kepo.errors import ConfigError
from kepo.recipes.files import accelerate_configs, find_accelerate_config

KINDS = {"single": "NO", "ddp": "MULTI_GPU", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED", "fsdp2": "FSDP"}
OURS = ["single-1gpu", *(f"{kind}-{gpus}gpu" for kind in ("ddp", "fsdp2", "zero2", "zero3") for gpus in (4, 8))]


def test_trls_configs_are_found_and_ours() -> None:
    names = accelerate_configs()
    assert {"fsdp2", "multi_gpu", "zero2", "zero3"} <= set(names)
    assert sorted(name for name in names if "gpu" in name and "-" in name) == sorted(OURS)


@pytest.mark.parametrize("name", OURS)
def test_a_config_of_ours_is_what_its_name_says(name: str) -> None:
    config = load_config_from_file(find_accelerate_config(name))
    assert isinstance(config, ClusterConfig)
    kind, gpus = name.removesuffix("gpu").split("-")
    assert config.distributed_type.value == KINDS[kind]
    assert config.num_processes == int(gpus)
    assert config.mixed_precision == "bf16"
    if kind.startswith("zero"):
        assert config.deepspeed_config["zero_stage"] == int(kind[-1])
        # Left to the recipe: a number here would contradict gradient_accumulation_steps.
        assert "gradient_accumulation_steps" not in config.deepspeed_config
        assert config.deepspeed_config["zero3_init_flag"] == (kind == "zero3")
    if kind == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2


@pytest.mark.parametrize("name", OURS)
def test_accelerates_launcher_takes_a_config_of_ours(name: str) -> None:
    arguments = ["--config_file", find_accelerate_config(name), "-m", "kepo", "train", "paper/kepo-tau1"]
    assert launch_command_parser().parse_args(arguments).config_file.endswith(f"{name}.yaml")


def test_a_file_is_found_and_a_shipped_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("distributed_type: 'NO'\n")
    (tmp_path / "zero3").write_text("something else\n")
    monkeypatch.chdir(tmp_path)
    assert find_accelerate_config("mine.yaml") == "mine.yaml"
    assert find_accelerate_config("zero3").endswith("trl/accelerate_configs/zero3.yaml")


def test_a_config_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"'zero9' is neither .* zero3, .* zero3-8gpu"):
        find_accelerate_config("zero9")
