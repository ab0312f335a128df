"""A KEPO run whose rollouts, hinted ones too, are sampled by a real vLLM engine in the same process, on the CPU.

Started by `test_colocated.py` in vLLM's environment: `python colocated_run.py MODEL OUT`; writes what it saw to
OUT/seen.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import vllm._custom_ops
from datasets import Dataset

from kepo import KEPOConfig, KEPOTrainer, ScriptedTeacher


def even_start(completions: Any, completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Right for about every second completion."""
    return [float(ids[0] % 2 == 0) for ids in completion_ids]


def main(model: str, out: str) -> None:
    # On the CPU vLLM packs the weights of its linear layers for oneDNN and drops the originals, into which TRL loads
    # the student's after every update (AttributeError: 'Parameter' object has no attribute 'weight_loader').
    vllm._custom_ops._supports_onednn = False
    seen: dict[str, list[Any]] = {"injected": [], "ratios": [], "prompts": []}

    class Watched(KEPOTrainer):
        def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
            texts = self._tokenizer.batch_decode(prompt_ids)
            seen["prompts"].append([sum("Hint: " in text for text in texts), len(texts)])
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)

        def _finish_round(self, round_: Any, output: dict[str, Any]) -> dict[str, Any]:
            seen["injected"].append(sorted(round_.injected))
            seen["ratios"].append(output["importance_sampling_ratio"].flatten(1).amax(1).tolist())
            return super()._finish_round(round_, output)

    args = KEPOConfig(
        output_dir=out,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=12,
        learning_rate=1e-4,
        max_steps=2,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        gradient_checkpointing=False,
        disable_tqdm=True,
        seed=0,
        use_vllm=True,
        vllm_mode="colocate",
        vllm_max_model_length=512,
        exploration_trigger="always",
        hint_attempts=2,
        distillation_weight=0.0,
    )
    rows = [
        {"prompt": [{"role": "user", "content": f"What is {n} plus {n}?"}], "answer": "x", "id": str(n)}
        for n in range(9)
    ]
    teacher = ScriptedTeacher("<hint>Begin differently.</hint>")
    trainer = Watched(model, [even_start], args, Dataset.from_list(rows), teacher=teacher)
    trainer.train()
    seen["losses"] = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    seen["differences"] = [
        log["sampling/sampling_logp_difference/mean"] for log in trainer.state.log_history if "loss" in log
    ]
    (Path(out) / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
