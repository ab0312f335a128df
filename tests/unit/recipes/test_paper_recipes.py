"""The recipes of the paper hold the published values, and their batches are the published ones on 1, 4 and 8 GPUs."""

from __future__ import annotations

from typing import Any

import pytest
from trl import SFTConfig
from trl.experimental.gold import GOLDConfig
from trl.trainer.utils import RepeatSampler

from kepo.planning.settings import schedule_of
from kepo.recipes.files import read_recipes, shipped_recipes
from kepo.recipes.recipe import Recipe, load_recipe
from kepo.rewards import get_rewards
from kepo.trainer.config import TOTAL_REWARD, KEPOConfig

# What every arm with rollouts shares. Where a value is from is written beside it in paper/_base.yaml.
PUBLISHED: dict[str, Any] = {
    "model.model_name_or_path": "Qwen/Qwen3-VL-2B-Instruct",
    "teacher.teacher_model_name_or_path": "Qwen/Qwen3-VL-32B-Instruct",
    "teacher.teacher_dtype": "bfloat16",
    "data.modality": "MRI",
    "data.num_train": 600,
    "data.image_size": 384,
    "data.split_seed": 42,
    "training.bf16": True,
    "training.max_completion_length": 1024,
    "training.temperature": 0.9,
    "training.top_p": 0.95,
    "training.top_k": 0,
    "training.beta": 0.0,
    "training.loss_type": "grpo",
    "training.save_steps": 10,
    "training.divergence_interpolation": 0.5,
    "training.divergence_temperature": 1.0,
    "training.distillation_normalization": "gated",
    "training.gate_reward": TOTAL_REWARD,
    "training.correctness_reward": "choice_accuracy",
    "training.gradient_checkpointing": True,
}
GROUPS = {"training.num_generations": 8, "training.per_device_train_batch_size": 4}
THINK = {"data.prompt_style": "think", "run.reward_funcs": ["choice_accuracy", "think_format"]}
ANSWER = {"data.prompt_style": "answer", "run.reward_funcs": ["choice_accuracy", "answer_format"]}
HINTS = {
    "training.exploration": "hint",
    "training.exploration_trigger": "all_failed",
    "training.num_injected": 2,
    "training.exploration_attempts": 5,
    "training.hint_leak_policy": "allow",
    "training.injection_context": "original",
    "training.injection_correction": "none",
    "teacher.hint_max_new_tokens": 1024,
    "teacher.hint_temperature": 0.9,
}
NO_HINTS = {"training.exploration": "none"}
LEARNING = "training.learning_rate"
EPOCHS = "training.num_train_epochs"
GATED = {"training.gate": "trajectory", "training.policy_weight": 1.0, "training.distillation_weight": 1.0}
GKD = {
    "training.gate": "always", "training.policy_weight": 0.0, "training.distillation_weight": 1.0,
    "training.num_generations": 2, LEARNING: 1e-6, EPOCHS: 1, **NO_HINTS,
}  # fmt: skip

ARMS: dict[str, dict[str, Any]] = {
    "grpo": {"training.distillation_weight": 0.0, LEARNING: 1e-6, EPOCHS: 5, **GROUPS, **THINK, **NO_HINTS},
    "grpo-nothink": {"training.distillation_weight": 0.0, LEARNING: 1e-6, EPOCHS: 1, **GROUPS, **ANSWER, **NO_HINTS},
    "gkd-lambda0": {"training.lmbda": 0.0, **GKD, **ANSWER},
    "gkd-lambda0.5": {"training.lmbda": 0.5, **GKD, **ANSWER},
    "gkd-lambda1": {"training.lmbda": 1.0, **GKD, **THINK},
    **{
        f"gated-opd-tau{tau}": {
            "training.gate_threshold": float(tau), LEARNING: 1e-6, EPOCHS: 5, **GROUPS, **GATED, **THINK, **NO_HINTS,
        }
        for tau in (0, 1)
    },
    **{
        f"kepo-tau{tau}": {
            "training.gate_threshold": float(tau), LEARNING: 2e-6, EPOCHS: 5, **GROUPS, **GATED, **THINK, **HINTS,
        }
        for tau in (0, 1)
    },
}  # fmt: skip


def _value(recipe: Recipe, name: str) -> Any:
    part, field = name.split(".")
    return getattr(getattr(recipe, part), field)


def test_every_arm_of_the_paper_is_shipped() -> None:
    shipped = {name.removeprefix("paper/") for name in shipped_recipes() if name.startswith("paper/")}
    assert shipped == {*ARMS, "sft"}


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_holds_the_published_values(arm: str) -> None:
    recipe = load_recipe(f"paper/{arm}")
    assert isinstance(recipe.training, KEPOConfig)
    wrong = {
        name: (_value(recipe, name), value)
        for name, value in {**PUBLISHED, **ARMS[arm]}.items()
        if _value(recipe, name) != value
    }
    assert wrong == {}
    assert len(get_rewards(recipe.run.reward_funcs)) == 2
    assert recipe.training.output_dir == f"runs/paper-{arm}"
    assert recipe.data.data_path == "data/omnimedvqa/train"


def test_sampling_is_that_of_trls_gold() -> None:
    gold, ours = GOLDConfig(output_dir="x", use_cpu=True, bf16=False), load_recipe("paper/kepo-tau1").training
    assert isinstance(ours, KEPOConfig)
    assert (ours.temperature, ours.top_p, ours.top_k) == (gold.temperature, gold.top_p, gold.top_k)
    assert ours.divergence_interpolation == gold.beta


def test_supervised_training_answers_without_reasoning() -> None:
    recipe = load_recipe("paper/sft")
    assert isinstance(recipe.training, SFTConfig)
    assert recipe.data.prompt_style == "answer"
    assert recipe.training.loss_type == "nll"
    assert recipe.training.learning_rate == 2e-5
    assert recipe.training.lr_scheduler_type == "cosine"
    assert recipe.data.num_train == 600


# arm -> GPUs -> prompts of a step, steps of an epoch, steps, questions left out of an epoch
BATCHES = {
    "kepo-tau1": {1: (2, 300, 1500, 0), 4: (8, 75, 375, 0), 8: (16, 37, 185, 8)},
    "grpo": {1: (2, 300, 1500, 0), 4: (8, 75, 375, 0), 8: (16, 37, 185, 8)},
    "grpo-nothink": {1: (2, 300, 300, 0), 4: (8, 75, 75, 0), 8: (16, 37, 37, 8)},
    "gkd-lambda1": {1: (2, 300, 300, 0), 4: (8, 75, 75, 0), 8: (16, 37, 37, 8)},
    "sft": {1: (2, 300, 300, 0), 4: (8, 75, 75, 0), 8: (16, 38, 38, 0)},
}


@pytest.mark.parametrize("gpus", [1, 4, 8])
@pytest.mark.parametrize("arm", BATCHES)
def test_two_prompts_per_gpu_and_step(arm: str, gpus: int) -> None:
    schedule = schedule_of(load_recipe(f"paper/{arm}"), gpus)
    assert schedule is not None
    expected = (schedule.prompts_per_step, schedule.steps_per_epoch, schedule.steps, schedule.left_out)
    assert expected == BATCHES[arm][gpus]
    assert schedule.prompts_per_step == 2 * gpus


@pytest.mark.parametrize("gpus", [1, 4, 8])
def test_the_arithmetic_is_that_of_trls_sampler(gpus: int) -> None:
    args = load_recipe("paper/kepo-tau1").training
    assert isinstance(args, KEPOConfig)
    micro, steps = args.per_device_train_batch_size, args.steps_per_generation
    sampler = RepeatSampler(
        range(600),
        mini_repeat_count=args.num_generations,
        batch_size=micro * steps * gpus // args.num_generations,
        repeat_count=args.num_iterations * steps,
    )
    schedule = schedule_of(load_recipe("paper/kepo-tau1"), gpus)
    assert schedule is not None
    # A dataloader batch of TRL holds a whole generation batch, once for every micro-batch.
    assert len(sampler) // (micro * steps * gpus) == schedule.steps_per_epoch * args.gradient_accumulation_steps


OWN = [name for name in shipped_recipes() if name.startswith("kepo/")]


def test_our_own_arms_are_shipped() -> None:
    served = {"kepo/kepo-served", "kepo/kepo-vllm-colocate", "kepo/kepo-vllm-server"}
    arms = {name.removeprefix("arms/") for name in shipped_recipes() if name.startswith("arms/")}
    assert {"grpo", "grpo-gated", "grpo-uniform", "hints-only", "kepo", "kepo-resample", "opd", "sft"} < arms
    assert served | {f"kepo/{arm}{variant}" for arm in arms for variant in ("", "-lora")} == set(OWN)


@pytest.mark.parametrize("name", OWN)
def test_our_own_settings_hold_for_every_arm(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.data.num_eval == 100
    assert recipe.training.eval_strategy == "steps"
    assert recipe.training.save_steps == recipe.training.eval_steps
    assert recipe.training.output_dir == f"runs/kepo-{name.removeprefix('kepo/')}"
    if isinstance(recipe.training, KEPOConfig):
        assert recipe.training.correctness_reward == "choice_accuracy"
        assert recipe.training.gate_reward is None  # correctness alone
        assert recipe.training.hint_leak_policy == "ask_again"
        assert recipe.training.temperature == 1.0
        assert recipe.training.share_image_features


def test_our_own_arms_differ_in_their_arm_only() -> None:
    kepo, grpo = read_recipes("kepo/kepo"), read_recipes("kepo/grpo")
    different = {name for name in kepo.keys() | grpo.keys() if kepo.get(name) != grpo.get(name)}
    assert different == {"output_dir", "exploration", "distillation_weight", "gate"}


@pytest.mark.parametrize("mode", ["colocate", "server"])
def test_the_variants_with_vllm_differ_in_who_makes_the_rollouts_only(mode: str) -> None:
    plain, vllm = read_recipes("kepo/kepo"), read_recipes(f"kepo/kepo-vllm-{mode}")
    different = {name for name in plain.keys() | vllm.keys() if plain.get(name) != vllm.get(name)}
    assert {name for name in different if "vllm" not in name} == {"output_dir"}
    training = load_recipe(f"kepo/kepo-vllm-{mode}").training
    assert isinstance(training, KEPOConfig)
    assert training.use_vllm
    assert training.vllm_mode == mode


def test_a_colocated_vllm_has_room_for_hinted_prompts() -> None:
    training = load_recipe("kepo/kepo-vllm-colocate").training
    assert isinstance(training, KEPOConfig)
    assert training.vllm_max_model_length is not None
    # The rest is for the prompt: 144 image tokens, question, options, what is asked for.
    needed = load_recipe("kepo/kepo-vllm-colocate").teacher.hint_max_new_tokens + training.max_completion_length
    assert training.vllm_max_model_length - needed >= 512


def test_the_lora_variant_is_for_one_gpu() -> None:
    recipe = load_recipe("kepo/kepo-lora")
    config = recipe.peft_config()
    assert config.r == 32
    assert config.target_modules == "all-linear"
    assert recipe.teacher.teacher_load_in_4bit
    schedule = schedule_of(recipe, 1)
    assert schedule is not None
    assert schedule.prompts_per_step == 8
    assert load_recipe("kepo/kepo").peft_config() is None
