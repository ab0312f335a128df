"""The base models of PhantomVQA, made from seeds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kepo.errors import ConfigError
from kepo.files import replacing
from kepo.models.llava import LlavaSize, build_llava
from kepo.phantom.lessons import Role

if TYPE_CHECKING:
    import numpy as np

    from kepo.phantom.scene import Scene

STUDENT_SIZE = LlavaSize(vision_width=64, vision_layers=2, text_width=96, text_layers=4)
TEACHER_SIZE = LlavaSize(vision_width=96, vision_layers=3, text_width=128, text_layers=5)
IMAGE_SIZE = 48
POOL = 16384
_POOL_SEED = 1
_RATE = 2e-3
_LAST_RATE = 1.5e-3
_REPEATED: tuple[tuple[Role, float], ...] = (("letters", 0.15), ("eyes", 0.25))
_BASE_OF_VARIANTS = "teacher-reliable"


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """How one base model is made.

    Attributes:
        name: Folder name.
        size: Widths and depths, for a model that starts from random weights.
        role: Who it is.
        seed: Of weights and lessons.
        start: Name of the model it is made from; None for random weights.
        letters: Updates of the first phase, in which letters are learned without images.
        looks: Updates of the second phase, in which the image tower learns to see, without the decoder.
        steps: Updates of the third phase, in which questions are answered.
        learning_rate: Highest one of the third phase.
        descriptions: Updates of the last phase, in which images are described more than questions are answered.
    """

    name: str
    size: LlavaSize
    role: Role
    seed: int
    start: str | None = None
    letters: int = 900
    looks: int = 1000
    steps: int = 600
    learning_rate: float = 1.5e-3
    descriptions: int = 0


MODEL_PLANS: dict[str, ModelPlan] = {
    plan.name: plan
    for plan in (
        *(ModelPlan(f"student-{seed}", STUDENT_SIZE, "student", seed, descriptions=400) for seed in (1, 2, 3)),
        ModelPlan(_BASE_OF_VARIANTS, TEACHER_SIZE, "reliable", 11, letters=600, looks=2500, steps=500),
        *(
            ModelPlan(
                f"teacher-{role}",
                TEACHER_SIZE,
                role,
                seed=12,
                start=_BASE_OF_VARIANTS,
                letters=0,
                looks=0,
                steps=150,
                learning_rate=5e-4,
            )
            for role in ("wrong-rules", "lost-after-errors")
        ),
    )
}
"""Three students, which differ in their seed only, the reliable teacher, and the two teachers made from it."""


def build_models(
    folder: Path, names: Sequence[str] = tuple(MODEL_PLANS), tell: Callable[[str], None] = lambda _: None
) -> None:
    """Make base models in `folder`, a folder each; those that are there are left alone.

    Args:
        folder: Where to.
        names: Keys of `MODEL_PLANS`.
        tell: Told what is being done.

    Raises:
        ConfigError: An unknown name, or a model whose start is neither there nor asked for.
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
    from kepo.phantom.pretraining import Phase, open_eyes, pretrain

    if plan.start is None:
        _untrained(plan, folder, out)
    elif (folder / plan.start / "config.json").is_file():
        shutil.copytree(folder / plan.start, out)
    else:
        raise ConfigError(f"{plan.name} is made from {plan.start}, which is not in {folder}; build that first.")
    if plan.letters:
        tell(f"{plan.name}: letters, {plan.letters} updates")
        pretrain(out, Phase("letters", plan.letters, learning_rate=_RATE, images=False), scenes, pixels, plan.seed)
    if plan.looks:
        tell(f"{plan.name}: eyes, {plan.looks} updates")
        open_eyes(out, Phase("eyes", plan.looks, batch_size=128, learning_rate=_RATE), scenes, pixels, plan.seed)
    tell(f"{plan.name}: {plan.role}, {plan.steps} updates")
    phase = Phase(plan.role, plan.steps, learning_rate=plan.learning_rate, repeated=_REPEATED)
    pretrain(out, phase, scenes, pixels, plan.seed)
    if plan.descriptions:
        tell(f"{plan.name}: descriptions, {plan.descriptions} updates")
        repeated: tuple[tuple[Role, float], ...] = ((plan.role, 0.35), ("letters", 0.2))
        phase = Phase("eyes", plan.descriptions, learning_rate=_LAST_RATE, repeated=repeated)
        pretrain(out, phase, scenes, pixels, plan.seed)


def _untrained(plan: ModelPlan, folder: Path, out: Path) -> None:
    from kepo.phantom.tokenizer import phantom_tokenizer

    tokenizer = folder / f".{plan.name}.tokenizer"
    phantom_tokenizer().save_pretrained(tokenizer)
    build_llava(out, [], size=plan.size, tokenizer_from=tokenizer, image_size=IMAGE_SIZE, seed=plan.seed)
    shutil.rmtree(tokenizer)
