"""The section that says where the numbers come from: runs, versions, commands, and settings that differ."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kepo.reports.document import NONE, Cell, Section, Table, line, tabulate
from kepo.reports.study import RunData, Study

# What names a run rather than says how it was made.
_NAMES = ("arm", "replicate", "output_dir", "logging_dir", "run_name", "seed", "data_seed", "overwrite", "source")


def provenance_section(study: Study, aside: Sequence[RunData]) -> Section:
    """Runs (those `aside` answered other questions), settings that differ between arms, versions and commands."""
    settings = _settings_table(study)
    tables = (_runs_table(study, aside), _software_table(study), _commands_table(study))
    return Section("provenance", "Provenance", (settings, *tables) if settings.rows else tables)


def _settings_table(study: Study) -> Table:
    """The settings in which the arms differ."""
    trained = [arm for arm in study.arms if arm.trained]
    labels = [arm.label for arm in trained]
    flat = {arm.name: [_flat(run) for run in arm.runs if run.trained] for arm in trained}
    names = sorted({name for found in flat.values() for one in found for name in one})
    rows = []
    for name in names:
        values = [sorted({one.get(name, NONE) for one in flat[arm.name]}) for arm in trained]
        if len({tuple(value) for value in values}) > 1:
            texts = [line(", ".join(value), 80) for value in values]
            rows.append((name, dict(zip(labels, texts, strict=True))))
    return tabulate("Settings in which the arms differ", "setting", rows, (), ("setting", *labels))


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
    rows = [(arm, _facts(run, run.name in others)) for arm in study.arms for run in arm.runs]
    return tabulate("Runs", "arm", rows, (), ("arm", *rows[0][1]), kind="folded")


def _facts(run: RunData, aside: bool) -> dict[str, str | Cell]:
    manifest, status = run.run.manifest, run.run.status
    evaluation = "other questions, not compared" if aside else "yes" if run.evaluation else "none"
    return {
        "replicate": line(run.replicate),
        "status": Cell(line(status), mark="" if status == "finished" else "note"),
        "seed": line(manifest.get("seed", NONE)),
        "steps": _last_step(run),
        "evaluation": Cell(evaluation, mark="note" if aside else ""),
        "started, ended": Cell(line(manifest.get("started", NONE)), line(manifest.get("ended") or "")),
        "device": line(manifest.get("device", NONE)),
        "folder": line(run.name),
    }


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
        rows.append((name, {"version": "; ".join(versions)}))
    return tabulate("Software", "program", rows, (), ("version",), kind="folded")


def _commands_table(study: Study) -> Table:
    rows = [(line(run.name), {"command": line(run.run.manifest.get("command") or NONE, 2000)}) for run in study.runs]
    return tabulate("Commands", "folder", rows, (), ("command",), kind="folded")
