"""The sections on training: learning curves, exploration, gate, stability, cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, median

from kepo.reports.claims import Claims
from kepo.reports.curves import OUT_OF_DOMAIN_KEY, Curve, curve, validation_key, window_of
from kepo.reports.document import (
    NONE,
    Cell,
    Figure,
    Legend,
    Section,
    Table,
    arm_row,
    mean,
    number,
    percent,
    without_empty,
)
from kepo.reports.figures import curves_figure
from kepo.reports.palette import arm_styles, drawn_arms
from kepo.reports.study import Arm, RunData, Study
from kepo.statistics.stability import measure, seed_spread

_ALL_FAILED = "exploration/all_failed_groups"
_GATE = "gate/open_share"
# Key of a metric -> heading; those with True are shares.
_EXPLORATION = {
    "exploration/correct_before": ("correct before exploration, %", True),
    _ALL_FAILED: ("all-failed groups, %", True),
    "exploration/rescued_groups": ("rescued of explored groups, %", True),
    "exploration/attempts_per_rescue": ("attempts per rescue", False),
    "exploration/tokens_per_rescue": ("tokens per rescue", False),
    "exploration/injected_share": ("injected rollouts, %", True),
    "exploration/leaked_hints": ("leaked hints a step", False),
}
_COST = {
    "step_time": "seconds a step",
    "time/rollouts_s": "rollouts, s",
    "time/exploration_s": "exploration, s",
    "time/teacher_s": "teacher, s",
    "teacher/tokens": "teacher tokens a step",
    "exploration/sampled_tokens": "exploration tokens a step",
    "completions/mean_length": "tokens a rollout",
}


def curves_section(study: Study, claims: Claims | None) -> Section | None:
    """Validation, reward, all-failed groups and other metrics over steps."""
    chance = claims.chance if claims else {}
    validation = validation_key(study.runs)
    panels: list[tuple[str, str, str, bool, float | None]] = []
    if validation:
        panels.append(("validation", "Validation accuracy, in domain, %", validation, True, chance.get("in-domain")))
    outside = ("validation-out", "Validation accuracy, out of domain, %", OUT_OF_DOMAIN_KEY, True)
    panels += [
        (*outside, chance.get("out-of-domain")),
        ("reward", "Mean reward", "reward", False, None),
        ("all-failed", "All-failed groups, %", _ALL_FAILED, True, None),
        ("kl", "KL divergence from the reference, nats", "kl", False, None),
        ("entropy", "Entropy of the policy, nats", "entropy", False, None),
        ("loss", "Loss", "loss", False, None),
    ]
    drawn = [found for panel in panels if (found := _panel(study, *panel))]
    return Section("curves", "Learning curves", (_legend(study), *drawn)) if drawn else None


def _legend(study: Study) -> Legend:
    arms = drawn_arms(study)
    longest = max((len(run.metrics) for run in study.runs), default=0)
    text = "Lines are means over replicates, bands reach from the lowest to the highest replicate."
    if window_of(longest) > 1:
        text += " All but validation are moving means over a twentieth of a run."
    left_out = [arm.label for arm in study.arms if arm.trained and arm.name not in arms]
    if left_out:
        text += f" To keep the lines apart, {len(arms)} arms are drawn; not drawn: {', '.join(left_out)}."
    return Legend(text, tuple((name, study.arm(name).label) for name in arms))


def _panel(
    study: Study, name: str, title: str, key: str, shares: bool, reference: float | None = None
) -> Figure | None:
    smooth = not key.startswith(("validation/", "eval_"))
    curves = {arm: found for arm in drawn_arms(study) if (found := curve(study.arm(arm), key, smooth=smooth))}
    if not any(len(found.steps) > 1 for found in curves.values()):
        return None
    styles = arm_styles(study)
    alt = f"{title} over steps. " + "; ".join(_course(study, arm, found, shares) for arm, found in curves.items())
    return Figure(
        name=f"curve-{name}",
        caption="",
        alt=alt,
        draw=lambda: curves_figure(
            title, curves, styles, percent=shares, from_zero=shares and smooth, reference=reference or None
        ),
    )


def _course(study: Study, arm: str, found: Curve, shares: bool) -> str:
    first, last = (percent(end) if shares else number(end) for end in (found.mean[0], found.mean[-1]))
    return f"{study.arm(arm).label}: from {first} to {last}"


def exploration_section(study: Study) -> Section | None:
    """What exploration found and did, per arm."""
    explored = [arm for arm in study.arms if any(run.series(_ALL_FAILED) for run in arm.runs)]
    if not explored:
        return None
    rows = []
    for arm in explored:
        values = [(_mean_metric(arm, key), share) for key, (_, share) in _EXPLORATION.items()]
        rows.append(arm_row(study, arm, [percent(value) if share else number(value) for value, share in values]))
    note = "Means over all logged steps and replicates. A group is all-failed when none of its rollouts is correct."
    columns = ("arm", *(heading for heading, _ in _EXPLORATION.values()))
    table = without_empty(Table("What exploration met and did", columns, tuple(rows), (note,)))
    panels = (
        _panel(study, "rescued", "Rescued of explored groups, %", "exploration/rescued_groups", True),
        _panel(study, "injected", "Injected rollouts, %", "exploration/injected_share", True),
    )
    return Section("exploration", "Exploration", (table, *filter(None, panels)))


def gate_section(study: Study) -> Section | None:
    """How often the gate was open."""
    gated = [arm for arm in study.arms if any(run.series(_GATE) for run in arm.runs)]
    if not gated:
        return None
    rows = []
    for arm in gated:
        shares = (_mean_metric(arm, _GATE), *_ends(arm, _GATE))
        numbers = (_mean_metric(arm, "distillation/weight"), _mean_metric(arm, "distillation/loss"))
        rows.append(arm_row(study, arm, [*map(percent, shares), *map(number, numbers)]))
    columns = ("arm", "open, %", "first fifth, %", "last fifth, %", "weight of the distillation loss")
    caption = "Rollouts that the gate let through to the teacher"
    table = without_empty(Table(caption, (*columns, "distillation loss"), tuple(rows)))
    figure = _panel(study, "gate", "Gate open, % of rollouts", _GATE, True)
    return Section("gate", "Gate", (table, figure) if figure else (table,))


def stability_section(study: Study) -> Section | None:
    """How steadily the arms trained, and how far their replicates lie apart."""
    rows, columns = [], dict[str, str | Cell]()
    for arm in study.arms:
        runs = [run for run in arm.runs if run.metrics]
        if not runs:
            continue
        found = [measure(run.metrics) for run in runs]
        last = [one.last_validation for one in found if one.last_validation is not None]
        drops = [one.worst_drop for one in found if one.worst_drop is not None]
        failed = [mean([one.all_failed_first for one in found]), mean([one.all_failed_last for one in found])]
        columns = {
            "gradient spikes, all runs": str(sum(one.gradient_spikes for one in found)),
            "worst drop of validation, points": Cell(
                percent(mean(drops)), f"at most {percent(max(drops))}" if len(drops) > 1 else ""
            ),
            "best validation, %": percent(mean([one.best_validation for one in found])),
            "last validation, %": percent(mean(last)),
            "its spread between runs, points": percent(seed_spread(last)),
            "all-failed groups, first to last fifth, %": NONE if None in failed else " to ".join(map(percent, failed)),
            "change of reward per step (SD)": number(mean([one.reward_std_between_steps for one in found])),
            "KL at the end, nats": number(mean([one.kl_last for one in found])),
            "runs best before training": _best_before_training(runs),
        }
        rows.append(arm_row(study, arm, tuple(columns.values())))
    notes = (
        "A gradient spike is a norm above five times the median of the up to 20 logged before it. The worst drop is "
        "the largest fall below the best so far, the mean over runs. Spread is the standard deviation. A run that was "
        "never above its start on validation is best before training, and tested as it was then.",
    )
    table = without_empty(Table("Steadiness of training", ("arm", *columns), tuple(rows), notes))
    return Section("stability", "Stability", (table,)) if rows else None


def _best_before_training(runs: Sequence[RunData]) -> str:
    """How many runs had no checkpoint that was better on validation than the weights that they began with."""
    chosen = [steps for run in runs if (steps := list(run.series("validation/best_step").values()))]
    return f"{sum(0 in steps for steps in chosen)} of {len(runs)}" if chosen else NONE


def cost_section(study: Study) -> Section | None:
    """Time and tokens per step, and time in all."""
    rows = []
    for arm in study.arms:
        values = [_over_runs(arm, key, median if key == "step_time" else fmean) for key in _COST]
        total = mean([_last(run, "train_runtime") for run in arm.runs])
        if any(value is not None for value in (*values, total)):
            rows.append(arm_row(study, arm, [*map(number, values), number(None if total is None else total / 60)]))
    columns = ("arm", *_COST.values(), "minutes a run")
    notes = ("Seconds a step: median over steps, mean over runs; the others are means over logged steps.",)
    table = without_empty(Table("Time and tokens", columns, tuple(rows), notes))
    return Section("cost", "Cost", (table,)) if rows else None


def _mean_metric(arm: Arm, key: str) -> float | None:
    return _over_runs(arm, key, fmean)


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
