"""Tiny models and runs for the trainer's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from kepo import KEPOConfig, KEPOTrainer, LocalTeacher
from kepo.types import Sample
from tests.tiny_models import build_text_model, build_vlm, tiny_image

MAGIC = 65  # any ordinary token; its presence is what the reward below calls a right answer
ANSWER_IDS = (MAGIC, MAGIC, MAGIC)


def has_magic(completions: Any, completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Right when the completion starts with the magic tokens, which a random policy practically never samples."""
    return [float(tuple(ids[:3]) == ANSWER_IDS) for ids in completion_ids]


def even_start(completions: Any, completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Right for about every second completion of a random policy."""
    return [float(ids[0] % 2 == 0) for ids in completion_ids]


def well_formed(completions: Any, **_: Any) -> list[float]:
    """A format reward that every completion earns."""
    return [1.0] * len(completions)


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_text_model(tmp_path_factory.mktemp("models") / "student", "llama", seed=0))


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_text_model(tmp_path_factory.mktemp("models") / "teacher", "qwen3", seed=1))


@pytest.fixture(scope="session")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_vlm(tmp_path_factory.mktemp("models") / "vlm", "llava", seed=0))


def questions(count: int = 8, images: bool = False) -> Dataset:
    """`count` multiple-choice questions in TRL's format."""
    rows = {
        "id": [f"q{i}" for i in range(count)],
        "prompt": [[{"role": "user", "content": f"What does image {i} show?"}] for i in range(count)],
        "answer": ["A"] * count,
        "options": [["MRI", "CT"]] * count,
        "modality": ["MRI"] * count,
        "task": ["Modality Recognition"] * count,
    }
    if images:
        rows["images"] = [[tiny_image(i)] for i in range(count)]
    return Dataset.from_dict(rows)


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
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            gradient_checkpointing=False,
            disable_tqdm=True,
            seed=3,
        )
        return KEPOConfig(**{**defaults, **fields})

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

    monkeypatch.setattr("kepo.trainer.seams.sample_completions", sample)
    return asked
