"""The records that a report is made of: runs, arms, and the study that they form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kepo.runs import Evaluation, Run
from kepo.runs.study import StudyFile


@dataclass(frozen=True, slots=True)
class RunData:
    """One run.

    Attributes:
        run: The run folder.
        name: Its folder, relative to what was given.
        arm: Name of its arm.
        replicate: Which repetition, unique within the arm.
        metrics: Its logged records, in order.
        evaluation: Its evaluation of the name asked for; None if it has none.
    """

    run: Run
    name: str
    arm: str
    replicate: str
    metrics: tuple[Mapping[str, Any], ...]
    evaluation: Evaluation | None

    @property
    def cluster(self) -> str:
        """The base student: what stands before "/" in the replicate's name."""
        return self.replicate.split("/")[0]

    @property
    def trained(self) -> bool:
        """Whether it trained anything; an untrained model is there for comparison."""
        return bool(self.metrics) or "training" in self.run.manifest.get("config", {})

    def setting(self, part: str, name: str, default: Any = None) -> Any:
        """A field of the run's config; the default where it is missing or null."""
        return self.run.setting(part, name, default)

    def series(self, key: str) -> dict[int, float]:
        """Step -> value of a metric; of several records of one step the last counts."""
        return {
            int(record["step"]): float(record[key])
            for record in self.metrics
            if isinstance(record.get(key), int | float) and isinstance(record.get("step"), int)
        }


@dataclass(frozen=True, slots=True)
class Arm:
    """One method and its runs.

    Attributes:
        name: As in the runs.
        label: For people.
        runs: Its replicates, in the order of their names.
        baseline: Whether the claim is about a comparison with it.
    """

    name: str
    label: str
    runs: tuple[RunData, ...]
    baseline: bool = False

    @property
    def trained(self) -> bool:
        """Whether any of its runs trained."""
        return any(run.trained for run in self.runs)


@dataclass(frozen=True, slots=True)
class Study:
    """All that a report covers.

    Attributes:
        title: Its title.
        question: What it asks; empty where nobody said.
        arms: In order.
        main: Name of the arm that the others are compared with; None when there is a single one.
        evaluation: Name of the evaluation.
        warnings: What was found strange while reading.
        described: The content of its `study.json`.
    """

    title: str
    question: str
    arms: tuple[Arm, ...]
    main: str | None
    evaluation: str
    warnings: tuple[str, ...] = ()
    described: StudyFile = field(default_factory=StudyFile)

    @property
    def runs(self) -> list[RunData]:
        """All runs, arm by arm."""
        return [run for arm in self.arms for run in arm.runs]

    def arm(self, name: str) -> Arm:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)
