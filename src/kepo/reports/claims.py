"""The comparisons that a report rests on: the main arm against each other arm, in and out of domain.

Legend: R pairs of replicates, Q questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from kepo.evaluation.accuracy import (
    IN_DOMAIN,
    OUT_OF_DOMAIN,
    chance_level,
    majority_letter_accuracy,
    paired_scores,
    question_scores,
    split_domains,
)
from kepo.reports.study import Arm, RunData, Study
from kepo.statistics.intervals import Interval
from kepo.statistics.paired import Difference, holm, paired_bootstrap, sign_flip_test

if TYPE_CHECKING:
    import pyarrow as pa

ALL = "all questions"
LEVEL = 0.05
FEW_REPLICATES = 6
"""From so many replicates on, the sign-flip test can reach .05."""
FEW_CLUSTERS = 4
"""From so many base students on, resampling them whole gives intervals of about the right width."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The main arm against another one, on the questions of one domain.

    Attributes:
        arm: The other arm.
        domain: "in-domain", "out-of-domain" or "all questions".
        difference: Main arm minus other arm, with its interval and p-value.
        adjusted_p: Holm's adjusted p-value within the family; None outside it.
        sign_flip_p: Of the randomization test over replicates; None with one replicate.
        clusters: Base students among the pairs.
    """

    arm: str
    domain: str
    difference: Difference
    adjusted_p: float | None
    sign_flip_p: float | None
    clusters: int

    @property
    def verdict(self) -> int:
        """1: the main arm is above, -1: below, 0: no difference could be shown."""
        p = self.difference.p_value if self.adjusted_p is None else self.adjusted_p
        low, high = self.difference.low, self.difference.high
        if p >= LEVEL or low <= 0 <= high:
            return 0
        return 1 if low > 0 else -1


@dataclass(frozen=True, slots=True)
class Claims:
    """All accuracies and comparisons of a study.

    Attributes:
        domains: Names of those that have questions, in order.
        questions: Number of questions of each domain.
        accuracy: (arm, domain) -> mean accuracy over replicates with its interval.
        comparisons: (arm, domain) -> main arm against that arm.
        family: The arms whose p-values are adjusted together.
        chance: Domain -> accuracy of guessing.
        letter: Domain -> accuracy of always answering the most frequent letter.
        skipped: Arm -> why it is not compared.
    """

    domains: tuple[str, ...]
    questions: Mapping[str, int]
    accuracy: Mapping[tuple[str, str], Interval]
    comparisons: Mapping[tuple[str, str], Comparison]
    family: tuple[str, ...]
    chance: Mapping[str, float]
    letter: Mapping[str, float]
    skipped: Mapping[str, str]


def make_claims(study: Study) -> Claims | None:
    """All comparisons of a study whose evaluations hold the same questions (`kepo.reports.load.same_questions`).

    Returns:
        None when no run has an evaluation.
    """
    evaluated = [run for run in study.runs if run.evaluation]
    if not evaluated:
        return None
    tables = {run.name: _by_domain(run, _in_domain(evaluated)) for run in evaluated}
    first = tables[evaluated[0].name]
    domains = tuple(name for name in (IN_DOMAIN, OUT_OF_DOMAIN) if len(first[name])) or (ALL,)
    accuracy: dict[tuple[str, str], Interval] = {}
    comparisons: dict[tuple[str, str], Comparison] = {}
    skipped: dict[str, str] = {}
    for arm in study.arms:
        runs = [run for run in arm.runs if run.evaluation]
        pairs = pair_runs(study.arm(study.main), arm) if study.main not in (None, arm.name) else []
        for domain in domains:
            parts = {name: tables[name][domain] for name in tables}
            if runs:
                accuracy[arm.name, domain] = _mean_accuracy(runs, parts)
            if pairs:
                comparisons[arm.name, domain] = _compare(arm.name, domain, pairs, parts)
        if not pairs and study.main not in (None, arm.name):
            skipped[arm.name] = "no replicate in common with the main arm" if runs else "no evaluation"
    family = _family(study, comparisons)
    return Claims(
        domains=domains,
        questions={name: len(question_scores(first[name])) for name in domains},
        accuracy=accuracy,
        comparisons=_adjusted(comparisons, family, domains),
        family=family,
        chance={name: _chance(first[name]) for name in domains},
        letter={name: majority_letter_accuracy(first[name]) for name in domains},
        skipped=skipped,
    )


def pair_runs(main: Arm, other: Arm) -> list[tuple[RunData, RunData]]:
    """Evaluated runs of two arms that belong together: those of the same replicate.

    Where the other arm has no such replicate but a single run of the same base student, such as a model that was not
    trained and so has no seed, that run stands for it.
    """
    theirs = {run.replicate: run for run in other.runs if run.evaluation}
    pairs = []
    for run in main.runs:
        if run.evaluation is None:
            continue
        partner = theirs.get(run.replicate)
        if partner is None and not other.trained:
            same = [candidate for candidate in theirs.values() if candidate.cluster == run.cluster]
            partner = same[0] if len(same) == 1 else None
        if partner is not None:
            pairs.append((run, partner))
    return pairs


def _chance(table: pa.Table) -> float:
    """Accuracy of guessing on the questions of an evaluation; NaN when there are none."""
    rows = table.select(["permutation", "sample", "options"]).to_pylist()
    return chance_level([len(row["options"]) for row in rows if row["permutation"] == row["sample"] == 0])


def _in_domain(evaluated: Sequence[RunData]) -> tuple[str, ...]:
    """The modalities trained on, as the evaluations say; all runs are judged by the same."""
    return next((run.evaluation.in_domain for run in evaluated if run.evaluation and run.evaluation.in_domain), ())


def _by_domain(run: RunData, in_domain: Sequence[str]) -> dict[str, pa.Table]:
    assert run.evaluation is not None
    return {**split_domains(run.evaluation.table, in_domain), ALL: run.evaluation.table}


def _mean_accuracy(runs: Sequence[RunData], tables: Mapping[str, pa.Table]) -> Interval:
    """Mean over replicates; the interval resamples replicates and questions, as that of a difference does."""
    _, scores = paired_scores([tables[run.name] for run in runs])
    found = paired_bootstrap(scores, np.zeros_like(scores), clusters=[run.cluster for run in runs])
    return Interval(found.estimate, found.low, found.high, len(runs))


def _compare(
    arm: str, domain: str, pairs: Sequence[tuple[RunData, RunData]], tables: Mapping[str, pa.Table]
) -> Comparison:
    _, scores = paired_scores([tables[run.name] for column in zip(*pairs, strict=True) for run in column])
    ours, theirs = scores[: len(pairs)], scores[len(pairs) :]
    clusters = [run.cluster for run, _ in pairs]
    return Comparison(
        arm=arm,
        domain=domain,
        difference=paired_bootstrap(ours, theirs, clusters=clusters),
        adjusted_p=None,
        sign_flip_p=sign_flip_test((ours - theirs).mean(axis=1)) if len(pairs) > 1 else None,
        clusters=len(set(clusters)),
    )


def _family(study: Study, comparisons: Mapping[tuple[str, str], Comparison]) -> tuple[str, ...]:
    """The comparisons that are adjusted together: with the baselines; with all other arms where none is named."""
    compared = dict.fromkeys(arm for arm, _ in comparisons)
    return tuple(arm for arm in compared if study.arm(arm).baseline) or tuple(compared)


def _adjusted(
    comparisons: Mapping[tuple[str, str], Comparison], family: Sequence[str], domains: Sequence[str]
) -> dict[tuple[str, str], Comparison]:
    adjusted = dict(comparisons)
    for domain in domains:
        p_values = {arm: comparisons[arm, domain].difference.p_value for arm in family if (arm, domain) in comparisons}
        for arm, value in holm(p_values).items():
            adjusted[arm, domain] = replace(comparisons[arm, domain], adjusted_p=value)
    return adjusted
