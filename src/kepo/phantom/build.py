"""The base models of PhantomVQA: those that come with the package, and how they are made from seeds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from kepo.errors import ConfigError
from kepo.files import replacing
from kepo.models.llava import LlavaSize, build_llava
from kepo.phantom.files import IMAGE_SIZE
from kepo.phantom.lessons import Role

if TYPE_CHECKING:
    import numpy as np

    from kepo.phantom.scene import Scene

STUDENT_SIZE = LlavaSize(vision_width=64, vision_layers=2, text_width=96, text_layers=4)
TEACHER_SIZE = LlavaSize(vision_width=96, vision_layers=3, text_width=128, text_layers=5)
POOL = 16384
_POOL_SEED = 1
_RATE = 2e-3
_LAST_RATE = 1.5e-3
_REPEATED: tuple[tuple[Role, float], ...] = (("answer-letters", 0.15), ("vision", 0.25))
_BASE_OF_VARIANTS = "teacher-reliable"


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """How one base model is made; steps are optimizer steps."""

    name: str
    size: LlavaSize  # for a model that starts from random weights
    role: Role
    seed: int  # of weights and lessons
    start: str | None = None  # the model it is made from; None for random weights
    letter_steps: int = 900  # answer-letter warm-up: letters are learned without images
    vision_steps: int = 1000  # vision warm-up: the image tower is trained without the decoder
    steps: int = 600  # third phase: questions are answered
    learning_rate: float = 1.5e-3  # highest one of the third phase
    description_steps: int = 0  # last phase: images are described more than questions are answered


MODEL_PLANS: dict[str, ModelPlan] = {
    plan.name: plan
    for plan in (
        *(ModelPlan(f"student-{seed}", STUDENT_SIZE, "student", seed, description_steps=400) for seed in (1, 2, 3)),
        ModelPlan(_BASE_OF_VARIANTS, TEACHER_SIZE, "reliable", 11, letter_steps=600, vision_steps=2500, steps=500),
        *(
            ModelPlan(f"teacher-{role}", TEACHER_SIZE, role, 12, _BASE_OF_VARIANTS, 0, 0, steps=150, learning_rate=5e-4)
            for role in ("wrong-rules", "lost-after-errors")
        ),
    )
}
"""Three students, which differ in their seed only, the reliable teacher, and the two teachers made from it."""


SHIPPED: tuple[str, ...] = ("student-1", "student-2", "student-3", "teacher-reliable")
"""In half precision; the other teachers are built when a study needs them."""


def copy_models(folder: Path, names: Sequence[str] = SHIPPED) -> None:
    """Copy base models of `SHIPPED` into `folder`, a folder each; those that are there are left alone."""
    for name in names:
        if name not in SHIPPED:
            raise ConfigError(f"there is no base model {name!r} in the package; there are {', '.join(SHIPPED)}.")
        out = folder / name
        if out.is_dir():
            continue
        with replacing(out) as partial, as_file(files("kepo.phantom") / "weights" / name) as source:
            shutil.copytree(source, partial)


def build_models(
    folder: Path, names: Sequence[str] = tuple(MODEL_PLANS), tell: Callable[[str], None] = lambda _: None
) -> None:
    """Make base models in `folder`, a folder each; those that are there are left alone.

    Raises:
        ConfigError: A name that is not in `MODEL_PLANS`, or a model whose start is not there.
    """
    from kepo.phantom.pretraining import render_pool, scene_pool

    todo = [_plan(name) for name in names if not (folder / name / "config.json").is_file()]
    if not todo:
        return
    tell(f"drawing {POOL} images")
    scenes = scene_pool(POOL, _POOL_SEED)
    pixels = render_pool(scenes, IMAGE_SIZE)
    for plan in todo:
        with replacing(folder / plan.name) as partial:
            _build(plan, folder, partial, scenes, pixels, tell)


def _plan(name: str) -> ModelPlan:
    if name not in MODEL_PLANS:
        raise ConfigError(f"there is no base model {name!r}; there are {', '.join(MODEL_PLANS)}.")
    return MODEL_PLANS[name]


def _build(
    plan: ModelPlan, folder: Path, out: Path, scenes: list[Scene], pixels: np.ndarray, tell: Callable[[str], None]
) -> None:
    from kepo.phantom.pretraining import Phase, pretrain, warm_up_vision

    if plan.start is None:
        _untrained(plan, folder, out)
    elif (folder / plan.start / "config.json").is_file():
        shutil.copytree(folder / plan.start, out)
    else:
        raise ConfigError(f"{plan.name} is made from {plan.start}, which is not in {folder}; build that first.")
    if plan.letter_steps:
        tell(f"{plan.name}: answer-letter warm-up, {plan.letter_steps} steps")
        phase = Phase("answer-letters", plan.letter_steps, learning_rate=_RATE, images=False)
        pretrain(out, phase, scenes, pixels, plan.seed)
    if plan.vision_steps:
        tell(f"{plan.name}: vision warm-up, {plan.vision_steps} steps")
        phase = Phase("vision", plan.vision_steps, batch_size=128, learning_rate=_RATE)
        warm_up_vision(out, phase, scenes, pixels, plan.seed)
    tell(f"{plan.name}: {plan.role}, {plan.steps} steps")
    phase = Phase(plan.role, plan.steps, learning_rate=plan.learning_rate, repeated=_REPEATED)
    pretrain(out, phase, scenes, pixels, plan.seed)
    if plan.description_steps:
        tell(f"{plan.name}: descriptions, {plan.description_steps} steps")
        repeated: tuple[tuple[Role, float], ...] = ((plan.role, 0.35), ("answer-letters", 0.2))
        phase = Phase("vision", plan.description_steps, learning_rate=_LAST_RATE, repeated=repeated)
        pretrain(out, phase, scenes, pixels, plan.seed)


def _untrained(plan: ModelPlan, folder: Path, out: Path) -> None:
    from kepo.phantom.tokenizer import phantom_tokenizer

    tokenizer = folder / f".{plan.name}.tokenizer"
    phantom_tokenizer().save_pretrained(tokenizer)
    build_llava(out, [], size=plan.size, tokenizer_from=tokenizer, image_size=IMAGE_SIZE, seed=plan.seed)
    shutil.rmtree(tokenizer)
