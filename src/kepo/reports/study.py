"""The records that a report is made of: runs, arms, and the study that they form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kepo.runs import Run

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class EvaluationData:
    """One evaluation of a run.

    Attributes:
        file: Its Parquet file.
        table: Its records, without texts.
        description: The content of its JSON file.
        questions: Fingerprint of the questions asked: ids, true answers and options.
    """

    file: Path
    table: pa.Table
    description: Mapping[str, Any]
    questions: str

    @property
    def in_domain(self) -> tuple[str, ...]:
        """Modalities trained on; empty: not known."""
        return tuple(self.description.get("in_domain") or ())


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
    evaluation: EvaluationData | None

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
        value = (self.run.manifest.get("config", {}).get(part) or {}).get(name)
        return default if value is None else value

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
    described: Mapping[str, Any] = field(default_factory=dict)

    @property
    def runs(self) -> list[RunData]:
        """All runs, arm by arm."""
        return [run for arm in self.arms for run in arm.runs]

    def arm(self, name: str) -> Arm:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)
