"""From folders on disk to the frozen records that a report is made of.

Texts of models are not read here, only numbers: see `kepo.reports.rollouts` for the rollouts that are shown.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

from kepo.errors import ConfigError, DataError
from kepo.evaluation.contamination import in_words
from kepo.reports.document import line
from kepo.reports.study import Arm, RunData, Study
from kepo.reports.tested import marked
from kepo.runs import Run, all_failed_shares, find_runs, read_evaluation, read_metrics
from kepo.runs.study import StudyArm, read_study_file, runs_of

MAIN_ARM = "kepo"
FIRST_BASELINE = "grpo"
ALL_FAILED = "exploration/all_failed_groups"


def load_study(
    paths: Sequence[str | Path], evaluation: str = "test", title: str | None = None, baselines: Sequence[str] = ()
) -> Study:
    """Read every run in and below `paths`.

    Args:
        paths: Run folders, or folders that hold some. With a `study.json` and a folder `runs`, only the latter is read.
        evaluation: Name of the evaluation to report.
        title: Title of the report; default: the study's.
        baselines: Arms that the claim is about; default: the study's, else "grpo" if there is one.

    Raises:
        DataError: There is no run, a file is damaged, or `study.json` is not what it should be.
        ConfigError: A baseline is no arm of the study.
    """
    folders = [Path(path) for path in paths]
    described = read_study_file(folders)
    read = [_load_run(run, evaluation) for run in find_runs([runs_of(folder) for folder in folders])]
    root = _common_root([run.run.folder for run in read])
    runs = _unique([replace(run, name=_relative(run.run.folder, root)) for run in read])
    arms = _arms(runs, described.arms)
    main = _main_arm(arms, described.main_arm)
    return Study(
        title=line(title or described.title or root.name or "Report"),
        question=line(described.question or "", 500),
        arms=_with_baselines(arms, main, baselines),
        main=main,
        evaluation=evaluation,
        warnings=tuple(_warnings(runs, evaluation)),
        described=described,
    )


def same_questions(study: Study) -> tuple[Study, list[RunData]]:
    """The study with only the evaluations that most of its runs share, and the runs whose evaluation was set aside."""
    counted = Counter(run.evaluation.questions for run in study.runs if run.evaluation)
    if len(counted) < 2:
        return study, []
    main = [run.evaluation.questions for run in study.runs if run.evaluation and run.arm == study.main]
    chosen = max(counted, key=lambda questions: (counted[questions], questions in main, questions))
    aside = [run for run in study.runs if run.evaluation and run.evaluation.questions != chosen]
    left = {id(run) for run in aside}
    arms = tuple(
        replace(arm, runs=tuple(replace(run, evaluation=None) if id(run) in left else run for run in arm.runs))
        for arm in study.arms
    )
    return replace(study, arms=arms), aside


def _load_run(run: Run, name: str) -> RunData:
    found = read_evaluation(run.folder, name, texts=False) if name in run.evaluations else None
    evaluation = found if found is not None and len(found.table) else None
    return RunData(run, run.folder.name, run.arm, run.replicate, tuple(_metrics(run)), evaluation)


def _metrics(run: Run) -> list[dict[str, Any]]:
    """What was logged; the share of all-failed groups also where only the rollouts say it."""
    metrics = read_metrics(run.folder)
    if any(ALL_FAILED in record for record in metrics):
        return metrics
    with suppress(DataError):  # of a damaged log, which `read_rollout_data` reports
        metrics += [{"step": step, ALL_FAILED: share} for step, share in all_failed_shares(run).items()]
    return metrics


def _unique(runs: Sequence[RunData]) -> list[RunData]:
    """The runs, with the folder's name added to a replicate's name that its arm already has."""
    seen: set[tuple[str, str]] = set()
    named = []
    for run in runs:
        taken = (run.arm, run.replicate) in seen
        named.append(replace(run, replicate=f"{run.replicate} [{run.name}]") if taken else run)
        seen.add((run.arm, run.replicate))
    return named


def _arms(runs: Sequence[RunData], described: Mapping[str, StudyArm]) -> list[Arm]:
    shown = {run.arm: described.get(run.arm, StudyArm()) for run in runs}
    names = sorted(shown, key=lambda name: (inf if shown[name].order is None else shown[name].order, name))
    labels = {name: line(shown[name].label or name, 60) or "(no name)" for name in names}
    shared = {label for label, count in Counter(labels.values()).items() if count > 1}
    arms = []
    for name, label in labels.items():
        members = sorted((run for run in runs if run.arm == name), key=lambda run: run.replicate)
        unique = f"{label} ({line(name, 40)})" if label in shared else label
        arms.append(marked(Arm(name, unique, tuple(members), shown[name].baseline)))
    return arms


def _main_arm(arms: Sequence[Arm], described: str | None) -> str | None:
    names = [arm.name for arm in arms]
    trained = [arm.name for arm in arms if arm.trained] or names
    if len(names) == 1:
        return None
    return next((name for name in (described, MAIN_ARM) if name in names), trained[-1])


def _with_baselines(arms: Sequence[Arm], main: str | None, wanted: Sequence[str]) -> tuple[Arm, ...]:
    names = [arm.name for arm in arms]
    for name in wanted:
        if name not in names or name == main:
            others = ", ".join(repr(other) for other in names if other != main) or "none"
            raise ConfigError(f"--baseline {name!r} is no arm to compare {main!r} with; there are {others}.")
    chosen = set(wanted) or {arm.name for arm in arms if arm.baseline and arm.name != main}
    if not chosen and FIRST_BASELINE in names and main != FIRST_BASELINE:
        chosen = {FIRST_BASELINE}
    return tuple(replace(arm, baseline=arm.name in chosen) for arm in arms)


def _warnings(runs: Sequence[RunData], evaluation: str) -> list[str]:
    found = []
    unfinished = [run for run in runs if run.run.status != "finished"]
    if unfinished:
        listed = _some([f"{line(run.name, 80)} ({line(run.run.status, 20)})" for run in unfinished])
        found.append(f"{len(unfinished)} of {len(runs)} runs are not finished: {listed}.")
    without = [run for run in runs if run.evaluation is None]
    if without and len(without) < len(runs):
        found.append(f"{len(without)} of {len(runs)} runs have no evaluation '{line(evaluation, 40)}'.")
    settings = {
        json.dumps(run.evaluation.description.get("generation"), sort_keys=True) for run in runs if run.evaluation
    }
    if len(settings) > 1:
        found.append("The evaluations were generated with different settings; their accuracies may not be comparable.")
    seen: dict[str, list[str]] = {}
    for run in runs:
        if run.evaluation and (words := in_words(run.evaluation.description)):
            seen.setdefault(words, []).append(line(run.name, 80))
    found += [f"Contamination: {words} Runs: {_some(names)}." for words, names in seen.items()]
    domains = {run.evaluation.in_domain for run in runs if run.evaluation and run.evaluation.in_domain}
    if len(domains) > 1:
        listed = "; ".join(", ".join(map(line, names)) for names in sorted(domains))
        found.append(f"The evaluations name different modalities as trained on ({listed}); the first ones are used.")
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}"


def _common_root(folders: Sequence[Path]) -> Path:
    """The deepest folder that holds all of them; of a single run, the run itself."""
    return Path(os.path.commonpath([folder.resolve() for folder in folders]))


def _relative(folder: Path, root: Path) -> str:
    inside = folder.resolve().relative_to(root)
    return inside.as_posix() if inside.parts else folder.resolve().name
