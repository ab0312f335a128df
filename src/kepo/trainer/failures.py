"""When the teacher or the hint bank fails in a run: all processes stop together, and a checkpoint is written first."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from kepo.errors import ConfigError, DataError, KepoError, TeacherError
from kepo.teachers.base import HintWriter, MaxOverProcesses
from kepo.types import Conversation

T = TypeVar("T")


class StoppedElsewhereError(KepoError):
    """What ended the run happened on another process."""


class FailTogether:
    """Makes calls that fail on every process when they fail on one of them. Collective.

    Without this, the other processes would wait in their next collective until it times out, and nothing was saved.

    Attributes:
        failure: What the last failed call raised here; None as long as all goes well.
    """

    def __init__(self, max_over_processes: MaxOverProcesses) -> None:
        self._max_over_processes = max_over_processes
        self.failure: KepoError | None = None

    def __call__(self, call: Callable[[], T]) -> T:
        """What `call()` returns.

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
        if self._max_over_processes(int(failure is not None)):
            self.failure = failure or StoppedElsewhereError("Another process failed, and says why.")
            raise self.failure
        return result


class TogetherWriter:
    """A hint writer whose failure is every process's failure; implements `HintWriter`."""

    def __init__(self, writer: HintWriter, together: FailTogether) -> None:
        self._writer = writer
        self._together = together

    @property
    def name(self) -> str:
        """See `HintWriter.name`."""
        return self._writer.name

    def write_hints(self, conversations: Sequence[Conversation]) -> list[str]:
        """See `HintWriter.write_hints`."""
        return self._together(lambda: self._writer.write_hints(conversations))


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


def save_before_stopping(
    output_dir: str, step: int, states: dict[str, Any] | None, save: Callable[[], None], error: KepoError
) -> None:
    """Write a checkpoint of the last whole step, and say so in the error. Collective.

    Args:
        output_dir: Of the run.
        step: Optimizer steps finished.
        states: Of the generators when the step that failed began, so that the resumed run draws the same rollouts.
        save: Writes the checkpoint.
        error: What ended the run, one that a `FailTogether` raised.
    """
    if step == 0:
        return
    folder = Path(output_dir) / f"checkpoint-{step}"
    if not folder.is_dir():
        if states is not None:
            _set_random_states(states)
        save()
    error.args = (f"{error} All {step} finished steps are kept in {folder}; continue from there once this is fixed.",)
