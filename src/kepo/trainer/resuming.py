"""What a run needs to stop after a failure and to continue from a checkpoint."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from transformers import TrainerCallback

from kepo.errors import ConfigError, KepoError


class CheckpointWeights(TrainerCallback):
    """Loads the weights of a checkpoint into models whose names on disk are not those in memory.

    transformers saves LLaVA and others under the names that older versions read, and its `from_pretrained` translates
    them; its Trainer loads a checkpoint by the names on disk, finds none of them, and continues with the weights that
    it has: those it began with when it resumes, the last ones with `load_best_model_at_end`.

    Args:
        trainer: The trainer. DeepSpeed, FSDP and adapters load in their own ways and are left alone.
        checkpoint: Folder of the checkpoint that the run continues from; None: it starts.
    """

    def __init__(self, trainer: Any, checkpoint: str | Path | None) -> None:
        self._trainer = trainer
        self._checkpoint = checkpoint

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._checkpoint is not None:
            self._load(Path(self._checkpoint))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            self._load(Path(state.best_model_checkpoint))

    def _load(self, checkpoint: Path) -> None:
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        own_way = self._trainer.is_deepspeed_enabled or self._trainer.is_fsdp_enabled or hasattr(model, "peft_config")
        if not own_way and names_on_disk(checkpoint) - model.state_dict().keys():
            load_translated(model, checkpoint)


def names_on_disk(folder: Path) -> set[str]:
    """The names of all weights in the safetensors files of a folder."""
    names: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            names.update(weights.keys())
    return names


def load_translated(model: Any, folder: Path) -> None:
    """Load the weights in `folder` as `from_pretrained` does, into the parameters that are there.

    Raises:
        ConfigError: Weights are missing or too many.
    """
    saved = type(model).from_pretrained(folder, dtype=model.dtype)
    result = model.load_state_dict(saved.state_dict(), strict=False)
    different = [*result.missing_keys, *result.unexpected_keys]
    if different:
        raise ConfigError(
            f"{folder} does not hold the weights of this model ({len(different)} names differ, such as "
            f"{different[0]!r}), so the run cannot go on from it; start again with --overwrite"
        )


def random_states() -> dict[str, Any]:
    """The states of all generators that training draws from."""
    states = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def save_before_stopping(
    output_dir: str, step: int, states: dict[str, Any] | None, save: Callable[[], None], error: KepoError
) -> None:
    """Write a checkpoint after `step` finished optimizer steps, and say so in the error. Collective.

    `states` are those of the generators when the step that failed began, so that the resumed run draws the same
    rollouts.
    """
    if step == 0:
        return
    folder = Path(output_dir) / f"checkpoint-{step}"
    if not folder.is_dir():
        if states is not None:
            random.setstate(states["python"])
            np.random.set_state(states["numpy"])
            torch.set_rng_state(states["cpu"])
            if "cuda" in states:
                torch.cuda.set_rng_state_all(states["cuda"])
        save()
    error.args = (f"{error} All {step} finished steps are kept in {folder}; continue from there once this is fixed.",)
