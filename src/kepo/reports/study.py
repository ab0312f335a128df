"""The records that a report is made of: runs, arms, and the study that they form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kepo.runs import Evaluation, Run
from kepo.runs.study import StudyFile

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class RunData:
    """One run."""

    run: Run
    name: str  # its folder, relative to what was given
    arm: str
    replicate: str  # unique within the arm
    metrics: tuple[Mapping[str, Any], ...]  # its logged records, in order
    evaluation: Evaluation | None  # that of the name asked for

    @property
    def cluster(self) -> str:
        """The base student: what stands before "/" in the replicate's name."""
        return self.replicate.split("/")[0]

    @property
    def trained(self) -> bool:
        """Whether it trained anything; an untrained model is there for comparison."""
        return bool(self.metrics) or "training" in self.run.manifest.get("config", {})

    @property
    def table(self) -> pa.Table:
        """The records of its evaluation, which it must have."""
        assert self.evaluation is not None
        return self.evaluation.table

    @property
    def in_domain(self) -> tuple[str, ...]:
        """The modalities trained on, as its evaluation says; empty where it does not."""
        return self.evaluation.in_domain if self.evaluation else ()

    def series(self, key: str) -> dict[int, float]:
        """Step -> value of a metric; of several records of one step the last counts."""
        return {
            int(record["step"]): float(record[key])
            for record in self.metrics
            if isinstance(record.get(key), int | float) and isinstance(record.get("step"), int)
        }


@dataclass(frozen=True, slots=True)
class Arm:
    """One method and its runs."""

    name: str
    label: str
    runs: tuple[RunData, ...]  # in the order of replicates
    baseline: bool = False  # whether the claim is about a comparison with it

    @property
    def trained(self) -> bool:
        """Whether any of its runs trained."""
        return any(run.trained for run in self.runs)

    @property
    def evaluated(self) -> list[RunData]:
        """Its runs with an evaluation."""
        return [run for run in self.runs if run.evaluation]


@dataclass(frozen=True, slots=True)
class Study:
    """All that a report covers."""

    title: str
    question: str  # empty where nobody said
    arms: tuple[Arm, ...]
    main: str | None  # the arm that the others are compared with; None when there is a single one
    evaluation: str
    warnings: tuple[str, ...] = ()  # what was found strange while reading
    described: StudyFile = field(default_factory=StudyFile)

    @property
    def runs(self) -> list[RunData]:
        """All runs, arm by arm."""
        return [run for arm in self.arms for run in arm.runs]

    @property
    def evaluated(self) -> list[RunData]:
        """All runs with an evaluation, arm by arm."""
        return [run for run in self.runs if run.evaluation]

    def arm(self, name: str) -> Arm:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)
