"""The weights of a checkpoint, for models whose names on disk are not those in memory.

transformers saves LLaVA and others under the names that older versions read, and its `from_pretrained` translates
them; its Trainer loads a checkpoint by the names on disk, finds none of them, and goes on with the weights that it
began with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import TrainerCallback

from kepo.errors import ConfigError


class CheckpointWeights(TrainerCallback):
    """Puts the weights of the checkpoint that is resumed from into the model, where the trainer could not.

    Args:
        trainer: The trainer. DeepSpeed, FSDP and adapters load in their own ways and are left alone.
        checkpoint: Folder of the checkpoint.
    """

    def __init__(self, trainer: Any, checkpoint: str | Path) -> None:
        self._trainer = trainer
        self._checkpoint = Path(checkpoint)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        own_way = self._trainer.is_deepspeed_enabled or self._trainer.is_fsdp_enabled or hasattr(model, "peft_config")
        if not own_way and names_on_disk(self._checkpoint) - model.state_dict().keys():
            load_translated(model, self._checkpoint)


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
    wrong = [*result.missing_keys, *result.unexpected_keys]
    if wrong:
        raise ConfigError(
            f"{folder} does not hold the weights of this model ({len(wrong)} names differ, such as {wrong[0]!r}), so "
            "the run cannot go on from it; start again with --overwrite"
        )
