"""Watches whether anything is learned at all: steps without gradient, and runs without steps."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback

from kepo.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

_ZERO = 1e-10  # a gradient norm below this is none
_PATIENCE = 5  # logs in a row


class GradientWatch(TrainerCallback):
    """Warns, once per run, when the gradient was zero in several logs in a row, with the likely reason.

    A run with fewer logs is warned of at its end, if none of its logs had a gradient.

    Args:
        settings: See `likely_reason`.
        patience: Logs in a row, >= 1.
    """

    def __init__(self, settings: Mapping[str, Any], patience: int = _PATIENCE) -> None:
        self._settings, self._patience = settings, patience
        self._still: list[Mapping[str, Any]] = []
        self._moved = self._warned = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._still, self._moved, self._warned = [], False, False

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs or "grad_norm" not in logs:
            return
        if learns(logs):
            self._moved, self._still = True, []
            return
        self._still.append({**logs, "step": state.global_step})
        if len(self._still) >= self._patience:
            self._warn()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._still and not self._moved:
            self._warn()

    def _warn(self) -> None:
        if self._warned:
            return
        self._warned = True
        first, last = self._still[0]["step"], self._still[-1]["step"]
        when = f"in step {first}" if first == last else f"from step {first} to step {last}"
        logger.warning("Nothing was learned %s: %s", when, likely_reason(self._still, self._settings))


def learns(log: Mapping[str, Any]) -> bool:
    """Whether the optimizer step of a log changed the model."""
    return abs(log["grad_norm"]) > _ZERO and log.get("learning_rate") != 0


def likely_reason(logs: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
    """Why nothing was learned in steps, and what to do, as one or two sentences.

    Args:
        logs: At least one log of TRL's trainer without gradient, with the metrics of `docs/inspect.md`.
        settings: `policy_weight`, `mask_truncated_completions` and `exploration` of the run.
    """

    def always(name: str, value: float) -> bool:
        return all(log.get(name) == value for log in logs)

    if all(abs(log["grad_norm"]) > _ZERO for log in logs):
        return "the learning rate is 0. Raise learning_rate, or look at lr_scheduler_type and warmup_steps."
    if settings["mask_truncated_completions"] and always("completions/clipped_ratio", 1.0):
        return (
            "every completion was cut off at max_completion_length, and mask_truncated_completions leaves these out. "
            "Raise max_completion_length, or set mask_truncated_completions to false."
        )
    closed = " The gate was closed too, so the teacher taught nothing." if always("gate/open_share", 0.0) else ""
    if settings["policy_weight"] == 0:
        return (
            "policy_weight is 0 and the gate was closed on every rollout. Lower gate_threshold, or set gate to "
            "'always'."
        )
    if always("frac_reward_zero_std", 1.0):
        mean = [log["reward"] for log in logs if log.get("reward") is not None]
        level = f" ({mean[-1]:.3g} in the last one)" if mean else ""
        explore = ", or switch exploration on ('hint')" if settings["exploration"] == "none" else ""
        return (
            f"within every group all rollouts had the same reward{level}, so there was no advantage.{closed} If the "
            "reward is low: see with `kepo check` whether correct answers are paid, and use a larger num_generations, "
            f"easier questions or a better start{explore}. If it is high, the questions are solved: use harder ones."
        )
    return (
        f"the gradient was exactly 0 and no metric says why.{closed} Look at the rollouts (`kepo inspect`), and that "
        "the model's parameters are trained (`kepo check`)."
    )


def check_steps(max_steps: float, num_train_epochs: float) -> None:
    """Refuse a run of no steps before it begins; transformers would make one step and call the run finished.

    Args:
        max_steps: Of the run; below 0: `num_train_epochs` decides.
        num_train_epochs: Of the run.

    Raises:
        ConfigError: Names the field.
    """
    if max_steps == 0:
        raise ConfigError(
            "max_steps is 0, so nothing would be trained. Give a number of steps, or -1 for whole epochs."
        )
    if max_steps < 0 and num_train_epochs <= 0:
        raise ConfigError(f"num_train_epochs is {num_train_epochs:g}, so nothing would be trained. Raise it.")


def check_trained(steps: int) -> None:
    """Refuse to call a run finished that made no optimizer step.

    Raises:
        DataError: `steps` is 0.
    """
    if steps == 0:
        raise DataError(
            "The run ended without one optimizer step, so nothing was trained and no model is saved. The data gave no "
            "whole generation batch (a stream that is empty, too short, or was read before), or num_train_epochs is 0."
        )
