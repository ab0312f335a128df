"""Cost of a KEPO step beside TRL's GRPO, on the same model, prompts and rollout settings, in one process.

    python -m benchmarks.step STUDENT TEACHER [--steps 6]

STUDENT and TEACHER are model folders of one tokenizer (`kepo models smollm2`). The reward is a coin on the completion's
first token, so about half of the rollouts are gated in and few groups are all-failed. Exploration is off in the rows
that do not say so. The first step of each arm is left out. Ratios are to GRPO.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback

from kepo import KEPOConfig, KEPOTrainer, LocalTeacher

ARMS: dict[str, dict[str, Any]] = {
    "grpo": {"exploration": "none", "distillation_weight": 0.0},
    "gated distillation": {"exploration": "none", "gate": "trajectory"},
    "uniform distillation": {"exploration": "none", "gate": "always"},
    "kepo": {"exploration": "hint", "hint_leak_policy": "allow"},
}


class Clock(TrainerCallback):
    """Seconds of every step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._start = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def even_start(completions: Any, completion_ids: list[list[int]], **_: Any) -> list[float]:
    """A coin: whether the first token's id is even."""
    return [float(ids[0] % 2 == 0) for ids in completion_ids]


def measure(student: str, teacher: LocalTeacher, steps: int, fields: dict[str, Any]) -> dict[str, float]:
    """Median seconds per step and mean of the metrics that say what was paid for."""
    dataset = Dataset.from_list(
        [{"prompt": [{"role": "user", "content": f"What is {n} plus {n + 3}?"}], "answer": str(2 * n + 3), "id": str(n)}
         for n in range(64)]
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        args = KEPOConfig(
            output_dir=folder, per_device_train_batch_size=8, num_generations=4, max_completion_length=32,
            max_steps=steps, logging_steps=1, save_strategy="no", report_to="none", gradient_checkpointing=False,
            disable_tqdm=True, seed=0, rollout_log=False, **fields,
        )  # fmt: skip
        needs_teacher = args.uses_teacher_scores or args.uses_hints
        trainer = KEPOTrainer(student, [even_start], args, dataset, teacher=teacher if needs_teacher else None)
        trainer.remove_callback(PrinterCallback)  # only the table is wanted
        clock = Clock()
        trainer.add_callback(clock)
        trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    shares = {
        name: statistics.mean(log.get(name) or 0.0 for log in logs) for name in ("gate/open_share", "teacher/tokens")
    }
    return {"seconds": statistics.median(clock.seconds[1:]), **shares}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("student", nargs="?", default="models/smollm2")
    parser.add_argument("teacher", nargs="?", default="models/smollm2")
    parser.add_argument("--steps", type=int, default=6)
    args = parser.parse_args()
    teacher = LocalTeacher(args.teacher, hint_max_new_tokens=32)
    results = {name: measure(args.student, teacher, args.steps, fields) for name, fields in ARMS.items()}
    lines = ["| arm | s/step | of GRPO | gate open | teacher tokens a step |", "| --- | --- | --- | --- | --- |"]
    for name, r in results.items():
        ratio = r["seconds"] / results["grpo"]["seconds"]
        lines.append(
            f"| {name} | {r['seconds']:.2f} | {ratio:.2f} | {r['gate/open_share']:.2f} | {r['teacher/tokens']:.0f} |"
        )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
