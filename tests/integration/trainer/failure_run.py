"""A KEPO run whose teacher, or hint bank, fails on one of two processes; `test_served_teacher.py` starts it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kepo import KEPOConfig, KEPOTrainer, LocalTeacher
from kepo.errors import KepoError, TeacherUnavailableError
from kepo.exploration import HintBank
from kepo.teachers.base import ScoreRequest
from kepo.trainer import exploring
from tests.tiny_runs import SHORT_RUN, even_start, has_magic, questions


def main(student: str, teacher: str, out: str, what: str) -> None:
    args = KEPOConfig(
        output_dir=out,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=6,
        max_steps=3,
        gate="always",
        exploration="none" if what == "teacher" else "hint",
        hint_bank=None if what == "teacher" else f"{out}/hints.jsonl",
        **{**SHORT_RUN, "save_strategy": "steps", "save_steps": 100},
    )

    class Failing(LocalTeacher):
        def score(self, requests: Sequence[ScoreRequest]) -> Any:
            if what == "teacher" and fails():
                raise TeacherUnavailableError("The teacher is away for process 1.")
            return super().score(requests)

    class FullDisk(HintBank):
        def _make_whole(self) -> None:
            if fails():
                raise OSError(28, "No space left on device")
            super()._make_whole()

    def fails() -> bool:
        return trainer.state.global_step == 1 and trainer.accelerator.process_index == 1

    exploring.HintBank = FullDisk  # type: ignore[misc]
    reward = even_start if what == "teacher" else has_magic
    trainer = KEPOTrainer(student, [reward], args, questions(), teacher=Failing(teacher))
    try:
        trainer.train()
    except KepoError as error:
        (Path(out) / f"said-{trainer.accelerator.process_index}.txt").write_text(str(error))
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
