"""What a recipe needs of the machine is asked first, and what is missing is named with what would do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pytest
import torch

from kepo.errors import ConfigError
from kepo.recipes import requirements
from kepo.recipes.files import accelerate_configs
from kepo.recipes.requirements import (
    check_device,
    check_launch,
    check_model,
    check_packages,
    check_processes,
    missing_packages,
    readable_errors,
)
from tests.tiny_models import build_text_model


@pytest.mark.parametrize(
    ("values", "package", "install"),
    [
        ({"use_vllm": True}, "vllm", "kepo[vllm]"),
        ({"deepspeed": "ds.json"}, "deepspeed", "kepo[deepspeed]"),
        ({"load_in_4bit": True}, "bitsandbytes", "kepo[quantization]"),
        ({"teacher_load_in_4bit": True}, "bitsandbytes", "kepo[quantization]"),
        ({"optim": "paged_adamw_8bit"}, "bitsandbytes", "kepo[quantization]"),
        ({"report_to": "wandb"}, "wandb", "pip install wandb"),
        ({"report_to": ["none", "mlflow"]}, "mlflow", "pip install mlflow"),
        ({"reward_funcs": ["choice_accuracy", "math_accuracy"]}, "math_verify", "kepo[math]"),
        ({"reward_funcs": ["reasoning_gym_score"]}, "reasoning_gym", "kepo[reasoning]"),
        ({"reasoning_tasks": ["gcd"]}, "reasoning_gym", "kepo[reasoning]"),
        ({"attn_implementation": "flash_attention_2"}, "flash_attn", "flash-attn"),
        ({"attn_implementation": "kernels-community/flash-attn"}, "kernels", "pip install kernels"),
        ({"use_liger_kernel": True}, "liger_kernel", "liger-kernel"),
    ],
)
def test_a_package_that_a_field_needs_is_named(values: dict[str, Any], package: str, install: str) -> None:
    (missing,) = missing_packages(values, installed=lambda name: False)
    assert missing.package == package
    assert install in missing.install
    assert missing.setting.split(":")[0] in values
    assert missing_packages(values, installed=lambda name: True) == []


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"use_vllm": False, "report_to": "none", "optim": "adamw_torch", "attn_implementation": "sdpa"},
        {"report_to": ["all"], "load_in_4bit": False, "reward_funcs": ["choice_accuracy", "own.module:reward"]},
        {"optim": "adamw_torch_fused", "reasoning_tasks": []},
    ],
)
def test_a_recipe_that_needs_nothing_is_let_through(values: dict[str, Any]) -> None:
    assert missing_packages(values, installed=lambda name: False) == []


def test_all_that_is_missing_is_said_at_once() -> None:
    with pytest.raises(ConfigError, match=r"(?s)use_vllm: true .*kepo\[vllm\].*report_to: wandb .*pip install wandb"):
        check_packages({"use_vllm": True, "report_to": ["wandb"]}, installed=lambda name: False)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    for there in (None, "cpu", "cuda", "cuda:0"):
        check_device("teacher_device", there)
    with pytest.raises(ConfigError, match="teacher_device is 'cuda:1', but this machine has cuda:0"):
        check_device("teacher_device", "cuda:1")
    with pytest.raises(ConfigError, match="teacher_device is 'gpu', which is no device"):
        check_device("teacher_device", "gpu")


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configs = accelerate_configs()
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"8 processes .* there is no GPU"):
        check_launch(str(configs["multi_gpu"]))
    check_launch(str(configs["single-1gpu"]))
    on_cpu = tmp_path / "cpu.yaml"
    on_cpu.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_CPU\nnum_processes: 2\nuse_cpu: true\n"
    )
    check_launch(str(on_cpu))
    check_processes()

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    with pytest.raises(ConfigError, match=r"fsdp2-8gpu.yaml starts 8 processes .* there are 4 GPUs"):
        check_launch(str(configs["fsdp2-8gpu"]))
    check_launch(str(configs["fsdp2-4gpu"]))
    monkeypatch.setattr(requirements, "is_installed", lambda name: False)
    with pytest.raises(ConfigError, match=r"DeepSpeed, which is not installed. Run: pip install 'kepo\[deepspeed\]'"):
        check_launch(str(configs["zero3-4gpu"]))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    with pytest.raises(ConfigError, match="8 processes were started on 4 GPUs"):
        check_processes()


def test_a_file_that_is_no_accelerate_config_is_named(tmp_path: Path) -> None:
    for content in ("", "max_steps: 3\n"):
        (tmp_path / "mine.yaml").write_text(content)
        with pytest.raises(ConfigError, match=r"mine.yaml is not an accelerate config"):
            check_launch(str(tmp_path / "mine.yaml"))


def test_a_student_that_cannot_be_reached_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> Any:
        raise httpx.ConnectError("no such host")

    monkeypatch.setattr(httpx, "head", unreachable)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(
        ConfigError, match=r"model_name_or_path 'some/model' .*cannot be reached \(no such host\).*hf download"
    ):
        check_model("model_name_or_path", "some/model")
    with pytest.raises(ConfigError, match=r"'a/b/c' is neither a folder here nor a name on the hub"):
        check_model("model_name_or_path", "a/b/c")


def test_a_folder_is_a_model_or_not(tmp_path: Path) -> None:
    check_model("model_name_or_path", str(build_text_model(tmp_path / "student")))
    (tmp_path / "config.json").write_text('{"model_type": "of_next_year"}')
    with pytest.raises(ConfigError, match="of_next_year"):
        check_model("model_name_or_path", str(tmp_path))


def test_what_the_libraries_cannot_build_is_a_readable_error() -> None:
    with (
        pytest.raises(ConfigError, match="The run cannot start: Target modules foo not found"),
        readable_errors("The run cannot start"),
    ):
        raise ValueError("Target modules foo not found")
    with pytest.raises(ZeroDivisionError), readable_errors("The run cannot start"):
        raise ZeroDivisionError  # a fault of ours keeps its traceback
