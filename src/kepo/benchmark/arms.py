"""The arms of the built-in study, and the runs it is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

TRAINED_ON = "MRI"
ZERO_SHOT = "zero-shot"
TEACHER = "teacher"
RELIABLE = "reliable"
BASELINES = ("grpo", "opd", "grpo-uniform")
"""What KEPO is claimed to beat; a report adjusts their p-values together."""
OTHER_TEACHERS = ("wrong-rules", "lost-after-errors")


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train, or none.

    Attributes:
        name: Short name; `phantom/<recipe>` is what runs.
        label: For tables and figures.
        recipe: Name of a recipe under `phantom/`; None: the base model as it is.
        settings: Recipe fields that differ, by name.
        teacher: Which teacher, see `kepo.phantom.lessons.Role`.
    """

    name: str
    label: str
    recipe: str | None
    settings: dict[str, str] = field(default_factory=dict)
    teacher: str = RELIABLE


_TRAINED = (
    Arm("sft", "SFT on the true reasoning", "sft"),
    Arm("grpo", "GRPO", "grpo"),
    Arm("opd-0", "OPD, λ = 0", "opd", {"lmbda": "0"}),
    Arm("opd-0.5", "OPD, λ = 0.5", "opd", {"lmbda": "0.5"}),
    Arm("opd", "OPD, λ = 1", "opd"),
    Arm("grpo-uniform", "GRPO + uniform OPD", "grpo-uniform"),
    Arm("grpo-gated", "GRPO + gated OPD", "grpo-gated"),
    Arm("grpo-token", "GRPO + OPD gated per token", "grpo-token"),
    Arm("kepo", "KEPO", "kepo"),
    Arm("kepo-token", "KEPO, gate per token", "kepo-token"),
    Arm("kepo-uniform", "KEPO without gate", "kepo-uniform"),
    Arm("kepo-resample", "KEPO, resampling instead of hints", "kepo-resample"),
    Arm("hints-only", "KEPO without teacher term", "hints-only"),
)

# What is gated, is gated because of what the teacher says; so these are compared again with worse teachers.
_GATES = ("kepo", "kepo-token", "kepo-uniform")


def all_arms() -> list[Arm]:
    """Every arm with the reliable teacher, then the gates with the two others."""
    by_name = {arm.name: arm for arm in _TRAINED}
    others = [
        Arm(f"{name}@{teacher}", f"{by_name[name].label} ({teacher} teacher)", name, teacher=teacher)
        for teacher in OTHER_TEACHERS
        for name in _GATES
    ]
    return [Arm(ZERO_SHOT, "Base model", None), *_TRAINED, *others]


def demo_arms() -> list[Arm]:
    """The four arms of the short demonstration, and the base model."""
    names = (ZERO_SHOT, "grpo", "grpo-uniform", "grpo-gated", "kepo")
    return [arm for arm in all_arms() if arm.name in names]
