"""`examples/kepo_in_one_file.py` is the method: from the same rollouts it makes `KEPOTrainer`'s optimizer steps."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from kepo import KEPOConfig, KEPOTrainer, LocalTeacher
from tests.tiny_models import build_text_model, build_tokenizer
from tests.tiny_runs import ANSWER_IDS, SHORT_RUN, even_start, has_magic, questions, well_formed

SCRIPT = Path(__file__).parents[2] / "examples" / "kepo_in_one_file.py"
GROUP_SIZE, LENGTH = 4, 6
HINT = "look at the border"
# TRL's output head computes in float32 whatever the model's dtype is. Adam divides by the gradient's size, which would
# turn this rounding into a visible difference where a gradient is nearly 0; its epsilon bounds that.
ADAM_EPSILON = 1e-3
ARMS: dict[str, dict[str, Any]] = {
    "grpo": {"lambda": 0.0},
    "grpo+kl, clipped": {"lambda": 0.0, "beta": 0.2, "max_grad_norm": 1.0},
    "gated opd": {"lambda": 0.7},
    "kepo": {"lambda": 0.7, "correct": has_magic, "num_injected": 2},
}


def _module(source: str) -> ModuleType:
    module = ModuleType("kepo_in_one_file")
    sys.modules[module.__name__] = module  # where its dataclasses look their annotations up
    exec(compile(source, SCRIPT, "exec"), module.__dict__)
    return module


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return _module(SCRIPT.read_text())


class HintingTeacher(LocalTeacher):
    """A real model that scores, with a hint that does not depend on what it learned."""

    def write_hints(self, conversations: Sequence[Any]) -> list[str]:
        return [f"<hint>{HINT}</hint>" for _ in conversations]


class FixedRollouts:
    """The policy's samples, the same for trainer and example: drawn once, and solved where the prompt has the hint.

    Half of the completions are cut short by an end token, so that padding and token counts matter.
    """

    def __init__(self) -> None:
        self._tokenizer = build_tokenizer()
        self._draw = torch.Generator().manual_seed(0)
        self.asked: list[list[list[int]]] = []  # the prompts of every call without a hint
        self.drawn: list[list[list[int]]] = []  # and their completions

    def __call__(self, prompt_ids: list[list[int]]) -> list[list[int]]:
        if all(HINT in self._tokenizer.decode(ids) for ids in prompt_ids):
            return [self.solved(row) for row in range(len(prompt_ids))]
        ids = torch.randint(70, 300, (len(prompt_ids), LENGTH), generator=self._draw).tolist()
        end = self._tokenizer.eos_token_id
        completions = [row if i % 2 else [*row[: 1 + i % 4], end] for i, row in enumerate(ids)]
        self.asked.append(list(prompt_ids))
        self.drawn.append(list(completions))  # a copy, because the trainer puts injected samples into the list it gets
        return completions

    def solved(self, row: int) -> list[int]:
        return [*ANSWER_IDS, 66 + row, self._tokenizer.eos_token_id]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return build_text_model(folder / "student", "llama"), build_text_model(folder / "teacher", "qwen3", seed=1)


def _double(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)


def _trained(arm: dict[str, Any], folders: tuple[Path, Path], run: Path, steps: int) -> tuple[Any, FixedRollouts]:
    """The student after `steps` of `KEPOTrainer`, and the rollouts that it was trained on."""
    injects = "num_injected" in arm
    args = KEPOConfig(
        **SHORT_RUN,
        output_dir=str(run),
        per_device_train_batch_size=8,
        num_generations=GROUP_SIZE,
        max_completion_length=LENGTH,
        max_steps=steps,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        adam_epsilon=ADAM_EPSILON,
        beta=arm.get("beta", 0.0),
        max_grad_norm=arm.get("max_grad_norm", 1e3),
        distillation_weight=arm["lambda"],
        exploration="hint" if injects else "none",
        num_injected=arm.get("num_injected", 2),
    )
    teacher = HintingTeacher(_double(folders[1])) if arm["lambda"] else None
    rewards = [arm.get("correct", even_start), well_formed]
    trainer = KEPOTrainer(_double(folders[0]), rewards, args, questions(), teacher=teacher)
    rollouts = FixedRollouts()
    trainer._generate_single_turn = lambda prompt_ids, *_, **__: (rollouts(prompt_ids), None)
    trainer.train()
    return trainer.model, rollouts


@pytest.fixture(scope="module")
def trained(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """`_trained` by arm and steps; each is trained once."""

    @functools.cache
    def train(arm: str, steps: int) -> tuple[Any, FixedRollouts]:
        return _trained(ARMS[arm], folders, tmp_path_factory.mktemp("run"), steps)

    return train


def _retrained(
    example: ModuleType, arm: dict[str, Any], folders: tuple[Path, Path], given: FixedRollouts
) -> Iterator[tuple[Any, list[Any]]]:
    """The student after each step of the example from the same rollouts, and the groups of the step."""
    student, teacher, reference = (_double(folders[place]) for place in (0, 1, 0))
    settings = example.Settings(
        num_injected=arm.get("num_injected", 0),
        distillation_weight=arm["lambda"],
        beta=arm.get("beta", 0.0),
        max_grad_norm=arm.get("max_grad_norm", 1e3),
        learning_rate=1e-2,
    )
    correct = arm.get("correct", even_start)

    def rollout(prompt: list[int], completion: list[int]) -> Any:
        accuracy = correct(None, [completion])[0]
        return example.Rollout(prompt, completion, accuracy, accuracy + 1.0)

    def sample(asked: list[Any], hints: list[str]) -> list[Any]:
        return [rollout([1, 2, 3], given.solved(row)) for row in range(len(asked))]  # a prompt that nobody may train

    optimizer = example.make_optimizer(student, settings)
    optimizer.param_groups[0]["eps"] = ADAM_EPSILON
    for prompts, completions in zip(given.asked, given.drawn, strict=True):
        rows = [rollout(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        starts = range(0, len(rows), GROUP_SIZE)
        groups = [example.Group(example.Question("", ""), rows[start : start + GROUP_SIZE]) for start in starts]
        example.explore(groups, lambda asked: [HINT] * len(asked), sample, settings)
        groups = [example.inject(group) for group in groups]
        loss, _ = example.kepo_loss(
            student, teacher.requires_grad_(False), reference.requires_grad_(False), groups, settings
        )
        example.optimizer_step(student, optimizer, loss, settings)
        yield student, groups


def _furthest(left: Any, right: Any) -> float:
    pairs = zip(left.named_parameters(), right.named_parameters(), strict=True)
    return max((a - b).abs().max().item() for (_, a), (_, b) in pairs)


def _injected(groups: list[Any]) -> int:
    return sum(tuple(row.completion_ids[:3]) == ANSWER_IDS for group in groups for row in group.rollouts)


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("steps", [1, 2])
def test_its_optimizer_steps_are_those_of_the_trainer(
    example: ModuleType, folders: tuple[Path, Path], trained: Callable[..., Any], arm: str, steps: int
) -> None:
    theirs, given = trained(arm, steps)
    assert len(given.drawn) == steps
    retrained = list(_retrained(example, ARMS[arm], folders, given))
    assert [_injected(groups) for _, groups in retrained] == [2 * 2 if "num_injected" in ARMS[arm] else 0] * steps
    ours = retrained[-1][0]
    assert _furthest(theirs, ours) < 1e-6
    assert _furthest(_double(folders[0]), ours) > 1e-3, "nothing was trained, so equality would mean nothing"


BREAKS: dict[str, tuple[str, str, str]] = {
    "gate open": ("gated opd", "(accuracy_B >= tau).unsqueeze(1) & mask_BT.bool()", "mask_BT.bool()"),
    "gate on the reward": ("gated opd", "[rollout.accuracy for", "[rollout.reward for"),
    "divergence over all tokens": ("gated opd", "s.interpolation).mean()", "s.interpolation).sum() / mask_BT.sum()"),
    "interpolation": ("gated opd", "interpolation: float = 0.5", "interpolation: float = 0.4"),
    "mean over rollouts": ("grpo", "/ mask_BT.sum()", "/ mask_BT.size(0)"),
    "no division by std": ("grpo", " / (std + 1e-4)", ""),
    "kl the other way": ("grpo+kl, clipped", "reference_BT - logps_BT", "logps_BT - reference_BT"),
    "kl without the ratio": ("grpo+kl, clipped", "s.beta * w_BT * (", "s.beta * ("),
    "no gradient clipping": ("grpo+kl, clipped", "s.max_grad_norm)", "1e3)"),
    "no injection": ("kepo", "zip(failed, group.kept, strict=False)", "[]"),
    "other slots": ("kepo", "zip(failed, group.kept,", "zip(reversed(failed), group.kept,"),
    "one slot twice": ("kepo", "zip(failed, group.kept,", "zip(failed[:1] * 2, group.kept,"),
    "trained under the hint": ("kepo", "replace(found, prompt_ids=rollouts[slot].prompt_ids)", "found"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_a_changed_method_makes_other_steps(folders: tuple[Path, Path], trained: Callable[..., Any], name: str) -> None:
    arm, text, other = BREAKS[name]
    source = SCRIPT.read_text()
    assert source.count(text) == 1
    theirs, given = trained(arm, 2)
    *_, (ours, _) = _retrained(_module(source.replace(text, other)), ARMS[arm], folders, given)
    assert _furthest(theirs, ours) > 1e-4


def test_it_is_short_and_needs_neither_trl_nor_kepo() -> None:
    source = SCRIPT.read_text()
    assert len(source.splitlines()) <= 300
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {
        name for node in imports for name in [getattr(node, "module", None), *(a.name for a in node.names)] if name
    }
    assert not {name.split(".")[0] for name in names} & {"trl", "kepo", "accelerate", "peft"}


@pytest.mark.slow
def test_it_runs_and_says_what_each_step_did() -> None:
    run = subprocess.run([sys.executable, SCRIPT, "--steps", "2"], capture_output=True, text=True, check=True)
    number = r"\d+\.\d{3}"
    names = ("reward", "all_failed", "rescued", "gate", "distillation", "loss")
    line = r"step +\d  " + "  ".join(rf"{name} -?{number}" for name in names)
    assert len(re.findall(line, run.stdout)) == 2, run.stdout
    assert float(re.findall(rf"rescued ({number})", run.stdout)[0]) > 0


def test_it_trains_model_folders(folders: tuple[Path, Path]) -> None:
    command = [sys.executable, SCRIPT, "--model", folders[0], "--teacher", folders[1], "--steps", "1"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "all_failed 1.000" in run.stdout
