"""Cost of one training step of PhantomVQA, arm by arm: as it was against as it is, phase by phase, in one process.

    OMP_NUM_THREADS=1 python -m benchmarks.phantom_step [--arms grpo kepo] [--steps 10] [--rounds 2] [--json FILE]

A step has 64 rollouts of 8 questions; questions and base models are those of `kepo demo`. "plain" computes every row
for itself (share_prompt, skip_idle_rows and share_image_features false), "shared" is what the recipes set. Both run in
turn, `--rounds` times; the first two steps of each run are left out. Seconds are CPU time of the process, which on a
machine that does something else as well says more than the clock on the wall; that one is given for the whole step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from kepo.phantom.study import DEMO
from kepo.recipes.building import build_trainer
from kepo.recipes.inputs import read_inputs
from kepo.recipes.recipe import load_recipe
from kepo.trainer.phases import PHASES, PhaseClock

LEFT_OUT = 2
SETTINGS: dict[str, dict[str, bool]] = {
    "plain": {"share_prompt": False, "skip_idle_rows": False, "share_image_features": False},
    "shared": {"share_prompt": True, "skip_idle_rows": True, "share_image_features": True},
}


class Clocks(TrainerCallback):
    """Seconds of every step: CPU by phase, CPU in all, and on the wall."""

    def __init__(self, clock: PhaseClock) -> None:
        self.steps: list[dict[str, float]] = []
        self._clock = clock

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._clock.start()
        self._begun = time.perf_counter()

    def on_log(self, *_: Any, **__: Any) -> None:
        now = time.perf_counter()
        times = self._clock.take()
        self.steps.append({**times.seconds, "step": times.total, "wall": now - self._begun})
        self._begun = now


def measure(study: Path, folder: Path, arm: str, steps: int, fields: dict[str, bool]) -> list[dict[str, float]]:
    """The steps of one run of an arm."""
    given = {
        "data_path": study / "data" / "train.jsonl",
        "model_name_or_path": study / "models" / "student-1",
        "teacher_model_name_or_path": study / "models" / "teacher-reliable",
        "max_steps": steps,
        "output_dir": folder,
        "overwrite": True,
        "disable_tqdm": True,
        **fields,
    }
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    recipe = load_recipe([f"phantom/{arm}"], words)
    trainer = build_trainer(recipe, read_inputs(recipe))
    for shown in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(shown)
    trainer.phases.__init__(now=time.process_time)  # the same clock, by CPU time
    clocks = Clocks(trainer.phases)
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback).__name__ == "PhaseCallback":  # reads the clock after every step; here it is read with the log
            callback.on_step_end = lambda *_, **__: None
    trainer.add_callback(clocks)
    trainer.train()
    return clocks.steps[LEFT_OUT:steps]


def medians(steps: list[dict[str, float]]) -> dict[str, float]:
    """Of every phase, over the steps that were measured."""
    names = dict.fromkeys(name for step in steps for name in step)
    return {name: statistics.median(step.get(name, 0.0) for step in steps) for name in names}


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """One row per arm and setting, in milliseconds."""
    columns = [
        name for name in (*PHASES, "step", "wall") if any(name in r for a in results.values() for r in a.values())
    ]
    lines = [" | ".join(["| arm", "rows", *columns, "ratio |"]), "| --- " * (len(columns) + 3) + "|"]
    for arm, kinds in results.items():
        for kind, seconds in kinds.items():
            cells = [f"{1000 * seconds.get(name, 0.0):.0f}" for name in columns]
            ratio = seconds["step"] / kinds["plain"]["step"]
            lines.append(" | ".join([f"| {arm}", kind, *cells, f"{ratio:.2f} |"]))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", default=["grpo", "kepo"])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--study", type=Path, help="Folder that `kepo benchmark study` wrote; default: written anew.")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        study = args.study or Path(name) / "study"
        if args.study is None:
            DEMO.write(study, lambda _text: None)
        found: dict[str, dict[str, list[dict[str, float]]]] = {a: {k: [] for k in args.settings} for a in args.arms}
        for _ in range(args.rounds):
            for arm in args.arms:
                for kind in args.settings:
                    found[arm][kind] += measure(study, Path(name) / "run", arm, args.steps, SETTINGS[kind])
    results = {arm: {kind: medians(steps) for kind, steps in kinds.items()} for arm, kinds in found.items()}
    if args.json:
        versions = {"torch": torch.__version__, "threads": torch.get_num_threads()}
        args.json.write_text(json.dumps({"versions": versions, "seconds": results, "steps": found}, indent=1) + "\n")
    sys.stdout.write(table(results) + "\n")


if __name__ == "__main__":
    main()
