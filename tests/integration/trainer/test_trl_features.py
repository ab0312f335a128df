"""Settings of TRL's that change its batch or its loss: the distillation loss beside them is what it must be.

In every micro-batch of a short run the loss is compared with TRL's loss without a teacher plus lambda times a
divergence that is written out here, in float64, from plain forwards of both models.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from kepo import KEPOTrainer, LocalTeacher
from tests.tiny_runs import even_start, has_magic, questions, well_formed

WEIGHT = 0.7  # lambda
TAUGHT: dict[str, Any] = {
    "exploration": "none",
    "gate": "always",
    "distillation_weight": WEIGHT,
    "divergence_interpolation": 0.0,
}


async def slow_even_start(completions: Any, completion_ids: list[list[int]], **_: Any) -> list[float]:
    """An async reward."""
    return even_start(completions, completion_ids)


def _train(trainer: KEPOTrainer, rtol: float = 1e-4) -> list[float]:
    """Train; in each micro-batch compare the loss, and return the distillation losses by hand."""
    compute, found = trainer.compute_batch_loss, []

    def compare(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        loss = compute(model, inputs)
        if not trainer.model.training:
            assert "gate_weights" not in inputs, "evaluation measures the policy alone"
            return loss
        with torch.no_grad():
            policy, _ = trainer.compute_policy_loss(model, inputs)
            expected = _divergence_by_hand(trainer, inputs)
        torch.testing.assert_close(loss - policy, WEIGHT * expected, rtol=rtol, atol=rtol)
        found.append(float(expected))
        return loss

    trainer.compute_batch_loss = compare  # type: ignore[method-assign]
    trainer.train()
    assert found, "nothing was trained"
    logged = [log["distillation/loss"] for log in trainer.state.log_history if "distillation/loss" in log]
    assert logged
    assert all(0 < value < float("inf") for value in logged)
    return found


def _divergence_by_hand(trainer: KEPOTrainer, inputs: dict[str, Any]) -> torch.Tensor:
    """KL(teacher || student) of the open tokens: this micro-batch's share of the mean over the optimizer step."""
    assert isinstance(trainer.teacher, LocalTeacher)
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    tokens = inputs["completion_ids"].size(1)
    logps = []
    for model in (trainer.model, trainer.teacher.model):
        with trainer.accelerator.autocast() if model is trainer.model else nullcontext():
            logits = model(input_ids=ids, attention_mask=mask).logits[:, -tokens - 1 : -1]
        logps.append(logits.double().log_softmax(-1))
    student, teacher = logps
    divergence = (teacher.exp() * (teacher - student)).sum(-1)  # (B, T)
    weights = inputs["gate_weights"].double()
    assert torch.equal(weights > 0, (inputs["completion_mask"] * inputs.get("tool_mask", 1)) > 0)
    share = trainer.current_gradient_accumulation_steps / trainer.args.steps_per_generation
    return ((divergence * weights).sum() / (inputs["gate_total"].double() * share)).float()


@pytest.mark.parametrize(
    "fields",
    [
        *({"loss_type": name} for name in ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "vespo")),
        {"loss_type": "luspo", "importance_sampling_level": "sequence"},
        {"loss_type": "grpo", "importance_sampling_level": "sequence"},
        {"delta": 1.5, "num_iterations": 2},
        {"epsilon_high": 0.3, "beta": 0.1},
        {"beta": 0.1, "use_bias_correction_kl": True, "num_iterations": 2},
        {"beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 1},
        {"top_entropy_quantile": 0.3},
        {"entropy_coef": 0.01},
        {"entropy_coef": 0.01, "use_adaptive_entropy": True},
        {"off_policy_mask_threshold": 0.5, "num_iterations": 2},
        {"per_device_train_batch_size": 4, "steps_per_generation": 2},
        {"per_device_train_batch_size": 4, "generation_batch_size": 16},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "steps_per_generation": 4},
        {"pad_to_multiple_of": 8},
        {"scale_rewards": "batch"},
        {"scale_rewards": "none"},
        {"scale_rewards": False},
        {"multi_objective_aggregation": "normalize_then_sum", "reward_weights": [1.0, 0.5]},
        {"reward_weights": [0.2, 3.0]},
        {"temperature": 0.7, "top_k": 20, "top_p": 0.9},
        {"gradient_checkpointing": True},
        {"disable_dropout": True, "shuffle_dataset": False},
        {"model_init_kwargs": {"attn_implementation": "eager"}},
        {"optim": "sgd", "max_grad_norm": 0.1, "weight_decay": 0.1, "lr_scheduler_type": "cosine"},
    ],
    ids=lambda fields: "+".join(f"{name}={value}" for name, value in fields.items())[:60],
)
def test_the_distillation_loss_beside_a_setting_of_trl(
    make_trainer: Callable[..., KEPOTrainer], fields: dict[str, Any]
) -> None:
    trainer = make_trainer((even_start, well_formed), max_steps=2, **TAUGHT, **fields)
    found = _train(trainer)
    assert all(value > 1e-3 for value in found)


def test_a_mean_over_a_step_is_the_same_however_it_is_cut(make_trainer: Callable[..., KEPOTrainer]) -> None:
    whole = _train(make_trainer(per_device_train_batch_size=8, **TAUGHT))
    cut = _train(make_trainer(per_device_train_batch_size=2, gradient_accumulation_steps=4, **TAUGHT))
    assert len(cut) == 4
    assert sum(cut) == pytest.approx(whole[0], rel=1e-4)


def test_cut_completions_that_are_masked_are_not_taught(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer(mask_truncated_completions=True, **TAUGHT)
    generate, make, taught = trainer.generate_rollouts, trainer.make_generation_batch, []

    def some_end(prompts: list[Any]) -> Any:
        rollouts = generate(prompts)
        for row, ids in enumerate(rollouts.completion_ids):
            ids[-1] = trainer.eos_token_ids[0] if row % 2 else 20
        return rollouts

    def remember(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = make(rows)
        taught.extend((batch["gate_weights"].sum(1) > 0).tolist())
        return batch

    trainer.generate_rollouts, trainer.make_generation_batch = some_end, remember  # type: ignore[method-assign]
    _train(trainer)
    assert taught == [False, True] * 4


def test_a_stream_of_rows(make_trainer: Callable[..., KEPOTrainer]) -> None:
    _train(make_trainer(dataset=questions().to_iterable_dataset(), max_steps=2, **TAUGHT))


@pytest.mark.parametrize("streamed", [False, True], ids=["in memory", "streamed"])
def test_several_evaluation_sets(make_trainer: Callable[..., KEPOTrainer], streamed: bool) -> None:
    held_out: Any = questions(4).to_iterable_dataset() if streamed else questions(4)
    trainer = make_trainer(
        eval_dataset={"near": held_out, "far": held_out},
        eval_strategy="steps",
        eval_steps=1,
        per_device_eval_batch_size=4,
        num_generations_eval=2,
        **TAUGHT,
    )
    _train(trainer)
    logged = [name for log in trainer.state.log_history for name in log]
    assert {"eval_near_loss", "eval_far_loss"} <= set(logged)
    assert logged.count("eval_rewards/even_start/mean") == 2


def test_async_rewards(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer((slow_even_start, well_formed), **{**TAUGHT, "exploration": "resample"})
    _train(trainer)
    assert 0 < trainer.state.log_history[0]["rewards/slow_even_start/mean"] < 1


@pytest.fixture
def reward_model(student: str, tmp_path: Path) -> str:
    folder = tmp_path / "reward"
    AutoModelForSequenceClassification.from_pretrained(student, num_labels=1).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (Path(student) / name).exists():
            shutil.copy(Path(student) / name, folder / name)
    return str(folder)


def test_a_reward_model(make_trainer: Callable[..., KEPOTrainer], reward_model: str) -> None:
    trainer = make_trainer((even_start, reward_model), **{**TAUGHT, "exploration": "resample"})
    _train(trainer)
    assert trainer.state.log_history[0]["rewards/reward/mean"] != 0
    alone = make_trainer((reward_model,), gate_reward="total", gate_threshold=-1e9, **TAUGHT)
    _train(alone)


def test_an_adapter_that_is_there(make_trainer: Callable[..., KEPOTrainer], student: str) -> None:
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(student), LoraConfig(r=4, target_modules="all-linear"))
    tokenizer = AutoTokenizer.from_pretrained(student)
    trainer = make_trainer(model=model, processing_class=tokenizer, beta=0.1, max_steps=2, **TAUGHT)
    frozen = trainer.model.get_base_model().lm_head
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if ".default." in n}
    _train(trainer)
    assert any(not torch.equal(trainer.model.get_parameter(name), value) for name, value in before.items())
    assert not frozen.weight.requires_grad


def test_bf16_on_the_cpu(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer(use_cpu=True, bf16=True, max_steps=2, **TAUGHT)
    assert trainer.accelerator.mixed_precision == "bf16"
    _train(trainer, rtol=0.05)


def test_weights_in_bf16(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer(use_cpu=True, bf16=True, model_init_kwargs={"dtype": "bfloat16"}, **TAUGHT)
    _train(trainer, rtol=0.05)


def test_completions_are_logged(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer((has_magic,), log_completions=True, num_completions_to_print=1, **TAUGHT)
    _train(trainer)
    files = sorted(Path(trainer.args.output_dir, "completions").glob("*.parquet"))
    assert files


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="torch.compile needs a compiler")
def test_a_compiled_student(make_trainer: Callable[..., KEPOTrainer]) -> None:
    _train(make_trainer(torch_compile=True, torch_compile_backend="eager", **TAUGHT))
