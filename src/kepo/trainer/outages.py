"""When the teacher or the hint bank fails in a run: all processes stop together, and a checkpoint is written first."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from kepo.errors import ConfigError, DataError, KepoError, TeacherError
from kepo.teachers.base import HintWriter
from kepo.trainer import seams
from kepo.types import Conversation

if TYPE_CHECKING:
    from kepo.trainer.trainer import KEPOTrainer

logger = logging.getLogger(__name__)

T = TypeVar("T")


class StoppedElsewhereError(KepoError):
    """What ended the run happened on another process."""


def together(trainer: KEPOTrainer, call: Callable[[], T]) -> T:
    """`call()`; fails on every process when it fails on one of them. Collective.

    Without this, the other processes would wait in their next collective until it times out, and nothing was saved.

    Raises:
        TeacherError: the teacher failed here.
        ConfigError: a file that the run needs cannot be read or written here.
        DataError: such a file is broken.
        StoppedElsewhereError: one of these happened on another process.
    """
    failure: KepoError | None = None
    try:
        result = call()
    except (TeacherError, ConfigError, DataError) as error:
        failure = error
    if seams.max_over_processes(trainer, int(failure is not None)):
        trainer.failure = failure or StoppedElsewhereError("Another process failed, and says why.")
        raise trainer.failure
    return result


class TogetherWriter:
    """A hint writer whose failure is every process's failure; implements `HintWriter`."""

    def __init__(self, trainer: KEPOTrainer, writer: HintWriter) -> None:
        self._trainer = trainer
        self._writer = writer

    @property
    def name(self) -> str:
        """See `HintWriter.name`."""
        return self._writer.name

    def write_hints(self, conversations: Sequence[Conversation]) -> list[str]:
        """See `HintWriter.write_hints`."""
        return together(self._trainer, lambda: self._writer.write_hints(conversations))


def random_states() -> dict[str, Any]:
    """The states of all generators that training draws from."""
    states = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def _set_random_states(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state_all(states["cuda"])


def save_before_stopping(trainer: KEPOTrainer, states: dict[str, Any] | None, error: KepoError) -> None:
    """Write a checkpoint of the last whole step, and say so in the error. Collective.

    Args:
        trainer: The trainer, inside `train`.
        states: Of the generators when the step that failed began, so that the resumed run draws the same rollouts.
        error: What ended the run, one that `together` raised.
    """
    step = trainer.state.global_step
    if step == 0:
        return
    folder = Path(trainer.args.output_dir) / f"checkpoint-{step}"
    if not folder.is_dir():
        if states is not None:
            _set_random_states(states)
        trainer._save_checkpoint(trainer.model, trial=None)
    error.args = (f"{error} All {step} finished steps are kept in {folder}; go on from there when this is mended.",)
