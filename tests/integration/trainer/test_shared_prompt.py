"""The prompt once per group, and rows without gradient left out: the same loss and gradients, from fewer tokens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from trl.trainer.utils import add_fused_lm_head

from kepo import KEPOTrainer, LocalTeacher
from kepo.models.packing import TokenRow, rows_of
from kepo.models.shared_prompt import SharedPrompt, difference
from kepo.trainer.adapter.forward import add_token_pass
from kepo.trainer.adapter.passes import PassSettings, StudentPasses, _read
from tests.tiny_models import (
    ARCHITECTURES_TEXT,
    ARCHITECTURES_VLM,
    UnavailableHere,
    build_qwen_vl_model,
    build_text_model,
    build_vlm,
)
from tests.tiny_runs import even_start, questions, well_formed

PLAIN: dict[str, Any] = {"share_prompt": False, "skip_idle_rows": False}


def _batch(trainer: KEPOTrainer) -> dict[str, Any]:
    """The micro-batch of the first step."""
    rows = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    return trainer._prepare_inputs(rows)


def _gradients(trainer: KEPOTrainer, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    trainer.model.train()
    trainer.model.zero_grad()
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    trainer.compute_loss(trainer.model, batch).backward()
    return {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}


def _assert_close(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], least: float = 1e-6) -> None:
    """Equal up to rounding, which is relative to the largest gradient: some are zero but for rounding."""
    assert left.keys() == right.keys()
    scale = max(float(value.abs().max()) for value in right.values())
    assert scale > least, "there is no gradient, so equality would mean nothing"
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-4, atol=1e-5 * scale, msg=name)


def _changes(trainer: KEPOTrainer) -> dict[str, torch.Tensor]:
    """What training changes."""
    start = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    return {name: p.detach() - start[name] for name, p in trainer.model.named_parameters()}


def _trainers(make_trainer: Callable[..., KEPOTrainer], **fields: Any) -> tuple[KEPOTrainer, KEPOTrainer]:
    """One that shares and skips, and one that does neither; both before their first step."""
    return make_trainer(**fields), make_trainer(**fields, **PLAIN)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES_TEXT, *ARCHITECTURES_VLM])
def test_loss_and_gradients_are_those_of_separate_rows(
    make_trainer: Callable[..., KEPOTrainer], tmp_path: Path, architecture: str
) -> None:
    """The whole loss with a half-open gate, on every architecture; the plain way is TRL's layout, row by row."""
    images = architecture in ARCHITECTURES_VLM
    try:
        build = build_vlm if images else build_text_model
        model = str(build(tmp_path / "student", architecture, seed=0))
    except UnavailableHere as reason:
        pytest.skip(str(reason))
    teacher = LocalTeacher(str(build(tmp_path / "teacher", architecture, seed=1)))
    shared, plain = _trainers(
        make_trainer,
        rewards=(even_start, well_formed),
        model=model,
        teacher=teacher,
        dataset=questions(images=images),
        exploration="none",
    )
    batch = _batch(plain)
    assert 0 < batch["gate_weights"].sum() < batch["completion_mask"].sum()
    expected = _gradients(plain, batch)
    _assert_close(_gradients(shared, batch), expected)
    assert shared.passes["student"].shares_prompts, "the check turned it off"


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "qwen3_vl"])
def test_positions_in_space_are_kept(tmp_path: Path, architecture: str) -> None:
    """Qwen-VL without its processor, which needs torchvision: ids, grids and patches as it would write them."""
    model = AutoModelForImageTextToText.from_pretrained(build_qwen_vl_model(tmp_path / "model", architecture)).train()
    config = model.config
    side = 2 * config.vision_config.spatial_merge_size
    image = [config.vision_start_token_id, *[config.image_token_id] * 4, config.vision_end_token_id]
    torch.manual_seed(0)
    patches = torch.randn(
        side * side, 3 * config.vision_config.temporal_patch_size * config.vision_config.patch_size**2
    )
    fields = {"pixel_values": patches, "image_grid_thw": torch.tensor([[1, side, side]])}
    prompt = (40, 41, *image, 42, 43, 44)
    types = {"mm_token_type_ids": tuple(int(token == config.image_token_id) for token in prompt)}
    rows = [TokenRow(prompt, tuple(range(50, 50 + length)), types, fields) for length in (3, 7, 5)]

    def gradients(shared: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        passes = _passes(model, shared)
        model.zero_grad()
        logps = passes.run(model, rows, 7, torch.device("cpu")).logps
        (logps * torch.linspace(-1, 1, logps.numel()).view_as(logps)).sum().backward()
        assert passes.shares_prompts is shared
        return logps.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    add_token_pass(model)
    logps, found = gradients(shared=True)
    expected_logps, expected = gradients(shared=False)
    torch.testing.assert_close(logps, expected_logps, rtol=1e-4, atol=1e-5)
    _assert_close(found, expected)


def _passes(model: Any, shared: bool) -> StudentPasses:
    from contextlib import nullcontext

    packs = SharedPrompt(model, 0, "student", enabled=shared)
    return StudentPasses(packs, PassSettings(1.0, float32_head=False), nullcontext, int)


@pytest.mark.parametrize(
    "fields",
    [
        {"beta": 0.1},
        {"loss_type": "grpo"},
        {"loss_type": "dr_grpo"},
        {"loss_type": "bnpo"},
        {"loss_type": "cispo", "epsilon_high": 5.0},
        {"loss_type": "sapo"},
        {"num_iterations": 2},
        {"entropy_coef": 0.01},
        {"top_entropy_quantile": 0.5},
        {"importance_sampling_level": "sequence"},
        {"gradient_checkpointing": True},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    ],
    ids=lambda fields: next(iter(fields)) + "=" + str(next(iter(fields.values()))),
)
def test_a_step_makes_the_same_weights(make_trainer: Callable[..., KEPOTrainer], fields: dict[str, Any]) -> None:
    """One optimizer step by plain gradient descent, with everything of TRL's that looks at rows or tokens."""
    options = {"optim": "sgd", "learning_rate": 0.5, "exploration": "none", "max_grad_norm": 0.0, **fields}
    rewards = (even_start, well_formed)
    shared = make_trainer(rewards, **options)
    changes = _changes(shared)  # before the other is made, because both draw from one random state
    _assert_close(changes, _changes(make_trainer(rewards, **options, **PLAIN)))
    assert shared.passes["student"].shares_prompts


def test_completions_that_are_masked_whole_have_no_tokens(make_trainer: Callable[..., KEPOTrainer]) -> None:
    """What `mask_truncated_completions` leaves of a cut rollout: no token that is attended to, none in the loss."""
    shared, plain = _trainers(make_trainer, rewards=(even_start, well_formed), exploration="none", gate="never")
    batch = _batch(plain)
    batch["completion_mask"][::2] = 0
    shared.use_token_passes(share_prompt=True)
    _assert_close(_gradients(shared, batch), _gradients(plain, batch))


def test_without_teacher_it_is_trl_grpo_up_to_rounding(make_trainer: Callable[..., KEPOTrainer]) -> None:
    options = {"teacher": None, "exploration": "none", "distillation_weight": 0.0, "optim": "sgd", "learning_rate": 0.5}
    fast = make_trainer((even_start, well_formed), share_prompt=True, skip_idle_rows=True, **options)
    changes = _changes(fast)
    trl = make_trainer((even_start, well_formed), **options)
    _assert_close(changes, _changes(trl))
    assert fast.passes
    assert not trl.passes
    logs = [trainer.state.log_history[0] for trainer in (fast, trl)]
    assert logs[0]["clip_ratio/high_max"] == logs[1]["clip_ratio/high_max"]


def test_a_lora_student_shares_prompts(make_trainer: Callable[..., KEPOTrainer]) -> None:
    shared, plain = _trainers(
        make_trainer,
        rewards=(even_start, well_formed),
        exploration="none",
        gradient_checkpointing=True,
        peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.0, init_lora_weights=False),
    )
    plain.model.load_state_dict(shared.model.state_dict())
    batch = _batch(plain)
    _assert_close(_gradients(shared, batch), _gradients(plain, batch))
    assert shared.passes["student"].shares_prompts


def test_rows_without_gradient_are_not_computed(make_trainer: Callable[..., KEPOTrainer]) -> None:
    """Groups of which all are right, or wrong, have no advantage; with a closed gate the decoder does not see them."""

    def first_group_mixed(completions: Any, **_: Any) -> list[float]:
        return [float(row in (0, 1)) for row in range(len(completions))]

    seen: list[int] = []
    trainer = make_trainer((first_group_mixed,), exploration="none", gate="never", skip_idle_rows=True)
    trainer.use_token_passes(share_prompt=False)
    batch = _batch(trainer)
    trainer.model.model.register_forward_hook(lambda _m, _a, output: seen.append(len(output.last_hidden_state)))
    gradients = _gradients(trainer, batch)
    assert seen == [4]
    [entropy] = trainer._metrics["train"]["entropy"]
    plain = make_trainer((first_group_mixed,), exploration="none", gate="never", skip_idle_rows=False)
    _assert_close(gradients, _gradients(plain, batch))
    batch["completion_mask"] = batch["completion_mask"] * batch["advantages"].ne(0).unsqueeze(1)
    _gradients(plain, batch)
    assert entropy == pytest.approx(plain._metrics["train"]["entropy"][-1], rel=1e-4)


def test_a_batch_without_any_gradient_has_zero_gradients(make_trainer: Callable[..., KEPOTrainer]) -> None:
    """The optimizer then does what it does with zeros, as with TRL; one token of one row is computed for it."""
    trainer = make_trainer((well_formed,), exploration="none", gate="never", skip_idle_rows=True)
    trainer.use_token_passes(share_prompt=True)
    batch = _batch(trainer)
    seen: list[int] = []
    trainer.model.model.register_forward_hook(lambda _m, _a, output: seen.append(output.last_hidden_state.shape[0]))
    gradients = _gradients(trainer, batch)
    assert seen == [1]
    assert gradients.keys() == {name for name, _ in trainer.model.named_parameters()}
    assert all(not gradient.any() for gradient in gradients.values())
    assert "entropy" not in trainer._metrics["train"], "no rollout was computed for the loss, so nothing is known of it"


def test_equal_rewards_have_no_advantage_whatever_their_sum(make_trainer: Callable[..., KEPOTrainer]) -> None:
    """The mean of three rewards of 1.7 is not 1.7, and the rest, divided by 0 + 1e-4, looks like an advantage."""

    def constant(completions: Any, **_: Any) -> list[float]:
        return [1.7] * len(completions)

    fields = {"exploration": "none", "gate": "never", "num_generations": 3, "per_device_train_batch_size": 6}
    trl = _batch(make_trainer((constant,), **fields))
    assert trl["advantages"].any()
    ours = _batch(make_trainer((constant,), skip_idle_rows=True, **fields))
    assert not ours["advantages"].any()


def test_micro_batches_hold_whole_groups(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer(
        exploration="none", per_device_train_batch_size=4, gradient_accumulation_steps=4, generation_batch_size=16
    )
    _batch(trainer)
    assert len(trainer._buffered_inputs) == 4
    prompts = [batch["prompt_ids"].tolist() for batch in trainer._buffered_inputs]
    assert all(row == rows[0] for rows in prompts for row in rows)
    assert len({str(rows[0]) for rows in prompts}) == 4


def test_every_pass_runs_the_image_tower_where_a_row_has_images() -> None:
    image = {"pixel_values": torch.ones(1, 3)}
    none = {"pixel_values": torch.ones(0, 3)}
    rows = [TokenRow((1,), (2, 3), images=none), TokenRow((4,), (5, 6), images=image), TokenRow((4,), (7, 8, 9))]
    assert list(_read(rows, None)) == [0, 1, 2]
    assert list(_read(rows, torch.tensor([True, False, False]))) == [1, 2]
    assert {row: read.completion for row, read in _read(rows, torch.tensor([False, True, False])).items()} == {
        0: (2, 3),
        1: (5,),
        2: (7, 8, 9),
    }
    assert list(_read(rows, torch.tensor([True, True, True]))) == [1]


def test_a_model_that_reads_packs_otherwise_turns_them_off(
    student: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder that ignores the mask: completions would see each other."""
    model = AutoModelForCausalLM.from_pretrained(student)
    add_token_pass(model)
    passes = _passes(model, shared=True)
    forward = model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda **inputs: forward(**{**inputs, "attention_mask": None}))
    rows = [TokenRow(tuple(range(30, 60)), tuple(range(60 + 7 * i, 66 + 7 * i))) for i in range(3)]
    with caplog.at_level(logging.WARNING, logger="kepo"):
        logps = passes.run(model, rows, 6, torch.device("cpu")).logps
        passes.run(model, rows, 6, torch.device("cpu"))
    said = [record.message for record in caplog.records if "once per rollout" in record.message]
    assert len(said) == 1
    assert "log-probabilities differ" in said[0]
    assert not passes.shares_prompts
    torch.testing.assert_close(logps, _passes(model, shared=False).run(model, rows, 6, torch.device("cpu")).logps)


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=["autocast", "bfloat16"])
def test_rounding_in_half_precision_turns_nothing_off(
    make_trainer: Callable[..., KEPOTrainer], student: str, teacher_folder: str, weights: torch.dtype
) -> None:
    """Log-probabilities are float32 whatever the model computes in, and differ by what bfloat16 rounds."""
    trainer = make_trainer(
        (even_start, well_formed),
        model=AutoModelForCausalLM.from_pretrained(student, dtype=weights),
        teacher=LocalTeacher(teacher_folder, dtype=torch.bfloat16),
        exploration="none",
        gate="always",
        bf16=weights == torch.float32,
        num_generations=8,
        per_device_train_batch_size=16,
    )
    trainer._prefill._least = 1
    trainer.train()
    assert trainer.passes["student"].shares_prompts
    assert trainer.teacher._shared.enabled
    assert trainer.teacher._shared._checked
    assert trainer._prefill.enabled
    assert trainer._prefill._checked


def test_the_tolerance_is_that_of_what_the_model_computes_in() -> None:
    plain = torch.zeros(4)
    for half, kept, told in ((False, 5e-4, 2e-3), (True, 0.05, 0.2)):
        assert difference(plain + kept, plain, half=half) is None
        assert "more than rounding" in str(difference(plain + told, plain, half=half))
        assert difference(plain * float("nan"), plain, half=half) is not None


def test_a_model_that_refuses_masks_turns_them_off(student: str, caplog: pytest.LogCaptureFixture) -> None:
    model = AutoModelForCausalLM.from_pretrained(student)
    add_token_pass(model)
    passes = _passes(model, shared=True)
    forward = model.model.forward

    def two_dimensional_only(**inputs: Any) -> Any:
        if inputs["attention_mask"].ndim != 2:
            raise ValueError("wrong shape for attention_mask")
        return forward(**inputs)

    model.model.forward = two_dimensional_only
    rows = [TokenRow(tuple(range(30, 60)), (60 + i,)) for i in range(3)]
    passes.run(model, rows, 1, torch.device("cpu"))
    assert not passes.shares_prompts
    assert "does not take them (ValueError: wrong shape for attention_mask)" in caplog.text


def test_what_the_configuration_tells_turns_it_off_at_once(student: str, caplog: pytest.LogCaptureFixture) -> None:
    model = AutoModelForCausalLM.from_pretrained(student)
    model.config._attn_implementation = "flash_attention_2"
    assert not SharedPrompt(model, 0, "student").enabled
    assert "'flash_attention_2' takes no block mask; use one of sdpa" in caplog.text
    tuned = get_peft_model(
        AutoModelForCausalLM.from_pretrained(student),
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
    )
    assert not SharedPrompt(tuned, 0, "student").enabled
    assert "virtual tokens" in caplog.text


def test_the_passes_are_trl_s_own_layout_when_nothing_is_shared(student: str) -> None:
    """Log-probabilities and entropies as TRL's fused head computes them from padded rows."""
    model = AutoModelForCausalLM.from_pretrained(student)
    add_fused_lm_head(model, temperature=0.7, outputs=("log_probs", "entropy"))
    ids = torch.randint(30, 90, (3, 10))
    mask = torch.ones_like(ids)
    mask[0, :2] = mask[1, 8:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :6] = -100
    trl = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
    add_token_pass(model)
    passes = _passes(model, shared=False)
    passes._settings = PassSettings(0.7, float32_head=False)
    found = passes.run(model, rows_of(ids, mask, 4, {}), 4, torch.device("cpu"), entropy=True)
    torch.testing.assert_close(found.logps, trl.log_probs[:, -4:], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.entropies, trl.entropy[:, -4:], rtol=1e-5, atol=1e-6)
