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
    mean,
    number,
    percent,
    tabulate,
    without_empty,
)
from kepo.reports.figures import arm_styles, curves_figure, drawn_arms
from kepo.reports.load import ALL_FAILED
from kepo.reports.study import Arm, RunData, Study
from kepo.statistics.stability import mean_of_fifth, measure, seed_spread

_GATE = "gate/open_share"
# Key of a metric -> heading, and how its mean is written.
_EXPLORATION: dict[str, tuple[str, Callable[[float | None], str]]] = {
    ALL_FAILED: ("all-failed groups, %", percent),
    "exploration/correct_before": ("correct before exploration, %", percent),
    "exploration/rescued_groups": ("rescued of explored groups, %", percent),
    "exploration/attempts_per_rescue": ("attempts per rescue", number),
    "exploration/tokens_per_rescue": ("tokens per rescue", number),
    "exploration/injected_share": ("injected rollouts, %", percent),
    "exploration/truncated_samples": ("samples cut off a step", number),
    "exploration/leaked_hints": ("leaked hints a step", number),
}
_COST = {
    "step_time": "seconds a step",
    "time/rollouts_s": "rollouts, s",
    "time/exploration_s": "exploration, s",
    "time/rewards_s": "rewards, s",
    "time/teacher_s": "teacher, s",
    "time/logprobs_s": "log-probabilities, s",
    "time/training_s": "forward and backward, s",
    "time/optimizer_s": "optimizer, s",
    "teacher/tokens": "teacher tokens a step",
    "exploration/sampled_tokens": "exploration tokens a step",
    "completions/mean_length": "tokens a rollout",
}


def curves_section(study: Study, claims: Claims | None) -> Section | None:
    """Validation, reward, all-failed groups and other metrics over steps."""
    chance = claims.chance if claims else {}
    inside, outside = chance.get("in-domain"), chance.get("out-of-domain")
    panels = (
        _panel(study, "validation", "Validation accuracy, in domain, %", validation_key(study.runs), True, inside),
        _panel(study, "validation-out", "Validation accuracy, out of domain, %", OUT_OF_DOMAIN_KEY, True, outside),
        _panel(study, "reward", "Mean reward", "reward"),
        _panel(study, "all-failed", "All-failed groups, %", ALL_FAILED, True),
        _panel(study, "kl", "KL divergence from the reference, nats", "kl"),
        _panel(study, "entropy", "Entropy of the policy, nats", "entropy"),
        _panel(study, "loss", "Loss", "loss"),
    )
    drawn = tuple(filter(None, panels))
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
    study: Study, name: str, title: str, key: str | None, shares: bool = False, reference: float | None = None
) -> Figure | None:
    """A metric of every arm over steps; None where no arm logged it twice."""
    if key is None:
        return None
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
    rows = [
        (arm, {heading: shown(_over_runs(arm, key)) for key, (heading, shown) in _EXPLORATION.items()})
        for arm in _logging(study, ALL_FAILED)
    ]
    note = "Means over all logged steps and replicates. A group is all-failed when none of its rollouts is correct."
    caption = "All-failed groups, and what exploration did"
    table = tabulate(caption, "arm", rows, (note, "Arms without exploration have the first only."), main=study.main)
    panels = (
        _panel(study, "rescued", "Rescued of explored groups, %", "exploration/rescued_groups", True),
        _panel(study, "injected", "Injected rollouts, %", "exploration/injected_share", True),
    )
    return Section("exploration", "Exploration", (without_empty(table), *filter(None, panels))) if rows else None


def gate_section(study: Study) -> Section | None:
    """How often the gate was open."""
    rows = [
        (
            arm,
            {
                "open, %": percent(_over_runs(arm, _GATE)),
                "first fifth, %": percent(_over_runs(arm, _GATE, lambda values: mean_of_fifth(values, last=False))),
                "last fifth, %": percent(_over_runs(arm, _GATE, lambda values: mean_of_fifth(values, last=True))),
                "weight of the distillation loss": number(_over_runs(arm, "distillation/weight")),
                "distillation loss": number(_over_runs(arm, "distillation/loss")),
            },
        )
        for arm in _logging(study, _GATE)
    ]
    table = tabulate("Rollouts that the gate let through to the teacher", "arm", rows, main=study.main)
    figure = _panel(study, "gate", "Gate open, % of rollouts", _GATE, True)
    return Section("gate", "Gate", (without_empty(table), *filter(None, [figure]))) if rows else None


def stability_section(study: Study) -> Section | None:
    """How steadily the arms trained, and how far their replicates lie apart."""
    trained = [(arm, [run for run in arm.runs if run.metrics]) for arm in study.arms]
    rows = [(arm, _steadiness(runs)) for arm, runs in trained if runs]
    note = (
        "A gradient spike is a norm above five times the median of the up to 20 logged before it. The worst drop is "
        "the largest fall below the best so far, the mean over runs. Spread is the standard deviation. A run that was "
        "never above its start on validation is best before training, and tested as it was then."
    )
    table = without_empty(tabulate("Steadiness of training", "arm", rows, (note,), main=study.main))
    return Section("stability", "Stability", (table,)) if rows else None


def _steadiness(runs: Sequence[RunData]) -> dict[str, str | Cell]:
    found = [measure(run.metrics) for run in runs]
    last = [one.last_validation for one in found if one.last_validation is not None]
    drops = [one.worst_drop for one in found if one.worst_drop is not None]
    failed = [mean([one.all_failed_first for one in found]), mean([one.all_failed_last for one in found])]
    # A run whose best step is 0 had no checkpoint that was better on validation than the weights that it began with.
    best = [steps for run in runs if (steps := list(run.series("validation/best_step").values()))]
    return {
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
        "runs best before training": f"{sum(0 in steps for steps in best)} of {len(runs)}" if best else NONE,
    }


def cost_section(study: Study) -> Section | None:
    """Time and tokens per step, and time in all."""
    rows = []
    for arm in study.arms:
        values = {name: _over_runs(arm, key, median if key == "step_time" else fmean) for key, name in _COST.items()}
        values["minutes a run"] = _over_runs(arm, "train_runtime", lambda seconds: seconds[-1] / 60)
        if any(value is not None for value in values.values()):
            rows.append((arm, {name: number(value) for name, value in values.items()}))
    note = "Seconds a step: median over steps, mean over runs; the others are means over logged steps."
    table = without_empty(tabulate("Time and tokens", "arm", rows, (note,), main=study.main))
    return Section("cost", "Cost", (table,)) if rows else None


def _logging(study: Study, key: str) -> list[Arm]:
    return [arm for arm in study.arms if any(run.series(key) for run in arm.runs)]


def _over_runs(arm: Arm, key: str, summary: Callable[[Sequence[float]], float | None] = fmean) -> float | None:
    """The mean over runs of what sums up a metric of each; None where none logged it."""
    series = [list(run.series(key).values()) for run in arm.runs]
    return mean([summary(values) for values in series if values])
