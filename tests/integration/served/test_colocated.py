"""Rollouts from a real vLLM engine in the training process, hinted ones included."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tools.vllm_cpu import ENVIRONMENT, free_port, variables

REPOSITORY = Path(__file__).parents[3]


def test_rollouts_and_hinted_samples_come_from_vllm(smollm2: Path, tmp_path: Path) -> None:
    one_process = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    environment = {
        **variables(ENVIRONMENT),
        **one_process,
        "MASTER_PORT": str(free_port()),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "PYTHONPATH": f"{REPOSITORY / 'src'}{os.pathsep}{REPOSITORY}",
    }
    command = [str(ENVIRONMENT / "bin" / "python"), str(Path(__file__).with_name("colocated_run.py"))]
    done = subprocess.run(
        [*command, str(smollm2), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads((tmp_path / "seen.json").read_text())
    rollouts = [hinted for hinted, count in seen["prompts"] if count == 8 and hinted == 0]
    assert len(rollouts) >= 2, "every step's rollouts are sampled without hints"
    assert sum(hinted for hinted, _ in seen["prompts"]) > 0, "hinted samples take the same way"
    injected = [(ratios[row]) for rows, ratios in zip(seen["injected"], seen["ratios"], strict=True) for row in rows]
    assert injected, "some hinted sample must be kept"
    # Under the training prompt its log-probabilities are others than at sampling; no correction erases it.
    assert injected == [1.0] * len(injected)
    # The engine samples from the weights that are trained: bfloat16 against float32, no more.
    assert max(seen["differences"]) < 0.3
