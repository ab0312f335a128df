"""The sections on training: learning curves, exploration, gate, stability, cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from kepo.reports.claims import Claims
from kepo.reports.curves import OUT_OF_DOMAIN_KEY, Curve, curve, validation_key, window_of
from kepo.reports.document import Block, Cell, Figure, Legend, Row, Section, Table, mean, number, percent, without_empty
from kepo.reports.figures import as_svg, curves_figure
from kepo.reports.palette import arm_styles, drawn_arms
from kepo.reports.results import Drawn
from kepo.reports.study import Arm, RunData, Study
from kepo.statistics.stability import measure, seed_spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

_DEAD = "exploration/all_failed_groups"
_GATE = "gate/open_share"
# Key of a metric -> heading; those with True are shares.
_EXPLORATION = {
    "exploration/correct_before": ("right before exploration, %", True),
    _DEAD: ("dead groups, %", True),
    "exploration/rescued_groups": ("rescued of explored groups, %", True),
    "exploration/attempts_per_rescue": ("attempts per rescue", False),
    "exploration/tokens_per_rescue": ("tokens per rescue", False),
    "exploration/injected_share": ("injected rollouts, %", True),
    "exploration/leaked_hints": ("leaked hints an update", False),
}
_COST = {
    "step_time": "seconds an update",
    "time/rollouts_s": "rollouts, s",
    "time/exploration_s": "exploration, s",
    "time/teacher_s": "teacher, s",
    "teacher/tokens": "teacher tokens an update",
    "exploration/sampled_tokens": "exploration tokens an update",
    "completions/mean_length": "tokens a rollout",
}


def curves_section(study: Study, claims: Claims | None) -> tuple[Section | None, list[Drawn]]:
    """Validation, reward, dead groups and other metrics over updates."""
    chance = claims.chance if claims else {}
    validation = validation_key(study.runs)
    panels: list[tuple[str, str, str, bool, float | None]] = []
    if validation:
        panels.append(("validation", "Validation accuracy, in domain, %", validation, True, chance.get("in-domain")))
    panels += [
        (
            "validation-out",
            "Validation accuracy, out of domain, %",
            OUT_OF_DOMAIN_KEY,
            True,
            chance.get("out-of-domain"),
        ),
        ("reward", "Mean reward", "reward", False, None),
        ("dead", "Dead groups, %", _DEAD, True, None),
        ("kl", "KL divergence from the reference, nats", "kl", False, None),
        ("entropy", "Entropy of the policy, nats", "entropy", False, None),
        ("loss", "Loss", "loss", False, None),
    ]
    drawn = [found for panel in panels if (found := _panel(study, *panel))]
    if not drawn:
        return None, []
    return Section("curves", "Learning curves", (*_preface(study), *_figures(drawn))), drawn


def _preface(study: Study) -> list[Block]:
    arms = drawn_arms(study)
    longest = max((len(run.metrics) for run in study.runs), default=0)
    text = "Lines are means over replicates, bands reach from the lowest to the highest replicate."
    if window_of(longest) > 1:
        text += " All but validation are moving means over a twentieth of a run."
    left_out = [arm.label for arm in study.arms if arm.trained and arm.name not in arms]
    if left_out:
        text += f" To keep the lines apart, {len(arms)} arms are drawn; not drawn: {', '.join(left_out)}."
    return [text, Legend(tuple((name, study.arm(name).label) for name in arms))]


def _figures(drawn: Sequence[Drawn]) -> list[Figure]:
    return [one.figure for one in drawn if one.figure]


def _panel(study: Study, name: str, title: str, key: str, shares: bool, reference: float | None) -> Drawn | None:
    smooth = not key.startswith(("validation/", "eval_"))
    curves = {arm: found for arm in drawn_arms(study) if (found := curve(study.arm(arm), key, smooth=smooth))}
    if not any(len(found.steps) > 1 for found in curves.values()):
        return None
    styles = arm_styles(study)

    def draw() -> Drawing:
        return curves_figure(
            title, curves, styles, percent=shares, from_zero=shares and smooth, reference=reference or None
        )

    alt = f"{title} over updates. " + "; ".join(_course(study, arm, found, shares) for arm, found in curves.items())
    return Drawn(Figure(f"curve-{name}", "", alt, as_svg(draw, f"curve-{name}", alt)), f"curve-{name}", draw)


def _course(study: Study, arm: str, found: Curve, shares: bool) -> str:
    first, last = (percent(end) if shares else number(end) for end in (found.mean[0], found.mean[-1]))
    return f"{study.arm(arm).label}: from {first} to {last}"


def exploration_section(study: Study) -> tuple[Section | None, list[Drawn]]:
    """What exploration found and did, per arm."""
    explored = [arm for arm in study.arms if any(run.series(_DEAD) for run in arm.runs)]
    if not explored:
        return None, []
    shown = {
        key: about for key, about in _EXPLORATION.items() if any(_mean_metric(arm, key) is not None for arm in explored)
    }
    rows = []
    for arm in explored:
        values = [(_mean_metric(arm, key), share) for key, (_, share) in shown.items()]
        cells = tuple(Cell(percent(value) if share else number(value)) for value, share in values)
        rows.append(Row(arm.label, cells, arm.name, _mark(study, arm)))
    note = "Means over all logged updates and replicates. A group is dead when none of its rollouts is right."
    columns = ("arm", *(heading for heading, _ in shown.values()))
    table = Table("What exploration met and did", columns, tuple(rows), (note,))
    panels = (
        ("rescued", "Rescued of explored groups, %", "exploration/rescued_groups", True),
        ("injected", "Injected rollouts, %", "exploration/injected_share", True),
    )
    drawn = [found for panel in panels if (found := _panel(study, *panel, None))]
    return Section("exploration", "Exploration", (table, *_figures(drawn))), drawn


def gate_section(study: Study) -> tuple[Section | None, list[Drawn]]:
    """How often the gate was open."""
    gated = [arm for arm in study.arms if any(run.series(_GATE) for run in arm.runs)]
    if not gated:
        return None, []
    rows = []
    for arm in gated:
        first, last = _ends(arm, _GATE)
        weight, loss = _mean_metric(arm, "distillation/weight"), _mean_metric(arm, "distillation/loss")
        cells = (percent(_mean_metric(arm, _GATE)), percent(first), percent(last), number(weight), number(loss))
        rows.append(Row(arm.label, tuple(map(Cell, cells)), arm.name, _mark(study, arm)))
    columns = ("arm", "open, %", "first fifth, %", "last fifth, %", "weight of the teacher term", "teacher term")
    table = without_empty(Table("Rollouts that the gate let through to the teacher", columns, tuple(rows)))
    drawn = [found for found in (_panel(study, "gate", "Gate open, % of rollouts", _GATE, True, None),) if found]
    return Section("gate", "Gate", (table, *_figures(drawn))), drawn


def stability_section(study: Study) -> Section | None:
    """How steadily the arms trained, and how far their replicates lie apart."""
    rows = []
    for arm in study.arms:
        runs = [run for run in arm.runs if run.metrics]
        if not runs:
            continue
        found = [measure(run.metrics) for run in runs]
        last = [one.last_validation for one in found if one.last_validation is not None]
        cells = (
            str(sum(one.gradient_spikes for one in found)),
            percent(max((one.worst_drop for one in found if one.worst_drop is not None), default=None)),
            percent(mean([one.best_validation for one in found])),
            percent(mean([one.last_validation for one in found])),
            percent(seed_spread(last)),
            number(mean([one.reward_std_between_steps for one in found])),
            number(mean([one.kl_last for one in found])),
        )
        rows.append(Row(arm.label, tuple(map(Cell, cells)), arm.name, _mark(study, arm)))
    columns = (
        "arm",
        "gradient spikes, all runs",
        "worst drop of validation, points",
        "best validation, %",
        "last validation, %",
        "its spread between runs, points",
        "change of reward per step (SD)",
        "KL at the end, nats",
    )
    notes = (
        "A gradient spike is a norm above five times the median of the up to 20 logged before it. The worst drop is "
        "the largest fall below the best so far in any run. Spread is the standard deviation.",
    )
    table = without_empty(Table("Steadiness of training", columns, tuple(rows), notes))
    return Section("stability", "Stability", (table,)) if rows else None


def cost_section(study: Study) -> Section | None:
    """Time and tokens per update, and time in all."""
    rows = []
    for arm in study.arms:
        values = [_median_metric(arm, key) if key == "step_time" else _mean_metric(arm, key) for key in _COST]
        total = mean([_last(run, "train_runtime") for run in arm.runs])
        if any(value is not None for value in (*values, total)):
            cells = (*map(number, values), number(None if total is None else total / 60))
            rows.append(Row(arm.label, tuple(map(Cell, cells)), arm.name, _mark(study, arm)))
    columns = ("arm", *_COST.values(), "minutes a run")
    notes = ("Seconds an update: median over updates, mean over runs; the others are means over logged updates.",)
    table = without_empty(Table("Time and tokens", columns, tuple(rows), notes))
    return Section("cost", "Cost", (table,)) if rows else None


def _mark(study: Study, arm: Arm) -> str:
    return "main" if arm.name == study.main else ""


def _mean_metric(arm: Arm, key: str) -> float | None:
    return _over_runs(arm, key, fmean)


def _median_metric(arm: Arm, key: str) -> float | None:
    from statistics import median

    return _over_runs(arm, key, median)


def _over_runs(arm: Arm, key: str, summary: Callable[[Sequence[float]], float]) -> float | None:
    series = [list(run.series(key).values()) for run in arm.runs]
    return mean([summary(values) for values in series if values])


def _ends(arm: Arm, key: str) -> tuple[float | None, float | None]:
    """Mean over the first and over the last fifth of the logged values."""
    series = [list(values.values()) for run in arm.runs if (values := run.series(key))]
    sizes = [max(1, len(values) // 5) for values in series]
    first = [fmean(values[:size]) for values, size in zip(series, sizes, strict=True)]
    last = [fmean(values[-size:]) for values, size in zip(series, sizes, strict=True)]
    return mean(first), mean(last)


def _last(run: RunData, key: str) -> float | None:
    values = list(run.series(key).values())
    return values[-1] if values else None
