"""The section that says what was run and tested, and how settings were chosen."""

from __future__ import annotations

from collections.abc import Iterable

from kepo.reports.claims import Claims
from kepo.reports.document import Section, Table, line, percent, tabulate
from kepo.reports.study import Study
from kepo.reports.tested import Weights, weights_tested


def setup_section(study: Study, claims: Claims | None) -> Section:
    """What was run and tested, and how settings were chosen."""
    return Section("setup", "Setup", tuple(filter(None, (_setup_table(study, claims), _tuning_table(study)))))


def _setup_table(study: Study, claims: Claims | None) -> Table:
    trained = [run.run for run in study.runs if run.trained]
    generation = [run.evaluation.description.get("generation", {}) for run in study.evaluated if run.evaluation]
    questions = [f"{claims.questions[name]} {name}" for name in claims.domains] if claims else []
    machines = [filter(None, (run.manifest.get("platform"), run.manifest.get("device"))) for run in trained]
    facts = {
        "replicates": _distinct(run.replicate for run in study.runs),
        "trained on": _distinct(name for run in study.evaluated for name in run.in_domain),
        "optimizer steps": _distinct(run.setting("training", "max_steps", "") for run in trained),
        "rollouts a step and device": _distinct(
            run.setting("training", "per_device_train_batch_size", "") for run in trained
        ),
        "test questions": ", ".join(questions),
        "tested": _distinct(_rule(found) for run in study.evaluated if (found := weights_tested(run))),
        "temperature": _distinct(settings.get("temperature", "") for settings in generation),
        "machine": _distinct(map(", ".join, machines)),
    }
    rows = [(name, {"value": line(text, 500)}) for name, text in facts.items() if text]
    return tabulate("What was run and tested", "what", rows, (), ("value",))


def _rule(found: Weights) -> str:
    if not found.chosen_by:
        return "the weights at the end of training"
    return f"the weights with the best in-domain accuracy on {line(found.chosen_by, 40)} questions"


def _distinct(values: Iterable[object]) -> str:
    return ", ".join(sorted({str(value) for value in values if value not in ("", None)}))


def _tuning_table(study: Study) -> Table | None:
    """What the study's own file says about the choice of a setting; None where it says nothing."""
    tuning = study.described.tuning
    if not tuning:
        return None
    labels = {arm.name: arm.label for arm in study.arms}
    values = list(dict.fromkeys(value for scores in tuning.scores.values() for value in scores))
    rows = [
        (
            line(labels.get(arm, arm)),
            {**{line(v): percent(scores.get(v)) for v in values}, "chosen": line(tuning.chosen[arm])},
        )
        for arm, scores in tuning.scores.items()
    ]
    note = "In-domain validation accuracy of trial runs, in percent; their seeds are not among those of the study."
    return tabulate(f"Choice of {line(tuning.field, 40)}", "arm", rows, (note,))
