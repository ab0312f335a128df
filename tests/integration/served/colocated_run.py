"""Three steps of KEPO with vLLM in the trainer's own process, on the CPU; `test_colocated.py` reads what it writes.

    python -m tests.integration.served.colocated_run text STUDENT TEACHER OUT.json
    python -m tests.integration.served.colocated_run images STUDENT TEACHER OUT.json

Runs in the environment that has vLLM (`python -m tools.vllm_cpu build --with-trl`), not in the tests' own.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from datasets import Dataset

from kepo import KEPOConfig, KEPOTrainer, LocalTeacher, ScriptedTeacher
from tests.tiny_models import IMAGE, tiny_image
from tests.tiny_runs import SHORT_RUN, even_start

HINT = "count the edges"


def main(kind: str, student: str, teacher: str, out: str) -> None:
    """Train, and write down what vLLM was asked and what reached the loss."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(student, teacher, folder, _questions(kind == "images"))
        if kind == "images":
            # A random policy may sample an image's token, for which there is no image.
            image = trainer.tokenizer.convert_tokens_to_ids(IMAGE)
            trainer.vllm_generation.generation_kwargs = {"logit_bias": {image: -100.0}}
        asked, batches = _watch(trainer)
        trainer.train()
    result = {"asked": asked, "batches": batches, "log": trainer.state.log_history}
    Path(out).write_text(json.dumps(result), encoding="utf-8")


def _trainer(student: str, teacher: str, folder: str, questions: Dataset) -> KEPOTrainer:
    scores = LocalTeacher(teacher, device="cpu", dtype="float32")
    args = KEPOConfig(
        output_dir=folder,
        use_vllm=True,
        vllm_mode="colocate",
        vllm_max_model_length=256,
        # The engine's weights are float16, the policy's float32: a difference that is seen is one of meaning.
        model_init_kwargs={"dtype": "float32"},
        bf16=False,
        use_cpu=True,
        exploration_trigger="always",
        exploration_attempts=4,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=8,
        # Steps so large that weights which did not reach the engine would show.
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        max_steps=3,
        **SHORT_RUN,
    )
    return KEPOTrainer(
        student,
        [even_start],
        args,
        questions,
        teacher=ScriptedTeacher(f"<hint>{HINT}</hint>", lambda row: scores.score([row])[0], scores.head),
    )


def _questions(images: bool, count: int = 12) -> Dataset:
    rows: dict[str, Any] = {
        "id": [f"q{i}" for i in range(count)],
        "prompt": [[{"role": "user", "content": f"What is {i} plus 30?"}] for i in range(count)],
        "answer": [str(30 + i) for i in range(count)],
    }
    if images:
        rows["images"] = [[tiny_image(i)] for i in range(count)]
    return Dataset.from_dict(rows)


def _watch(trainer: KEPOTrainer) -> tuple[list[Any], list[Any]]:
    """Lists that fill during training: per call of vLLM its prompts, per batch what reached the loss."""
    asked: list[Any] = []
    batches: list[Any] = []
    generate, score = trainer.vllm_generation.generate, trainer.make_generation_batch

    def watched_generate(prompts: list[list[int]], **arguments: Any) -> Any:
        asked.append({"step": trainer.state.global_step, "prompts": trainer.processing_class.batch_decode(prompts)})
        return generate(prompts=prompts, **arguments)

    def watched_score(inputs: Any) -> Any:
        batch = score(inputs)
        rewards = even_start(None, [row[:1] for row in batch["completion_ids"].tolist()])
        kept = {name: batch[name].tolist() for name in ("injected", "importance_sampling_ratio")}
        batches.append({**kept, "rewards": rewards})
        return batch

    trainer.vllm_generation.generate = watched_generate
    trainer.make_generation_batch = watched_score
    return asked, batches


if __name__ == "__main__":
    main(*sys.argv[1:])
