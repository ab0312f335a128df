"""What the trainer must equal: TRL's GRPO, TRL's distillation, itself under other batch shapes, itself resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from trl import DistillationConfig, DistillationTrainer, GRPOConfig, GRPOTrainer

from kepo import KEPOTrainer
from tests.tiny_runs import even_start, questions, well_formed


def _weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}


def _assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], **tolerance: float) -> None:
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], **(tolerance or {"rtol": 0, "atol": 0}), msg=name)


@pytest.mark.parametrize("images", [False, True], ids=["text", "images"])
@pytest.mark.parametrize(
    "fields", [{}, {"beta": 0.1, "gradient_accumulation_steps": 2}], ids=["plain", "kl+accumulation"]
)
def test_without_teacher_and_exploration_it_is_trl_grpo_bit_for_bit(
    make_trainer: Callable[..., KEPOTrainer], student: str, vlm: str, tmp_path: Path, fields: Any, images: bool
) -> None:
    model = vlm if images else student
    ours = make_trainer(
        (even_start, well_formed),
        model=model,
        dataset=questions(images=images),
        teacher=None,
        exploration="none",
        distillation_weight=0.0,
        max_steps=3,
        **fields,
    )
    ours.train()
    args = GRPOConfig(
        output_dir=str(tmp_path / "grpo"),
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=6,
        learning_rate=1e-2,
        max_steps=3,
        save_strategy="no",
        report_to="none",
        gradient_checkpointing=False,
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        seed=3,
        **fields,
    )
    theirs = GRPOTrainer(model, [even_start, well_formed], args, questions(images=images))
    theirs.train()
    _assert_same(_weights(ours), _weights(theirs))
    start = (AutoModelForImageTextToText if images else AutoModelForCausalLM).from_pretrained(model)
    moved = [not torch.equal(p, start.get_parameter(n)) for n, p in ours.model.named_parameters()]
    assert any(moved), "nothing was trained, so equality would mean nothing"


@pytest.mark.parametrize("interpolation", [0.0, 0.5, 1.0])
def test_an_open_gate_without_policy_term_is_trl_distillation(
    make_trainer: Callable[..., KEPOTrainer], student: str, teacher_folder: str, tmp_path: Path, interpolation: float
) -> None:
    ours = make_trainer(
        exploration="none", gate="always", policy_weight=0.0, divergence_interpolation=interpolation, max_steps=2
    )
    batches: list[dict[str, Any]] = []
    losses: list[torch.Tensor] = []
    compute = ours.compute_batch_loss

    def remember(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        loss = compute(model, inputs)
        batches.append({k: inputs[k] for k in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")})
        batches[-1]["num_items_in_batch"] = inputs["num_items_in_batch"]
        losses.append(loss.detach())
        return loss

    ours.compute_batch_loss = remember
    args = DistillationConfig(
        output_dir=str(tmp_path / "opd"),
        per_device_train_batch_size=8,
        max_completion_length=6,
        beta=interpolation,
        report_to="none",
        gradient_checkpointing=False,
        use_cpu=True,
        bf16=False,
    )
    theirs = DistillationTrainer(
        model=AutoModelForCausalLM.from_pretrained(student),
        teacher_model=AutoModelForCausalLM.from_pretrained(teacher_folder),
        args=args,
        train_dataset=questions(),
        processing_class=ours.processing_class,
    )
    ours.train()
    theirs.model.train()
    expected = theirs.compute_loss(theirs.model, batches[0])  # the first batch met the same, untrained student
    torch.testing.assert_close(losses[0], expected.detach(), rtol=1e-5, atol=1e-6)
    assert expected > 1e-3


@pytest.mark.parametrize("normalization", ["gated", "all"])
def test_one_batch_of_eight_equals_eight_of_one(make_trainer: Callable[..., KEPOTrainer], normalization: str) -> None:
    fields = {"exploration": "none", "distillation_normalization": normalization, "max_steps": 2, "learning_rate": 1e-3}
    whole = make_trainer(per_device_train_batch_size=8, gradient_accumulation_steps=1, **fields)
    whole.train()
    pieces = make_trainer(per_device_train_batch_size=1, gradient_accumulation_steps=8, **fields)
    pieces.train()
    _assert_same(_weights(whole), _weights(pieces), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_run_that_was_killed_and_resumed_ends_in_the_same_weights(
    make_trainer: Callable[..., KEPOTrainer], tmp_path: Path, stop: int
) -> None:
    fields = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1, "exploration_attempts": 2}
    whole = make_trainer(output_dir=str(tmp_path / "whole"), **fields)
    whole.train()

    class KilledError(Exception):
        pass

    killed = make_trainer(output_dir=str(tmp_path / "killed"), **fields)
    step = killed.training_step

    def die(*args: Any, **kwargs: Any) -> Any:
        if killed.state.global_step == stop:
            raise KilledError
        return step(*args, **kwargs)

    killed.training_step = die
    with pytest.raises(KilledError):
        killed.train()
    resumed = make_trainer(output_dir=str(tmp_path / "killed"), **fields)
    resumed.train(resume_from_checkpoint=True)
    _assert_same(_weights(whole), _weights(resumed))


def test_a_vision_language_model_goes_on_from_its_own_weights(
    make_trainer: Callable[..., KEPOTrainer], vlm: str, tmp_path: Path
) -> None:
    # Its weights have other names on disk than in memory, where transformers' own trainer does not find them.
    fields: dict[str, Any] = {"model": vlm, "teacher": None, "exploration": "none", "distillation_weight": 0.0}
    fields |= {"max_steps": 3, "save_strategy": "steps", "save_steps": 1}
    whole = make_trainer(dataset=questions(images=True), output_dir=str(tmp_path / "whole"), **fields)
    whole.train()
    again = make_trainer(dataset=questions(images=True), output_dir=str(tmp_path / "again"), **fields)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-1"))
    _assert_same(_weights(whole), _weights(again))
