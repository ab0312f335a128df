"""The comparisons that a report rests on: the main arm against each other arm, and the contrasts that a study names.

Legend: R pairs of replicates, Q questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kepo.evaluation.accuracy import (
    IN_DOMAIN,
    OUT_OF_DOMAIN,
    majority_letter_accuracy,
    paired_scores,
    question_scores,
    split_domains,
)
from kepo.reports.study import Arm, RunData, Study
from kepo.statistics.accuracy import chance_level, mean_accuracy
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
    """One arm against another, on the questions of one domain.

    Attributes:
        first: An arm, such as the main arm.
        second: The arm it is compared with.
        domain: "in-domain", "out-of-domain" or "all questions".
        difference: First minus second, with its interval and p-value.
        sign_flip_p: Of the randomization test over replicates; None with one replicate.
        clusters: Base students among the pairs.
        adjusted_p: Holm's adjusted p-value within the comparisons of one claim; None outside of any.
    """

    first: str
    second: str
    domain: str
    difference: Difference
    sign_flip_p: float | None
    clusters: int
    adjusted_p: float | None = None

    @property
    def p_value(self) -> float:
        """The adjusted p-value where there is one."""
        return self.difference.p_value if self.adjusted_p is None else self.adjusted_p

    @property
    def verdict(self) -> int:
        """1: the first arm is above, -1: below, 0: no difference could be shown."""
        low, high = self.difference.low, self.difference.high
        if self.p_value >= LEVEL or low <= 0 <= high:
            return 0
        return 1 if low > 0 else -1


@dataclass(frozen=True, slots=True)
class Contrast:
    """A question to the study, and the comparisons that answer it; p-values are adjusted within it and a domain."""

    title: str
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True, slots=True)
class Claims:
    """All accuracies and comparisons of a study.

    Attributes:
        domains: Names of those that have questions, in order.
        questions: Number of questions of each domain.
        accuracy: (arm, domain) -> mean accuracy over replicates with its interval.
        comparisons: (arm, domain) -> main arm against that arm.
        family: The arms whose p-values are adjusted together.
        contrasts: Those of the study's own file.
        chance: Domain -> accuracy of guessing.
        letter: Domain -> accuracy of always answering the most frequent letter.
        skipped: Arm -> why it is not compared.
    """

    domains: tuple[str, ...]
    questions: Mapping[str, int]
    accuracy: Mapping[tuple[str, str], Interval]
    comparisons: Mapping[tuple[str, str], Comparison]
    family: tuple[str, ...]
    contrasts: tuple[Contrast, ...]
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
    arms = {arm.name for arm in study.arms}
    contrasts = [
        (one.title, [pair for pair in one.pairs if arms.issuperset(pair)]) for one in study.described.contrasts
    ]
    in_domain = _in_domain(evaluated) or study.described.in_domain
    tables = {run.name: _by_domain(run, in_domain) for run in evaluated}
    first = tables[evaluated[0].name]
    domains = tuple(name for name in (IN_DOMAIN, OUT_OF_DOMAIN) if len(first[name])) or (ALL,)
    main_pairs = [(study.main, arm.name) for arm in study.arms if study.main not in (None, arm.name)]
    wanted = dict.fromkeys(pair for pairs in (main_pairs, *(pairs for _, pairs in contrasts)) for pair in pairs)
    found = {
        (first, second, domain): comparison
        for first, second in wanted
        for domain in domains
        if (comparison := _compare(study.arm(first), study.arm(second), domain, tables))
    }
    family = _family(study, [second for first, second in main_pairs if (first, second, domains[0]) in found])
    of_main = {(second, domain): one for (first, second, domain), one in found.items() if (first, second) in main_pairs}
    of_family = adjusted([one for (arm, _), one in of_main.items() if arm in family])
    return Claims(
        domains=domains,
        questions={name: len(question_scores(first[name])) for name in domains},
        accuracy={
            (arm.name, domain): _mean_accuracy(runs, domain, tables)
            for arm in study.arms
            if (runs := [run for run in arm.runs if run.evaluation])
            for domain in domains
        },
        comparisons=of_main | {(one.second, one.domain): one for one in of_family},
        family=family,
        contrasts=tuple(
            Contrast(title, tuple(adjusted([found[key] for d in domains for p in pairs if (key := (*p, d)) in found])))
            for title, pairs in contrasts
            if pairs
        ),
        chance={name: _chance(first[name]) for name in domains},
        letter={name: majority_letter_accuracy(first[name]) for name in domains},
        skipped={
            second: "no replicate in common with the main arm" if _evaluated(study.arm(second)) else "no evaluation"
            for first, second in main_pairs
            if (first, second, domains[0]) not in found
        },
    )


def adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons, in order, with p-values that Holm's method adjusts over those of the same domain."""
    p_values: dict[str, dict[str, float]] = {}
    for place, one in enumerate(comparisons):
        p_values.setdefault(one.domain, {})[str(place)] = one.difference.p_value
    found = {place: p for family in p_values.values() for place, p in holm(family).items()}
    return [replace(one, adjusted_p=found[str(place)]) for place, one in enumerate(comparisons)]


def pair_runs(first: Arm, second: Arm) -> list[tuple[RunData, RunData]]:
    """Evaluated runs of two arms that belong together: those of the same replicate.

    Where the second arm has no such replicate but a single run of the same base student, such as a model that was not
    trained and so has no seed, that run stands for it.
    """
    theirs = {run.replicate: run for run in _evaluated(second)}
    pairs = []
    for run in _evaluated(first):
        partner = theirs.get(run.replicate)
        if partner is None and not second.trained:
            same = [candidate for candidate in theirs.values() if candidate.cluster == run.cluster]
            partner = same[0] if len(same) == 1 else None
        if partner is not None:
            pairs.append((run, partner))
    return pairs


def _evaluated(arm: Arm) -> list[RunData]:
    return [run for run in arm.runs if run.evaluation]


def _chance(table: pa.Table) -> float:
    """Accuracy of guessing on the questions of an evaluation; NaN when there are none."""
    rows = table.select(["permutation", "sample", "options"]).to_pylist()
    return chance_level([len(row["options"]) for row in rows if row["permutation"] == row["sample"] == 0])


def _in_domain(evaluated: Sequence[RunData]) -> tuple[str, ...]:
    """The modalities trained on, as the evaluations say; all runs are compared by the same."""
    return next((run.evaluation.in_domain for run in evaluated if run.evaluation and run.evaluation.in_domain), ())


def _by_domain(run: RunData, in_domain: Sequence[str]) -> dict[str, pa.Table]:
    assert run.evaluation is not None
    return {**split_domains(run.evaluation.table, in_domain), ALL: run.evaluation.table}


def _mean_accuracy(runs: Sequence[RunData], domain: str, tables: Mapping[str, Mapping[str, pa.Table]]) -> Interval:
    _, scores = paired_scores([tables[run.name][domain] for run in runs])
    return mean_accuracy(scores, clusters=[run.cluster for run in runs])


def _compare(first: Arm, second: Arm, domain: str, tables: Mapping[str, Mapping[str, pa.Table]]) -> Comparison | None:
    pairs = pair_runs(first, second)
    if not pairs:
        return None
    _, scores = paired_scores([tables[run.name][domain] for column in zip(*pairs, strict=True) for run in column])
    ours, theirs = scores[: len(pairs)], scores[len(pairs) :]
    clusters = [run.cluster for run, _ in pairs]
    return Comparison(
        first=first.name,
        second=second.name,
        domain=domain,
        difference=paired_bootstrap(ours, theirs, clusters=clusters),
        sign_flip_p=sign_flip_test((ours - theirs).mean(axis=1)) if len(pairs) > 1 else None,
        clusters=len(set(clusters)),
    )


def _family(study: Study, compared: Sequence[str]) -> tuple[str, ...]:
    """The comparisons that are adjusted together: with the baselines; with all other arms where none is named."""
    return tuple(arm for arm in compared if study.arm(arm).baseline) or tuple(compared)
