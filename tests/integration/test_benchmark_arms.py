"""The arms of the step benchmark compute the same loss: what differs is what it costs them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import GRPOConfig

from benchmarks.arms import PublicPattern
from benchmarks.step import GRPO, KEPO, PLAIN, PUBLIC, TRL_DISTILLATION, Arm, arms_of, measure
from benchmarks.workload import Rollouts, Workload, language_model, questions, tokens_to_draw, workload_of
from tests.tiny_models import build_text_model, build_vlm

CPU = torch.device("cpu")


@pytest.fixture(params=["text", "images"])
def work(request: pytest.FixtureRequest, tmp_path: Path) -> Workload:
    """One group of four rollouts, one of which is correct, as one micro-batch; another seed makes another teacher."""
    if request.param == "text":
        made = language_model(str(build_text_model(tmp_path / "student")), [1], 4, (3, 6), CPU)
        made.teacher.load_state_dict(
            language_model(
                str(build_text_model(tmp_path / "teacher", seed=1)), [1], 4, (3, 6), CPU
            ).teacher.state_dict()
        )
        return made
    folders = [build_vlm(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    student, teacher = (AutoModelForImageTextToText.from_pretrained(folder) for folder in folders)
    processor = AutoProcessor.from_pretrained(folders[0])
    tokenizer = processor.tokenizer
    rollouts = Rollouts([1], 4, (3, 6), tokens_to_draw(tokenizer), tokenizer.eos_token_id)
    return workload_of("tiny", student, teacher, processor, questions(1, 16), rollouts)


def _logged(arm: Arm) -> tuple[float, float]:
    """Loss and norm of the gradient of the next step."""
    arm.replay.samples = False
    arm.turn()
    log = next(log for log in reversed(arm.trainer.state.log_history) if "loss" in log)
    return log["loss"], log["grad_norm"]


def test_all_arms_have_one_loss_and_gradient(work: Workload) -> None:
    with arms_of(work, [GRPO, TRL_DISTILLATION, PUBLIC, KEPO, PLAIN]) as arms:
        found = {name: _logged(arm) for name, arm in arms.items()}
    expected = found[PLAIN]
    for name in (TRL_DISTILLATION, PUBLIC, KEPO):
        assert found[name] == pytest.approx(expected, rel=1e-4), name
    assert found[GRPO] != pytest.approx(expected, rel=1e-2)  # the divergence counts


def test_the_public_pattern_without_distillation_is_grpo(work: Workload, tmp_path: Path) -> None:
    args = GRPOConfig(output_dir=str(tmp_path / "public"), **work.fields)
    models = {"teacher_model": work.teacher, "reference_model": work.student()}
    trainer = PublicPattern(
        work.student(), [work.rollouts.reward], args, work.dataset, None, work.processor,
        distillation_weight=0.0, **models,
    )  # fmt: skip
    with arms_of(work, [GRPO]) as arms:
        public = Arm(trainer, work, arms[GRPO]._clock)
        assert _logged(public) == pytest.approx(_logged(arms[GRPO]), rel=1e-4, abs=1e-6)
        public.close()


@pytest.mark.parametrize("work", ["images"], indirect=True)
def test_tokens_of_every_arm(work: Workload) -> None:
    """P prompt tokens, T the longest completion: plain arms compute G * (P + T), ours what is needed."""
    samples, tables = measure(work, rounds=1, budget=None, names=[GRPO, PUBLIC, KEPO])
    (group,) = work.rollouts.groups
    plain = 4 * (len(group.prompt) + work.rollouts.longest)
    whole, gated = (
        len(group.prompt) + sum(len(row) for row, counts in zip(group.completions, which, strict=True) if counts)
        for which in ([True] * 4, group.correct)
    )
    (tokens,) = (table for table in tables if "tokens of a step" in table.title)
    found = {row[0]: row[1:] for row in tokens.rows}
    assert found[GRPO] == [plain, whole, plain / whole, 0, 0, None, 0]
    assert found[PUBLIC] == [2 * plain, whole, 2 * plain / whole, plain, gated, plain / gated, plain]
    assert found[KEPO] == [whole, whole, 1.0, gated, gated, 1.0, 0]
    (memory,) = (table for table in tables if table.title.endswith("memory"))
    assert [row[0] for row in memory.rows] == [GRPO, PUBLIC, KEPO]
    assert {part.rpartition(": ")[2] for part in samples} == {"whole step", "without sampling"}
