"""One run of a study, from its plan to its evaluated model; runs in a process of its own, one thread each."""

from __future__ import annotations

import json
import signal
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from kepo.benchmark.arms import TRAINED_ON
from kepo.benchmark.plan import DATA, MODELS, RUNS, RunPlan
from kepo.runs import MANIFEST

if TYPE_CHECKING:
    from kepo.evaluation.settings import EvaluationSettings

TEST = "test"
_IDENTITY = "plan.json"


def prepare_process() -> None:
    """One thread, and Ctrl-C is left to the process that started this one."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def is_done(plan: RunPlan) -> bool:
    """Whether the run was finished with this very plan; the note is the last thing that a run writes."""
    note = plan.folder / _IDENTITY
    return note.is_file() and json.loads(note.read_text(encoding="utf-8")) == plan.identity()


def run(plan: RunPlan) -> None:
    """Train and evaluate; what is printed, and why it failed if it did, goes to the plan's log.

    Raises:
        KepoError: as `kepo.recipes.launch.train` and `kepo.evaluation.run.evaluate`.
    """
    note = plan.folder / _IDENTITY
    note.unlink(missing_ok=True)
    plan.log.parent.mkdir(parents=True, exist_ok=True)
    with plan.log.open("w", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            _train_and_evaluate(plan)
        except BaseException:
            traceback.print_exc()
            raise
    note.write_text(json.dumps(plan.identity(), indent=2) + "\n", encoding="utf-8")


def _train_and_evaluate(plan: RunPlan) -> None:
    if plan.arm.recipe is None:
        model = plan.study / MODELS / plan.base
        _write_untrained(plan)
    else:
        model = plan.folder
        _train(plan)
    if plan.stage == RUNS:
        _evaluate(plan, model)


def _train(plan: RunPlan) -> None:
    from transformers.utils import logging

    from kepo.benchmark.validation import Validation
    from kepo.data.files import load_jsonl
    from kepo.recipes.launch import train
    from kepo.recipes.recipe import load_recipe

    logging.disable_progress_bar()
    questions = load_jsonl(plan.study / DATA / "validation.jsonl")
    recipe = load_recipe(f"phantom/{plan.arm.recipe}", plan.overrides())
    train(
        recipe,
        [lambda trainer: Validation(trainer, questions, TRAINED_ON, plan.settings.validate_every, _asking())],
    )


def _write_untrained(plan: RunPlan) -> None:
    """The run folder of an arm that trains nothing."""
    manifest = {
        "status": "finished",
        "seed": plan.seed,
        "config": {"run": {"arm": plan.arm.name, "replicate": f"{plan.base}/seed-{plan.seed}"}},
    }
    plan.folder.mkdir(parents=True, exist_ok=True)
    (plan.folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _evaluate(plan: RunPlan, model: Path) -> None:
    from kepo.data.files import load_jsonl
    from kepo.evaluation.loading import load_backend
    from kepo.evaluation.run import evaluate

    data = plan.study / DATA / "test.jsonl"
    backend = load_backend(str(model), batch_size=256, dtype="float32")
    evaluate(
        load_jsonl(data),
        backend,
        _asking(),
        plan.folder,
        TEST,
        data=str(data),
        split=TEST,
        in_domain=[TRAINED_ON],
        overwrite=True,
        quiet=True,
    )


def _asking() -> EvaluationSettings:
    from kepo.evaluation.settings import EvaluationSettings

    return EvaluationSettings(max_new_tokens=40)
