"""What the benchmarks share: arms that take turns in one process, and a report as Markdown and JSON.

    samples = interleave({"plain": plain, "ours": ours}, rounds=5)
    ratio(samples["ours"]["seconds"], samples["plain"]["seconds"])

Arms run one after the other, again and again (plain, ours, plain, ours, ...), so that what else the machine does falls
on all of them. Ratios are taken within a round, and their median is reported with the least and the largest.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Metrics = Mapping[str, float]
"""What one turn of an arm measured, by name."""

Samples = dict[str, dict[str, list[float]]]
"""By arm and metric: one value per round."""

_PACKAGES = ("kepo", "torch", "trl", "transformers")


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and largest of some samples."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 2) -> str:
        """As a cell of a table: `median (low-high)`."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


def interleave(
    arms: Mapping[str, Callable[[], Metrics | None]],
    rounds: int,
    *,
    warmup: int = 1,
    budget: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Samples:
    """Let all arms take turns, `rounds` times, in their order.

    Args:
        arms: By name: one turn of the arm. What it returns is kept beside its `seconds`.
        rounds: Rounds that count, >= 1.
        warmup: Rounds before them that do not count.
        budget: Seconds after which no further round begins, that is foreseen to end after them; one round is always
            made. None: all rounds.
        clock: Seconds since some moment.

    Returns:
        `seconds` and the arm's own metrics, each a list of at most `rounds` values, equally many in all arms.
    """
    begin = clock()
    for _ in range(warmup):
        for turn in arms.values():
            turn()
    samples: Samples = {name: {} for name in arms}
    longest = 0.0
    for done in range(rounds):
        round_begin = clock()
        if done and budget is not None and round_begin - begin + longest > budget:
            break
        for name, turn in arms.items():
            start = clock()
            metrics = turn() or {}
            for metric, value in {"seconds": clock() - start, **metrics}.items():
                samples[name].setdefault(metric, []).append(value)
        longest = max(longest, clock() - round_begin)
    return samples


def ratio(values: Sequence[float], base: Sequence[float]) -> Spread:
    """Median, least and largest of `values` / `base`, round by round."""
    return Spread.of([value / other for value, other in zip(values, base, strict=True)])


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a report; numbers that a reader may want to compute with are in its `rows` as they are."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    def markdown(self) -> str:
        """The title, the note, and the table; a `Spread` and a float with two digits."""
        lines = [f"### {self.title}", ""]
        lines += [self.note, ""] if self.note else []
        lines += [_line(self.columns), _line(["---"] * len(self.columns))]
        return "\n".join([*lines, *(_line([_cell(value) for value in row]) for row in self.rows)])


@dataclass(slots=True)
class Report:
    """What a benchmark found.

    Attributes:
        benchmark: Its name, as in `python -m benchmarks.NAME`.
        settings: What was measured, by name.
        tables: For readers.
        samples: Every single value, by part, arm and metric.
        conditions: Machine, threads and versions.
    """

    benchmark: str
    settings: Mapping[str, Any]
    tables: list[Table] = field(default_factory=list)
    samples: dict[str, Samples] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=lambda: conditions())

    def markdown(self) -> str:
        """The report as it goes into docs/benchmarks.md."""
        facts = [facts for facts in (self.conditions, self.settings) if facts]
        said = ["; ".join(f"{name} {value}" for name, value in one.items()) + "." for one in facts]
        tables = [table.markdown() for table in self.tables]
        return "\n\n".join([f"## benchmarks.{self.benchmark}", *said, *tables]) + "\n"

    def as_json(self) -> dict[str, Any]:
        """Conditions, settings, tables and samples."""
        return {
            "benchmark": self.benchmark,
            "conditions": dict(self.conditions),
            "settings": dict(self.settings),
            "tables": [
                {
                    "title": table.title,
                    "columns": list(table.columns),
                    "rows": [[_plain(value) for value in row] for row in table.rows],
                }
                for table in self.tables
            ],
            "samples": self.samples,
        }

    def write(self, file: Path | None) -> None:
        """Print the report; write the JSON to `file` if there is one, and the tables beside it."""
        sys.stdout.write(self.markdown())
        sys.stdout.flush()
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(self.as_json(), indent=1) + "\n")
            file.with_suffix(".md").write_text(self.markdown())


def conditions(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores, threads of torch, load of the machine, and versions."""
    import torch

    found: dict[str, Any] = {
        "processor": _processor(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    with contextlib.suppress(OSError):  # not on every system
        found["load"] = round(os.getloadavg()[0], 1)
    found["Python"] = platform.python_version()
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes: `--quick` and `--json`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample here, and the tables beside it")
    return parser


def _processor(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Spread):
        return value.text()
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    return {"median": value.median, "min": value.low, "max": value.high} if isinstance(value, Spread) else value
