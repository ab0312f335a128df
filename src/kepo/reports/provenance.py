"""The section that says where the numbers come from: runs, versions, commands, and settings that differ."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kepo.reports.document import NONE, Cell, Row, Section, Table, line
from kepo.reports.study import RunData, Study

# What names a run rather than says how it was made.
_NAMES = ("arm", "replicate", "output_dir", "logging_dir", "run_name", "seed", "data_seed", "overwrite", "source")


def provenance_section(study: Study, aside: Sequence[RunData]) -> Section:
    """Runs, settings that differ between arms, versions and commands.

    Args:
        study: The study.
        aside: Runs whose evaluation asked other questions.
    """
    tables = (_settings_table(study), _runs_table(study, aside), _software_table(study), _commands_table(study))
    return Section("provenance", "Provenance", tuple(table for table in tables if table))


def _settings_table(study: Study) -> Table | None:
    """The settings in which the arms differ; None where they do not."""
    trained = [arm for arm in study.arms if arm.trained]
    flat = {arm.name: [_flat(run) for run in arm.runs if run.trained] for arm in trained}
    names = sorted({name for found in flat.values() for one in found for name in one})
    rows = []
    for name in names:
        values = [sorted({one.get(name, NONE) for one in flat[arm.name]}) for arm in trained]
        if len({tuple(value) for value in values}) > 1:
            rows.append(Row(name, tuple(Cell(line(", ".join(value), 80)) for value in values)))
    columns = ("setting", *(arm.label for arm in trained))
    return Table("Settings in which the arms differ", columns, tuple(rows), (), columns) if rows else None


def _flat(run: RunData) -> dict[str, str]:
    """Setting -> value as text, without what only names the run."""
    return dict(_walk(run.run.manifest.get("config") or {}, ""))


def _walk(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in config.items():
        if name in _NAMES:
            continue
        if isinstance(value, Mapping):
            yield from _walk(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
            yield line(f"{prefix}{name}", 80), line(text, 80)


def _runs_table(study: Study, aside: Sequence[RunData]) -> Table:
    others = {run.name for run in aside}
    rows = []
    for arm in study.arms:
        for run in arm.runs:
            manifest = run.run.manifest
            unfinished = run.run.status != "finished"
            evaluation = "other questions, not compared" if run.name in others else "yes" if run.evaluation else "none"
            cells = (
                Cell(line(run.replicate)),
                Cell(line(run.run.status), mark="note" if unfinished else ""),
                Cell(line(manifest.get("seed", NONE))),
                Cell(_last_step(run)),
                Cell(evaluation, mark="note" if run.name in others else ""),
                Cell(line(manifest.get("started", NONE)), line(manifest.get("ended") or "")),
                Cell(line(manifest.get("device", NONE))),
                Cell(line(run.name)),
            )
            rows.append(Row(arm.label, cells, arm.name))
    columns = ("arm", "replicate", "status", "seed", "steps", "evaluation", "started, ended", "device", "folder")
    return Table("Runs", columns, tuple(rows), (), columns, kind="folded")


def _last_step(run: RunData) -> str:
    steps = [record["step"] for record in run.metrics if isinstance(record.get("step"), int)]
    return str(max(steps)) if steps else NONE


def _software_table(study: Study) -> Table:
    """Version -> how many runs used it; one line per program."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for run in study.runs:
        manifest = run.run.manifest
        git = manifest.get("git") or {}
        commit = f"{git['commit']}{'' if git.get('clean') else ' with changes'}" if git.get("commit") else None
        own = {"python": manifest.get("python"), "git commit": commit, "platform": manifest.get("platform")}
        for name, version in {**(manifest.get("versions") or {}), **own}.items():
            if version:
                found[line(name, 40)][line(version)] += 1
    rows = []
    for name, counts in found.items():
        several = len(counts) > 1
        versions = (f"{version} ({count} runs)" if several else version for version, count in counts.items())
        rows.append(Row(name, (Cell("; ".join(versions)),)))
    return Table("Software", ("program", "version"), tuple(rows), (), ("version",), kind="folded")


def _commands_table(study: Study) -> Table:
    rows = [Row(line(run.name), (Cell(line(run.run.manifest.get("command") or NONE, 2000)),)) for run in study.runs]
    return Table("Commands", ("folder", "command"), tuple(rows), (), ("command",), kind="folded")
