"""A KEPO run whose teacher fails on one of two processes; started by `test_served_teacher.py` under torchrun."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kepo import KEPOConfig, KEPOTrainer, LocalTeacher
from kepo.errors import TeacherUnavailableError
from kepo.teachers.base import ScoreRequest
from tests.integration.trainer.conftest import even_start, questions


def main(student: str, teacher: str, out: str) -> None:
    args = KEPOConfig(
        output_dir=out,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=6,
        max_steps=3,
        logging_steps=1,
        save_strategy="steps",
        save_steps=100,
        report_to="none",
        gradient_checkpointing=False,
        disable_tqdm=True,
        gate="always",
        exploration="none",
        seed=3,
    )

    class Failing(LocalTeacher):
        def score(self, requests: Sequence[ScoreRequest]) -> Any:
            if trainer.state.global_step == 1 and trainer.accelerator.process_index == 1:
                raise TeacherUnavailableError("The teacher is away for process 1.")
            return super().score(requests)

    trainer = KEPOTrainer(student, [even_start], args, questions(), teacher=Failing(teacher))
    try:
        trainer.train()
    except TeacherUnavailableError as error:
        (Path(out) / f"said-{trainer.accelerator.process_index}.txt").write_text(str(error))
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
