"""The memory of one GPU, by hand where a hand can, and what is said to make it fit."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from kepo.planning.memory import GIB, STEP, MemoryPlan, combined_changes, plan_memory, single_changes
from kepo.planning.settings import Launch, PlanSettings, load_for_gpu, settings_of
from kepo.recipes.files import shipped_recipes

STUDENT, TEACHER = 2_127_532_032, 33_357_390_064


@cache
def settings(
    recipe: str = "paper/kepo-tau1", strategy: str = "zero3", gpus: int = 8, overrides: tuple[str, ...] = ()
) -> PlanSettings:
    return settings_of(load_for_gpu(recipe, overrides), Launch(strategy, gpus), 80.0)


def parts(plan: MemoryPlan, phase: str | None = None) -> dict[str, int]:
    return {part.name: part.bytes for part in plan.parts if phase is None or part.phase == phase}


def test_zero3_spreads_all_that_lies_in_memory() -> None:
    found = parts(plan_memory(settings()))
    assert found["student weights"] == 2 * STUDENT // 8
    assert found["teacher weights"] == 2 * TEACHER // 8
    assert found["optimizer states"] == 12 * STUDENT // 8
    assert found["gradients"] == 2 * STUDENT // 8
    assert found["teacher output head"] == 151936 * 5120 * 2


def test_zero2_keeps_student_and_teacher_whole() -> None:
    found = parts(plan_memory(settings(strategy="zero2")))
    assert found["student weights"] == 2 * STUDENT
    assert found["teacher weights"] == 2 * TEACHER
    assert found["optimizer states"] == 12 * STUDENT // 8
    assert "gathered weights" not in found


def test_one_gpu_trains_in_float32_under_autocast() -> None:
    found = parts(plan_memory(settings(strategy="single", gpus=1)))
    assert found["student weights"] == found["gradients"] == 4 * STUDENT
    assert found["optimizer states"] == 8 * STUDENT


def test_ddp_has_its_buckets_and_fsdp_its_shards() -> None:
    assert parts(plan_memory(settings(strategy="ddp")))["gradients"] == 2 * 4 * STUDENT
    fsdp = parts(plan_memory(settings(strategy="fsdp")))
    assert fsdp["gradients"] == fsdp["student weights"] == 4 * STUDENT // 8


def test_a_cache_of_the_papers_rollouts() -> None:
    # 28 layers x 16 rollouts x (256 text + 144 image + 1024) tokens x 8 heads x 128 x (2 + 2) bytes
    assert parts(plan_memory(settings()))["key-value cache"] == 28 * 16 * 1424 * 8 * 128 * 4


def test_an_arm_without_teacher_has_none() -> None:
    plan = plan_memory(settings("paper/grpo"))
    assert not [name for name in parts(plan) if "teacher" in name]
    assert plan.phases == ("rollouts", "step")


def test_supervised_training_has_no_rollouts() -> None:
    assert plan_memory(settings("paper/sft")).phases == ("step",)


def test_a_reference_is_loaded_when_beta_is_above_zero() -> None:
    plan = plan_memory(settings("paper/grpo", overrides=("--beta", "0.01")))
    assert parts(plan)["reference weights"] == 2 * STUDENT // 8


def test_checkpointing_halves_the_activations_at_least() -> None:
    with_it = parts(plan_memory(settings()), STEP)
    without = parts(plan_memory(replace(settings(), checkpointing=False)), STEP)
    assert with_it["activations"] + with_it["one layer computed again"] < without["activations"] / 5


def test_shared_images_are_encoded_once() -> None:
    planned = settings()  # 16 rollouts of 2 prompts, 4 rows a pass, which hold one prompt
    assert planned.images_per_pass == 1
    assert replace(planned, share_images=False).images_per_pass == 2  # of 2 packs
    assert replace(planned, own_passes=False, share_prompt=False).images_per_pass == 2  # TRL shuffles the rollouts
    assert replace(planned, own_passes=False, share_prompt=False, share_images=False).images_per_pass == 4


def test_a_prompt_is_counted_once_for_each_pack() -> None:
    planned = settings()
    assert str(planned.training_pass) == "2 packs x 2448 tokens (4 rows)"  # 400 + 2 x 1024
    assert str(replace(planned, share_prompt=False).training_pass) == "4 rows x 1424 tokens"
    assert str(planned.scoring_pass) == "2 packs x 4496 tokens (8 rows)"  # 4 rows of each of 2 prompts
    assert str(settings("paper/grpo").training_pass) == "4 rows x 1424 tokens"


def test_flash_attention_reads_no_packs_and_adds_no_mask() -> None:
    planned = settings(overrides=("--attn_implementation", "flash_attention_2"))
    assert not planned.share_prompt
    assert "attention mask" not in parts(plan_memory(planned))
    # 2 x 2448 x 2448 entries: one of bool, an additive copy of 2 bytes in one layer
    assert parts(plan_memory(settings()))["attention mask"] == 2 * 2448 * 2448 * 3


def test_lora_trains_little_and_needs_no_reference() -> None:
    planned = settings("kepo/kepo-lora", "single", 1, ("--beta", "0.01"))
    adapter = planned.adapter
    assert adapter is not None
    assert adapter.tower
    # rank 32 on every linear layer apart from the output head
    assert adapter.parameters == 32 * planned.student.linear_widths
    found = parts(plan_memory(planned))
    assert found["optimizer states"] == 8 * adapter.parameters
    assert found["student weights"] == 2 * STUDENT
    assert "reference weights" not in found


def test_four_bit_leaves_embeddings_and_head_alone() -> None:
    planned = settings("kepo/kepo-lora", "single", 1)
    teacher = planned.teacher
    assert teacher is not None
    linear = teacher.model.linear_parameters
    weights = parts(plan_memory(planned))["teacher weights"]
    assert weights == int(linear * 0.5625) + 2 * (TEACHER - linear)
    assert 18 * GIB < weights < 21 * GIB


def test_a_colocated_vllm_takes_its_share_instead_of_a_cache() -> None:
    overrides = ("--use_vllm", "true", "--vllm_mode", "colocate", "--vllm_gpu_memory_utilization", "0.3")
    plan = plan_memory(settings("paper/grpo", overrides=overrides))
    assert parts(plan)["vLLM"] == int(0.3 * 80 * GIB)
    assert "key-value cache" not in parts(plan)
    asleep = plan_memory(settings("paper/grpo", overrides=(*overrides, "--vllm_enable_sleep_mode", "true")))
    assert asleep.total(STEP) == plan.total(STEP) - int(0.3 * 80 * GIB)


def test_a_vllm_server_makes_the_rollouts_elsewhere() -> None:
    plan = plan_memory(settings("kepo/kepo-vllm-server"))
    assert "vLLM" not in parts(plan)
    assert "key-value cache" not in parts(plan)
    # The largest parameter, the output head of 151,936 x 2,048, gathered in 16 bit.
    assert parts(plan)["weights on their way to vLLM"] == 151_936 * 2_048 * 2
    assert not any("vllm" in advice.change for advice in single_changes(settings("kepo/kepo-vllm-server")))


def test_a_teacher_of_its_own_device_takes_nothing_here() -> None:
    plan = plan_memory(settings("paper/kepo-tau1", "single", 1, ("--teacher_device", "cuda:1")))
    assert not [name for name in parts(plan) if "teacher" in name]


@pytest.mark.parametrize("recipe", [n for n in shipped_recipes() if n.startswith("paper/")])
def test_every_arm_of_the_paper_fits_eight_gpus_as_published(recipe: str) -> None:
    assert plan_memory(settings(recipe)).fits


def test_the_largest_phase_is_added_to_what_is_always_there() -> None:
    plan = plan_memory(settings())
    always = sum(part.bytes for part in plan.parts if part.phase == "always")
    assert plan.total("always") == always
    assert plan.peak == max(plan.total(phase) for phase in plan.phases) > always


def test_advice_that_is_given_makes_it_fit() -> None:
    tight = settings(strategy="single", gpus=1)
    assert not plan_memory(tight).fits
    changes = {advice.change: advice.plan for advice in single_changes(tight)}
    assert "teacher_load_in_4bit: true" in changes
    assert "--accelerate-config zero3-8gpu" in changes
    assert all(plan.fits for plan in changes.values())


def test_changes_are_combined_where_none_is_enough() -> None:
    small = replace(settings(strategy="single", gpus=1), gpu_memory=20.0)
    assert single_changes(small) == []
    steps = combined_changes(small)
    assert len(steps) > 1
    assert steps[-1].plan.fits
    assert [step.plan.peak for step in steps] == sorted((step.plan.peak for step in steps), reverse=True)


def test_what_cannot_fit_gets_no_advice() -> None:
    hopeless = replace(settings(strategy="single", gpus=1), gpu_memory=2.0)
    assert combined_changes(hopeless) == []


def test_a_machine_without_gpu_plans_for_one() -> None:
    assert load_for_gpu("smollm2/kepo").training.bf16 is True
    assert load_for_gpu("smollm2/kepo", ["--bf16", "false"]).training.bf16 is False
