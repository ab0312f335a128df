"""Tiny models and trainers for the trainer's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kepo import KEPOConfig, KEPOTrainer, LocalTeacher
from kepo.types import Sample
from tests.tiny_models import build_text_model, build_vlm
from tests.tiny_runs import ANSWER_IDS, SHORT_RUN, even_start, questions


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_text_model(tmp_path_factory.mktemp("models") / "student", "llama", seed=0))


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_text_model(tmp_path_factory.mktemp("models") / "teacher", "qwen3", seed=1))


@pytest.fixture(scope="session")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_vlm(tmp_path_factory.mktemp("models") / "vlm", "llava", seed=0))


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., KEPOConfig]:
    def make(**fields: Any) -> KEPOConfig:
        defaults: dict[str, Any] = dict(
            output_dir=str(tmp_path / "run"),
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=6,
            learning_rate=1e-2,
            max_steps=1,
        )
        return KEPOConfig(**{**SHORT_RUN, **defaults, **fields})

    return make


@pytest.fixture
def make_trainer(config: Callable[..., KEPOConfig], student: str, teacher_folder: str) -> Callable[..., KEPOTrainer]:
    """A trainer on tiny models; keyword arguments are config fields, `rewards`, `model`, `teacher` or `dataset`."""

    def make(
        rewards: Any = (even_start,),
        model: Any = None,
        teacher: Any = "local",
        dataset: Any = None,
        eval_dataset: Any = None,
        peft_config: Any = None,
        processing_class: Any = None,
        **fields: Any,
    ) -> KEPOTrainer:
        if teacher == "local":
            teacher = LocalTeacher(teacher_folder, hint_max_new_tokens=4)
        return KEPOTrainer(
            model=model or student,
            reward_funcs=list(rewards),
            args=config(**fields),
            train_dataset=questions() if dataset is None else dataset,
            eval_dataset=eval_dataset,
            peft_config=peft_config,
            processing_class=processing_class,
            teacher=teacher,
        )

    return make


@pytest.fixture
def rescuing_sampler(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """Hinted sampling finds the right answer at once; returns the prompts it was asked with."""
    asked: list[list[Any]] = []

    def sample(trainer: Any, prompts: Any, filler: Any) -> list[Sample]:
        asked.append(list(prompts))
        eos = trainer.eos_token_ids[0]
        return [Sample((*ANSWER_IDS, 66 + i, eos), f"found {i}", (-0.1,) * 5) for i in range(len(prompts))]

    monkeypatch.setattr(KEPOTrainer, "sample_completions", sample)
    return asked
