"""Settings that move during training: the gate's threshold tau and the distillation loss's weight lambda."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from kepo.errors import ConfigError

ScheduleKind: TypeAlias = Literal["constant", "linear", "cosine"]

SCHEDULE_KINDS: tuple[str, ...] = get_args(ScheduleKind)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A number that goes from `start` to `end` as training goes from 0 to 1.

    Attributes:
        start: Value at the beginning.
        end: Value at the end; None keeps `start` throughout, whatever the kind.
        kind: One of `SCHEDULE_KINDS`: `constant`, `linear`, or `cosine` (half a cosine wave, flat at both ends).

    Raises:
        ConfigError: `kind` is unknown, a value is not finite, or a `constant` schedule is given another `end`.
    """

    start: float
    end: float | None = None
    kind: str = "constant"

    def __post_init__(self) -> None:
        if self.kind not in SCHEDULE_KINDS:
            raise ConfigError(f"schedule kind {self.kind!r} is unknown; use one of {', '.join(SCHEDULE_KINDS)}.")
        for name, value in (("start", self.start), ("end", self.end)):
            if value is not None and not math.isfinite(value):
                raise ConfigError(f"the {name} of a schedule is {value}; it must be a finite number.")
        if self.kind == "constant" and self.end is not None and self.end != self.start:
            raise ConfigError(
                f"a constant schedule cannot go from {self.start} to {self.end}; use kind 'linear' or 'cosine', or "
                "leave the end out."
            )

    def at(self, progress: float) -> float:
        """The value at `progress`, the fraction of training done; clamped to [0, 1]."""
        if self.end is None or self.kind == "constant":
            return self.start
        done = min(max(progress, 0.0), 1.0)
        if self.kind == "cosine":
            done = 0.5 * (1.0 - math.cos(math.pi * done))
        # This form, unlike start + done * (end - start), reaches `end` exactly.
        return (1.0 - done) * self.start + done * self.end
