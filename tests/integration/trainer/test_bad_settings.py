"""Settings that cannot work fail before any training step, with a sentence that says what to change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from trl import GRPOConfig

from kepo import KEPOConfig, KEPOTrainer, LocalTeacher, ScriptedTeacher
from kepo.errors import ConfigError, DataError, TeacherError
from tests.tiny_models import build_text_model, build_tokenizer
from tests.tiny_runs import even_start, questions


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_injected": 5}, ["num_injected", "5", "4"]),
        ({"gate": "sometimes"}, ["gate", "'sometimes'", "trajectory"]),
        ({"exploration": "wander"}, ["wander", "hint"]),
        ({"exploration_attempts": 0}, ["0", "1"]),
        ({"divergence_interpolation": 1.5}, ["divergence_interpolation", "1.5", "between 0 and 1"]),
        ({"divergence_temperature": 0.0}, ["divergence_temperature", "greater than 0"]),
        ({"injection_correction": "magic"}, ["injection_correction", "shaped"]),
        ({"injection_context": "hinted", "injection_correction": "importance"}, ["injection_context", "none"]),
        ({"policy_weight": 0.0, "distillation_weight": 0.0}, ["policy_weight", "nothing"]),
        ({"gate": "token", "gate_min_probability": 1.0}, ["gate_min_probability", "below 1"]),
        ({"distillation_weight": -1.0}, ["distillation_weight", "-1.0"]),
    ],
)
def test_a_config_that_cannot_work(config: Callable[..., KEPOConfig], fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        config(**fields)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"gate_reward": "truth"}, ["gate_reward", "'truth'", "even_start", "total"]),
        ({"correctness_reward": "truth"}, ["correctness_reward", "'truth'", "even_start"]),
        ({"teacher": None}, ["teacher", "distillation_weight"]),
        ({"teacher": None, "distillation_weight": 0.0}, ["hint", "resample"]),
        ({"dataset": questions().select([])}, ["train_dataset", "no rows"]),
    ],
)
def test_a_trainer_that_cannot_work(
    make_trainer: Callable[..., KEPOTrainer], fields: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises((ConfigError, DataError)) as error:
        make_trainer((even_start,), **fields)
    for word in words:
        assert word in str(error.value)


def test_a_teacher_of_another_vocabulary_is_refused(make_trainer: Callable[..., KEPOTrainer], tmp_path: Path) -> None:
    stranger = build_text_model(tmp_path / "stranger", "llama", tokenizer=build_tokenizer(["<extra>"]))
    with pytest.raises(TeacherError, match="tokenizer"):
        make_trainer(teacher=LocalTeacher(str(stranger)))


def test_a_teacher_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"config\.json"):
        LocalTeacher(str(tmp_path))


def test_a_processor_without_chat_template(make_trainer: Callable[..., KEPOTrainer], tmp_path: Path) -> None:
    folder = build_text_model(tmp_path / "bare", "llama", tokenizer=build_tokenizer(chat_template=None))
    with pytest.raises(ConfigError, match="chat template"):
        make_trainer(model=str(folder), teacher=ScriptedTeacher(hints=[""]), distillation_weight=0.0)


def test_save_steps_is_moved_to_where_a_checkpoint_can_be_resumed(config: Callable[..., KEPOConfig]) -> None:
    made = config(save_strategy="steps", save_steps=5, num_iterations=3, max_steps=10)
    assert made.save_steps == 6


def test_without_accelerator_no_flag_is_needed(tmp_path: Path) -> None:
    import torch

    if torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    made = KEPOConfig(output_dir=str(tmp_path))
    assert made.use_cpu
    assert made.bf16 is False


def test_the_reward_of_a_group_without_ground_truth(make_trainer: Callable[..., KEPOTrainer]) -> None:
    """A reward that does not apply (None) is no failure: such a group is not explored."""

    def not_applicable(completions: Any, **_: Any) -> list[float | None]:
        return [None] * len(completions)

    dataset: Dataset = questions()
    trainer = make_trainer((not_applicable, even_start), dataset=dataset)
    trainer.train()
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert log["exploration/all_failed_groups"] == 0.0
    assert log["gate/open_share"] == 0.0


def test_a_teacher_without_chat_template_is_refused_before_training(
    make_trainer: Callable[..., KEPOTrainer], tmp_path: Path
) -> None:
    bare = build_text_model(tmp_path / "bare", "llama", tokenizer=build_tokenizer(chat_template=None))
    with pytest.raises(TeacherError, match="chat template"):
        make_trainer(teacher=LocalTeacher(str(bare)))


@pytest.mark.parametrize(
    ("save", "evaluate", "expected"), [(2, 2, (3, 3)), (4, 2, (6, 3)), (6, 2, (6, 2)), (3, 3, (3, 3)), (8, 4, (12, 6))]
)
def test_the_best_weights_are_looked_for_where_they_are_saved(
    config: Callable[..., KEPOConfig], save: int, evaluate: int, expected: tuple[int, int]
) -> None:
    fields = {"save_strategy": "steps", "eval_strategy": "steps", "num_iterations": 3, "max_steps": 24}
    made = config(load_best_model_at_end=True, save_steps=save, eval_steps=evaluate, num_generations_eval=4, **fields)
    assert (made.save_steps, made.eval_steps) == expected
    alone = config(save_steps=save, eval_steps=evaluate, num_generations_eval=4, **fields)
    assert alone.eval_steps == evaluate, "without a choice of weights, evaluation stays where it was asked for"


def test_a_run_too_short_to_choose_weights_is_refused(config: Callable[..., KEPOConfig]) -> None:
    fields = {"save_strategy": "steps", "eval_strategy": "steps", "num_iterations": 3, "num_generations_eval": 4}
    with pytest.raises(ConfigError, match="Raise max_steps to at least 3"):
        config(load_best_model_at_end=True, save_steps=2, eval_steps=2, max_steps=2, **fields)
    with pytest.raises(ConfigError, match=r"eval_steps is 0\.5, a share of the run"):
        config(load_best_model_at_end=True, save_steps=2, eval_steps=0.5, max_steps=8, **fields)


def test_every_best_checkpoint_can_be_resumed(config: Callable[..., KEPOConfig]) -> None:
    fields = {"save_strategy": "best", "eval_strategy": "steps", "metric_for_best_model": "eval_reward"}
    made = config(num_iterations=3, eval_steps=2, max_steps=9, num_generations_eval=4, **fields)
    assert made.eval_steps == 3


def test_a_script_that_says_use_cpu_trains_in_the_precision_of_trl(tmp_path: Path) -> None:
    assert KEPOConfig(str(tmp_path), use_cpu=True).bf16 is GRPOConfig(str(tmp_path), use_cpu=True).bf16 is True
    assert KEPOConfig(str(tmp_path), use_cpu=True, bf16=False).bf16 is False
