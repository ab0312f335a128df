"""The profile of a run: `profile/phases.json` and `phases.md`, beside the trace that `kepo.trainer.profiling` makes.

Everything is of the main process, and of one optimizer step: the mean over the steps that were measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kepo.files import write_json, write_text

PROFILE = "profile"  # folder of a run folder
TRACE = "trace.json.gz"  # in it, for chrome://tracing and https://ui.perfetto.dev


@dataclass(frozen=True, slots=True)
class PhaseCost:
    """What a phase cost in a step."""

    phase: str
    meaning: str  # in words
    seconds: float
    share: float  # of the step, 0..1
    calls: float
    tokens: float  # that went through the student or a teacher in this process, padding included


@dataclass(frozen=True, slots=True)
class OperatorCost:
    """What an operator cost in a traced step, outside of the operators that it calls."""

    name: str
    seconds: float  # on the GPU where there is one
    share: float  # of all operators, 0..1
    calls: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time of a step goes, and its memory."""

    device: str  # in words
    steps: tuple[int, ...]  # that were measured, without the tracer
    seconds: tuple[float, ...]  # of each of them
    traced_seconds: tuple[float, ...]  # of the steps that were traced after them
    phases: tuple[PhaseCost, ...]
    completion_tokens: float  # of the rollouts of a step, those of exploration excluded
    rollout_tokens_per_second: float | None  # None: no rollouts were made
    peak_memory: int  # bytes
    memory_of: str  # what that is the peak of
    operators: tuple[OperatorCost, ...]

    @property
    def step_seconds(self) -> float:
        """Mean seconds of a measured step."""
        return sum(self.seconds) / len(self.seconds)


def write_profile(folder: Path, profile: Profile) -> None:
    """Write the tables of a profile into the folder `profile/` of a run."""
    write_json(_as_json(profile), folder / "phases.json")
    write_text(profile_as_markdown(profile), folder / "phases.md")


def profile_as_markdown(profile: Profile) -> str:
    """The tables of a profile, for readers."""
    phases = [
        [one.meaning, f"{one.seconds:.3f}", f"{one.share:.1%}", _count(one.calls), _count(one.tokens)]
        for one in profile.phases
    ]
    tokens = sum(one.tokens for one in profile.phases)
    phases.append(["whole step", f"{profile.step_seconds:.3f}", "100.0%", "", _count(tokens)])
    operators = [
        [f"`{one.name}`", f"{one.seconds:.4f}", f"{one.share:.1%}", _count(one.calls)] for one in profile.operators
    ]
    parts = [
        f"# Profile: steps {profile.steps[0]} to {profile.steps[-1]}",
        f"{profile.device}, main process. Means per optimizer step; every phase waited for the device.",
        _table(("phase", "seconds", "of the step", "calls", "tokens computed"), phases),
        "\n".join(_remarks(profile)),
        "## Operators by self time, per traced step",
        _table(("operator", "seconds", "of all", "calls"), operators),
    ]
    return "\n\n".join(parts) + "\n"


def _remarks(profile: Profile) -> list[str]:
    found = [f"- Peak memory: {profile.peak_memory / 2**30:.2f} GiB ({profile.memory_of})."]
    if profile.rollout_tokens_per_second is not None:
        rate = f"{profile.rollout_tokens_per_second:,.0f} tokens per second"
        found.insert(0, f"- Rollouts: {profile.completion_tokens:,.0f} completion tokens, {rate}.")
    measured, traced = (", ".join(f"{one:.3f}" for one in many) for many in (profile.seconds, profile.traced_seconds))
    found.append(f"- Seconds of the steps: {measured}; with the tracer, which the table above is without: {traced}.")
    return found


def _count(number: float) -> str:
    return f"{number:,.1f}".removesuffix(".0") if number else ""


def _as_json(profile: Profile) -> dict[str, Any]:
    return {"step_seconds": profile.step_seconds, **asdict(profile)}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that lines up in a terminal too: the first column to the left, the others to the right."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return "| " + " | ".join([cells[0].ljust(widths[0]), *padded]) + " |"

    rule = "| " + " | ".join(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]) + " |"
    return "\n".join([line(head), rule, *map(line, rows)])
