"""From a recipe to a trained model: the Python function behind `kepo train`."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from accelerate import PartialState
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from kepo.data.contents import contents_of
from kepo.files import write_text
from kepo.recipes.building import build_trainer
from kepo.recipes.inputs import Inputs, read_inputs
from kepo.recipes.recipe import Recipe
from kepo.recipes.requirements import readable_errors
from kepo.runs.folder import claim, older_run_set_aside
from kepo.runs.trained_on import write_trained_on
from kepo.trainer.config import KEPOConfig
from kepo.trainer.model_card import refresh_model_card
from kepo.trainer.probe import WHOLE, Probe, check_trained, look_at_hint, look_at_supervised, say
from kepo.trainer.profiling import check_profile_fits, profiled
from kepo.trainer.resuming import CheckpointWeights
from kepo.trainer.run_folder import RunRecord
from kepo.trainer.trainer import KEPOTrainer

RECIPE = "recipe.yaml"  # file of a run folder: what its recipes and its command line said, as one recipe


@dataclass(frozen=True)
class Result:
    """What a run left behind."""

    folder: Path  # with the trained model and its processor
    history: list[dict[str, Any]]  # every log of the run
    device: str  # where it computed, in words


def train(recipe: Recipe, display: TrainerCallback | None = None, profile_steps: int | None = None) -> Result:
    """Run a recipe. All input is checked before anything is trained, and before an older run is touched.

    Args:
        recipe: As `load_recipe` gives it.
        display: A callback that shows the progress; None: transformers' own.
        profile_steps: Optimizer steps to profile, see `kepo.trainer.profiling`; None: none.
    """
    folder = Path(recipe.training.output_dir)
    inputs = read_inputs(recipe)
    if profile_steps is not None and recipe.training.max_steps > 0:
        check_profile_fits(recipe.training, profile_steps, recipe.training.max_steps)
    state = PartialState()
    checkpoint = claim(folder, overwrite=recipe.run.overwrite, resume=recipe.training.resume_from_checkpoint)
    recipe.training.resume_from_checkpoint = checkpoint
    state.wait_for_everyone()  # all have looked at the folder before one of them changes it
    fresh = checkpoint is None and state.is_main_process
    with older_run_set_aside(folder) if fresh else nullcontext(), readable_errors("The run cannot start"):
        trainer = build_trainer(recipe, inputs)
        say(_probe(trainer, recipe), but=trainer.first_look if isinstance(trainer, KEPOTrainer) else None)
    record = _record(trainer)
    record.describe({"recipe": {"source": recipe.source}, **recipe.parts}, stated=dict(recipe.stated))
    if trainer.is_world_process_zero():
        write_text(recipe.as_yaml(), folder / RECIPE)
    if not isinstance(trainer, KEPOTrainer):  # which does so itself
        _prepare_supervised(trainer, inputs, folder, checkpoint)
    trainer.accelerator.print(f"Training on {record.device}; everything is written to {folder}.")
    if inputs.validation is not None:
        trainer.add_callback(inputs.validation(trainer))
    if display is not None:
        for shown in (ProgressCallback, PrinterCallback):
            trainer.remove_callback(shown)
        trainer.add_callback(display)
    with record.writing(), nullcontext() if profile_steps is None else profiled(trainer, profile_steps):
        trainer.train(resume_from_checkpoint=checkpoint)
        check_trained(trainer.state.global_step)
        trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        refresh_model_card(folder)
    if trainer.args.push_to_hub:
        trainer.push_to_hub()
    return Result(folder, list(trainer.state.log_history), record.device)


def check(recipe: Recipe) -> Probe:
    """What `train` checks before the first step, and one hint of the teacher; nothing is trained or written.

    Raises:
        KepoError: What `train` would stop for.
    """
    inputs = read_inputs(recipe)
    args = recipe.training
    args.report_to, args.push_to_hub = [], False
    if isinstance(args, KEPOConfig):
        args.use_vllm = False  # whose engine takes the GPU; nothing is sampled from the student here
    with TemporaryDirectory() as nowhere, readable_errors("The run cannot start"):
        args.output_dir = nowhere
        trainer = build_trainer(recipe, inputs)
        probe = _probe(trainer, recipe)
        if isinstance(trainer, KEPOTrainer) and trainer.teacher is not None and args.uses_hints:
            probe = replace(probe, hint=look_at_hint(trainer, trainer.teacher))
    return probe


def _prepare_supervised(trainer: Any, inputs: Inputs, folder: Path, checkpoint: str | None) -> None:
    """Keep what is trained on, and resume from weights that are saved under other names."""
    if trainer.is_world_process_zero():
        write_trained_on(folder, contents_of(inputs.questions), resumed=checkpoint is not None)
    if checkpoint is not None:
        trainer.add_callback(CheckpointWeights(trainer, checkpoint))


def _probe(trainer: Any, recipe: Recipe) -> Probe:
    if isinstance(trainer, KEPOTrainer):
        return trainer.probe(WHOLE, recipe.data.prompt_style)
    return look_at_supervised(trainer, WHOLE)


def _record(trainer: Any) -> RunRecord:
    """Who writes the run folder: a `KEPOTrainer` by itself; TRL's trainers are given one that does."""
    if isinstance(trainer, KEPOTrainer):
        return trainer.run_record
    record = RunRecord(trainer)
    trainer.add_callback(record)
    return record
