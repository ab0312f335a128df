"""From folders on disk to the frozen records that a report is made of.

Texts of models are not read here, only numbers: see `kepo.reports.rollouts` for the rollouts that are shown.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kepo.errors import ConfigError, DataError
from kepo.reports.document import line
from kepo.reports.study import Arm, EvaluationData, RunData, Study
from kepo.runs import EVALUATIONS, RUNS, STUDY, Run, find_runs, read_metrics

if TYPE_CHECKING:
    import pyarrow as pa

MAIN_ARM = "kepo"
FIRST_BASELINE = "grpo"
_COLUMNS = (
    *("id", "modality", "task", "level", "permutation", "sample", "answer", "options", "predicted", "correct"),
    *("tokens", "finished", "formatted", "consistent", "statements", "true_statements", "teacher_logp"),
)


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
        DataError: There is no run, a file is damaged, or the title file is not what it should be.
        ConfigError: A baseline is no arm of the study.
    """
    folders = [Path(path) for path in paths]
    described = _description(folders)
    read = [_load_run(run, evaluation) for run in find_runs([_runs_of(folder) for folder in folders])]
    root = _common_root([run.run.folder for run in read])
    runs = _unique([replace(run, name=_relative(run.run.folder, root)) for run in read])
    arms = _arms(runs, described.get("arms", {}))
    main = _main_arm(arms, described.get("main_arm"))
    return Study(
        title=line(title or described.get("title") or root.name or "Report"),
        question=line(described.get("question") or "", 500),
        arms=_with_baselines(arms, main, baselines),
        main=main,
        evaluation=evaluation,
        warnings=tuple(_warnings(runs, evaluation)),
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


def _runs_of(folder: Path) -> Path:
    # A study also holds its trial runs, which are no result.
    runs = folder / RUNS
    return runs if (folder / STUDY).is_file() and runs.is_dir() else folder


def _description(folders: Sequence[Path]) -> dict[str, Any]:
    """The content of the first `study.json` in one of the folders, or in the folder above it."""
    for file in (place / STUDY for folder in folders for place in (folder, folder.resolve().parent)):
        if not file.is_file():
            continue
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{file} is not JSON ({error}); mend it or remove it.") from error
        if not isinstance(content, dict) or not isinstance(content.get("arms", {}), dict):
            raise DataError(f'{file} must hold a record such as {{"title": "...", "arms": {{"kepo": {{...}}}}}}.')
        return content
    return {}


def _load_run(run: Run, evaluation: str) -> RunData:
    metrics = tuple(read_metrics(run.folder))
    return RunData(run, run.folder.name, run.arm, run.replicate, metrics, _load_evaluation(run.folder, evaluation))


def _load_evaluation(folder: Path, name: str) -> EvaluationData | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = folder / EVALUATIONS / f"{name}.parquet"
    if not file.is_file():
        return None
    try:
        with pq.ParquetFile(file) as opened:
            missing = [column for column in _COLUMNS if column not in opened.schema_arrow.names]
            if missing:
                raise DataError(f"{file} has no column {missing[0]!r}; evaluate again with --overwrite.")
            table = opened.read(list(_COLUMNS))
        described = file.with_suffix(".json")
        description = json.loads(described.read_text(encoding="utf-8")) if described.is_file() else {}
    except (OSError, pa.ArrowException, json.JSONDecodeError) as error:
        raise DataError(f"{file} cannot be read ({error}); evaluate again with --overwrite.") from error
    return EvaluationData(file, table, description, _fingerprint(table)) if len(table) else None


def _fingerprint(table: pa.Table) -> str:
    import pyarrow.compute as pc

    own = table.filter(pc.and_(pc.equal(table["permutation"], 0), pc.equal(table["sample"], 0)))
    rows = sorted(map(repr, own.select(["id", "answer", "options"]).to_pylist()))
    return hashlib.sha256("\n".join(rows).encode(errors="surrogatepass")).hexdigest()


def _unique(runs: Sequence[RunData]) -> list[RunData]:
    """The runs, with the folder's name added to a replicate's name that its arm already has."""
    seen: set[tuple[str, str]] = set()
    named = []
    for run in runs:
        taken = (run.arm, run.replicate) in seen
        named.append(replace(run, replicate=f"{run.replicate} [{run.name}]") if taken else run)
        seen.add((run.arm, run.replicate))
    return named


def _arms(runs: Sequence[RunData], described: Mapping[str, Any]) -> list[Arm]:
    def order(name: str) -> tuple[Any, ...]:
        place = (described.get(name) or {}).get("order")
        return (0, place, name) if isinstance(place, int | float) else (1, 0, name)

    names = sorted({run.arm for run in runs}, key=order)
    labels = {name: line((described.get(name) or {}).get("label") or name, 60) or "(no name)" for name in names}
    shared = {label for label, count in Counter(labels.values()).items() if count > 1}
    arms = []
    for name, label in labels.items():
        members = sorted((run for run in runs if run.arm == name), key=lambda run: run.replicate)
        unique = f"{label} ({line(name, 40)})" if label in shared else label
        arms.append(Arm(name, unique, tuple(members), bool((described.get(name) or {}).get("baseline"))))
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
        listed = "; ".join(f"{line(run.name, 80)} ({line(run.run.status, 20)})" for run in unfinished[:5])
        more = f"; and {len(unfinished) - 5} more" if len(unfinished) > 5 else ""
        found.append(f"{len(unfinished)} of {len(runs)} runs are not finished: {listed}{more}.")
    without = [run for run in runs if run.evaluation is None]
    if without and len(without) < len(runs):
        found.append(f"{len(without)} of {len(runs)} runs have no evaluation '{line(evaluation, 40)}'.")
    settings = {
        json.dumps(run.evaluation.description.get("generation"), sort_keys=True) for run in runs if run.evaluation
    }
    if len(settings) > 1:
        found.append("The evaluations were generated with different settings; their accuracies may not be comparable.")
    domains = {run.evaluation.in_domain for run in runs if run.evaluation and run.evaluation.in_domain}
    if len(domains) > 1:
        listed = "; ".join(", ".join(map(line, names)) for names in sorted(domains))
        found.append(f"The evaluations name different modalities as trained on ({listed}); the first ones are used.")
    return found


def _common_root(folders: Sequence[Path]) -> Path:
    """The deepest folder that holds all of them; of a single run, the run itself."""
    return Path(os.path.commonpath([folder.resolve() for folder in folders]))


def _relative(folder: Path, root: Path) -> str:
    inside = folder.resolve().relative_to(root)
    return inside.as_posix() if inside.parts else folder.resolve().name
