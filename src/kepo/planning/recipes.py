"""The plan of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kepo.planning.launch import Launch
from kepo.planning.memory import MemoryPlan, plan_memory
from kepo.planning.settings import TEXT_TOKENS, PlanSettings, Schedule, schedule_of, settings_of


@dataclass(frozen=True, slots=True)
class RecipePlan:
    """What a recipe needs.

    Attributes:
        settings: The numbers that were planned with.
        memory: The memory of one GPU.
        schedule: Questions per optimizer step, and steps; None where the number of questions is left to the data.
    """

    settings: PlanSettings
    memory: MemoryPlan
    schedule: Schedule | None


def load_for_gpu(names: str | Sequence[str], overrides: Sequence[str] = ()) -> Any:
    """Recipes (`kepo.recipes.recipe.load_recipe`) as a machine with GPUs reads them, also where there is none.

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
        ConfigError: as `settings_of`.
    """
    settings = settings_of(recipe, launch, gpu_memory, prompt_text)
    return RecipePlan(settings, plan_memory(settings), schedule_of(recipe, launch.gpus))
