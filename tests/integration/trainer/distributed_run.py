"""A KEPO run whose rollouts do not depend on random numbers, so that one and two processes can be compared.

Started by `test_processes.py`, alone or under torchrun: `python distributed_run.py STUDENT TEACHER OUT G`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from kepo import KEPOConfig, KEPOTrainer, LocalTeacher
from tests.tiny_runs import ANSWER_IDS, SHORT_RUN, has_magic, questions, well_formed


class FixedRollouts(KEPOTrainer):
    """Rollouts depend on the row's place in the global batch alone; hinted samples are right for some groups."""

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, has_tool_images: bool = False
    ) -> Any:
        eos = self.eos_token_ids[0]
        if num_generations == 1:  # hinted sampling
            self.sampling_calls = getattr(self, "sampling_calls", 0) + 1
            right = [sum(ids) % 2 == 0 for ids in prompt_ids]
            return [[*(ANSWER_IDS if ok else (60, 61, 62)), eos] for ok in right], None
        first = self.accelerator.process_index * len(prompt_ids)
        rows = range(first, first + len(prompt_ids))
        return [[70 + row % 7, 71 + row % 3, *([72] * (row % 3)), eos] for row in rows], None


def main(student: str, teacher: str, out: str, group_size: int) -> None:
    processes = KEPOConfig(output_dir=out).world_size
    args = KEPOConfig(
        output_dir=out,
        per_device_train_batch_size=8 // processes,
        num_generations=group_size,
        max_completion_length=6,
        learning_rate=1e-3,
        max_steps=3,
        gate="token",
        exploration_attempts=2,
        hint_level=0,
        hint_max_level=1,
        hint_bank=f"{out}/hints.jsonl",
        hint_leak_policy="allow",
        rollout_log=True,
        **SHORT_RUN,
    )
    scored: list[int] = []

    def correct(completions: Any, completion_ids: list[list[int]], **_: Any) -> list[float]:
        scored.append(len(completion_ids))
        return has_magic(completions, completion_ids)

    trainer = FixedRollouts(
        student, [correct, well_formed], args, questions(), teacher=LocalTeacher(teacher, hint_max_new_tokens=2)
    )
    hint_calls: list[int] = []

    def write_hints(conversations: Any) -> list[str]:
        hint_calls.append(len(conversations))
        return ["<hint>look</hint>"] * len(conversations)

    trainer.teacher.write_hints = write_hints
    trainer.train()
    if trainer.accelerator.is_main_process:
        save_file(
            {n: p.detach().clone() for n, p in trainer.accelerator.unwrap_model(trainer.model).named_parameters()},
            Path(out) / "end.safetensors",
        )
    calls = Path(out) / f"calls-{trainer.accelerator.process_index}.txt"
    calls.write_text(f"{getattr(trainer, 'sampling_calls', 0)} {len(hint_calls)}")
    (Path(out) / f"scored-{trainer.accelerator.process_index}.txt").write_text(str(sum(scored)))
    trainer.accelerator.end_training()  # threads of the process group must not outlive it


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
