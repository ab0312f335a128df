"""From a recipe to its memory: the Python function behind `kepo plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kepo.errors import ConfigError
from kepo.planning.architecture import Architecture, load_architecture, load_meta_model
from kepo.planning.launch import Launch
from kepo.planning.memory import MemoryPlan, plan_memory
from kepo.planning.schedule import Schedule
from kepo.planning.settings import TEXT_TOKENS, Adapter, PlanSettings, schedule_of, settings_of


@dataclass(frozen=True, slots=True)
class RecipePlan:
    """What a recipe needs.

    Attributes:
        settings: The numbers that were planned with.
        memory: The memory of one GPU.
        schedule: Questions per update and updates; None where the number of questions is left to the data.
    """

    settings: PlanSettings
    memory: MemoryPlan
    schedule: Schedule | None


def load_for_gpu(names: str | Sequence[str], overrides: Sequence[str] = ()) -> Any:
    """A recipe (`kepo.recipes.recipe.load_recipe`) as a machine with GPUs reads it, also where there is none.

    Without accelerator a recipe that says nothing of bfloat16 trains in float32; with one, TRL's default is bfloat16.
    """
    from kepo.recipes.files import read_recipes
    from kepo.recipes.recipe import load_recipe

    given = {word[2:].split("=")[0] for word in overrides if word.startswith("--")}
    if {"bf16", "fp16", "no_bf16"} & (given | read_recipes(names).keys()):
        return load_recipe(names, overrides)
    return load_recipe(names, [*overrides, "--bf16", "true"])


def plan_recipe(recipe: Any, launch: Launch, gpu_memory: float, prompt_text: int = TEXT_TOKENS) -> RecipePlan:
    """Plan a recipe.

    Args:
        recipe: A `kepo.recipes.recipe.Recipe`.
        launch: GPUs and sharding.
        gpu_memory: Of one GPU, in GiB.
        prompt_text: Tokens of a prompt beside its image.

    Raises:
        ConfigError: A model whose config cannot be read, no model, or no image size.
    """
    name = recipe.model.model_name_or_path
    if not name:
        raise ConfigError("model_name_or_path is missing: name the folder or the hub name of the student.")
    remote = recipe.training.trust_remote_code
    student = load_architecture(name, remote)
    adapter = _adapter(name, recipe.peft_config(), remote)
    teacher = _teacher(recipe, remote)
    settings = settings_of(recipe, launch, gpu_memory, student, teacher, adapter, prompt_text)
    return RecipePlan(settings, plan_memory(settings), schedule_of(recipe, launch.gpus))


def _teacher(recipe: Any, trust_remote_code: bool) -> Architecture | None:
    training = recipe.training
    if recipe.run.method == "sft" or not (training.uses_teacher_scores or training.uses_hints):
        return None
    if recipe.teacher.teacher_url:
        return None  # it lies on its own GPUs
    name = recipe.teacher.teacher_model_name_or_path
    if name is None:
        raise ConfigError("This arm needs a teacher; set teacher_model_name_or_path.")
    return load_architecture(name, trust_remote_code)


def _adapter(name: str, config: Any, trust_remote_code: bool) -> Adapter | None:
    """The adapter that PEFT puts on the model, counted on the meta device."""
    if config is None:
        return None
    from peft import get_peft_model

    try:
        model = get_peft_model(load_meta_model(name, trust_remote_code), config, low_cpu_mem_usage=True)
    except ValueError as error:
        raise ConfigError(f"PEFT cannot put this adapter on {name}: {error}") from error
    trained = [(path, p.numel()) for path, p in model.named_parameters() if p.requires_grad]
    tower = any(".visual." in path or "vision" in path for path, _ in trained)
    return Adapter(sum(count for _, count in trained), tower)
