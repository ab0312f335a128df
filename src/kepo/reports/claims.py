"""The comparisons that a report rests on, and the result in sentences that follow from them.

The main arm is compared with each other arm, and a study's own file names more contrasts.
Legend: R pairs of replicates, Q questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from kepo.reports.document import p_value, percent, points, span
from kepo.reports.study import Arm, RunData, Study
from kepo.reports.tested import before_training
from kepo.statistics.accuracy import chance_level, mean_accuracy
from kepo.statistics.intervals import Interval
from kepo.statistics.paired import Difference, holm, paired_difference, sign_flip_test

if TYPE_CHECKING:
    import pyarrow as pa

ALL = "all questions"
LEVEL = 0.05
FEW_REPLICATES = 6
"""From so many replicates on, the sign-flip test can reach .05."""
FEW_CLUSTERS = 4
"""From so many base students on, resampling them whole gives intervals of about the right width."""
_MOST_SENTENCES = 3


@dataclass(frozen=True, slots=True)
class Comparison:
    """One arm against another, on the questions of one domain."""

    first: str
    second: str
    domain: str  # IN_DOMAIN, OUT_OF_DOMAIN or ALL
    difference: Difference  # first minus second
    sign_flip_p: float | None  # of the randomization test over replicates; None with one replicate
    clusters: int  # base students among the pairs
    adjusted_p: float | None = None  # Holm's, within the comparisons of one claim; None outside of any

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
    """All accuracies and comparisons of a study."""

    domains: tuple[str, ...]  # those that have questions, in order
    questions: Mapping[str, int]  # of each domain
    accuracy: Mapping[tuple[str, str], Interval]  # (arm, domain) -> mean over replicates
    comparisons: Mapping[tuple[str, str], Comparison]  # (arm, domain) -> main arm against that arm
    family: tuple[str, ...]  # the arms whose p-values are adjusted together
    contrasts: tuple[Contrast, ...]  # those of the study's own file
    chance: Mapping[str, float]  # domain -> accuracy of guessing
    letter: Mapping[str, float]  # domain -> accuracy of always answering the most frequent letter
    skipped: Mapping[str, str]  # arm -> why it is not compared


def make_claims(study: Study) -> Claims | None:
    """All comparisons of a study whose evaluations hold the same questions (`kepo.reports.load.same_questions`).

    Returns:
        None when no run has an evaluation.
    """
    if not study.evaluated:
        return None
    arms = {arm.name for arm in study.arms}
    contrasts = [
        (one.title, [pair for pair in one.pairs if arms.issuperset(pair)]) for one in study.described.contrasts
    ]
    # All runs are compared by the same modalities, those of the first evaluation that names some.
    in_domain = next((run.in_domain for run in study.evaluated if run.in_domain), study.described.in_domain)
    tables = {run.name: {**split_domains(run.table, in_domain), ALL: run.table} for run in study.evaluated}
    first = tables[study.evaluated[0].name]
    domains = tuple(name for name in (IN_DOMAIN, OUT_OF_DOMAIN) if len(first[name])) or (ALL,)
    main_pairs = [(study.main, arm.name) for arm in study.arms if study.main not in (None, arm.name)]
    asked = dict.fromkeys(pair for pairs in (main_pairs, *(pairs for _, pairs in contrasts)) for pair in pairs)
    found = {
        (first, second, domain): comparison
        for first, second in asked
        for domain in domains
        if (comparison := _compare(study.arm(first), study.arm(second), domain, tables))
    }
    compared = [second for first, second in main_pairs if (first, second, domains[0]) in found]
    # Adjusted together: the comparisons with the baselines; with all other arms where none is named.
    family = tuple(arm for arm in compared if study.arm(arm).baseline) or tuple(compared)
    of_main = {(second, domain): one for (first, second, domain), one in found.items() if (first, second) in main_pairs}
    of_family = adjusted([one for (arm, _), one in of_main.items() if arm in family])
    return Claims(
        domains=domains,
        questions={name: len(question_scores(first[name])) for name in domains},
        accuracy={
            (arm.name, domain): _mean_accuracy(arm.evaluated, domain, tables)
            for arm in study.arms
            if arm.evaluated
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
            second: "no replicate in common with the main arm" if study.arm(second).evaluated else "no evaluation"
            for _, second in main_pairs
            if second not in compared
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
    theirs = {run.replicate: run for run in second.evaluated}
    pairs = []
    for run in first.evaluated:
        partner = theirs.get(run.replicate)
        if partner is None and not second.trained:
            same = [candidate for candidate in theirs.values() if candidate.cluster == run.cluster]
            partner = same[0] if len(same) == 1 else None
        if partner is not None:
            pairs.append((run, partner))
    return pairs


def _chance(table: pa.Table) -> float:
    """Accuracy of guessing on the questions of an evaluation; NaN when there are none."""
    rows = table.select(["permutation", "sample", "options"]).to_pylist()
    return chance_level([len(row["options"]) for row in rows if row["permutation"] == row["sample"] == 0])


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
        difference=paired_difference(ours, theirs, clusters=clusters),
        sign_flip_p=sign_flip_test((ours - theirs).mean(axis=1)) if len(pairs) > 1 else None,
        clusters=len(set(clusters)),
    )


def headline(study: Study, claims: Claims | None) -> tuple[str, ...]:
    """The result in sentences that follow from the numbers."""
    if claims is None:
        return (f"No run has an evaluation named '{study.evaluation}'; what follows is about training.",)
    warned = tuple(filter(None, (before_training(study.arms), *caution(study, claims))))
    if not claims.comparisons:
        return (_only_accuracy(study, claims), *warned)
    domain = OUT_OF_DOMAIN if OUT_OF_DOMAIN in claims.domains else claims.domains[-1]
    others = [name for name in claims.domains if name != domain]
    sentences = [
        f"{_sentence(study, claims, arm, domain)} {' '.join(_sentence(study, claims, arm, other) for other in others)}"
        for arm in claims.family[:_MOST_SENTENCES]
    ]
    return (*(sentence.strip() for sentence in sentences), *_overview(study, claims, domain), *warned)


def caution(study: Study, claims: Claims) -> Iterator[str]:
    """What the number of runs does to the claims; nothing where there are enough of them."""
    if not claims.comparisons:
        few = min((found.n for found in claims.accuracy.values()), default=FEW_REPLICATES)
        if few == 1:
            yield "Some accuracies are of one run: their intervals cover the choice of questions only, not of the seed."
        return
    few = min(one.difference.replicates for one in claims.comparisons.values())
    students = min(one.clusters for one in claims.comparisons.values())
    of_students = f"{_count(max(few // students, 1), 'seed')} each of {_count(students, 'base student')}"
    several = any("/" in run.replicate for run in study.evaluated)
    rests = f"This rests on {_count(few, 'pair')} of runs ({of_students if several else _count(few, 'seed')})"
    if few == 1:
        yield f"{rests}: the intervals cover the choice of questions only, and another seed may differ by more."
    elif few < FEW_REPLICATES:
        yield f"{rests}: too few for a firm result, and the intervals are too narrow."
    elif several and 1 < students < FEW_CLUSTERS:
        yield f"{rests}: with so few base students the intervals are too narrow where these differ much."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _only_accuracy(study: Study, claims: Claims) -> str:
    arm = next(arm for arm in study.arms if arm.evaluated)
    found = {domain: claims.accuracy[arm.name, domain] for domain in claims.domains}
    parts = [
        f"{percent(one.estimate)} %{_place(domain)} (95 % CI {span(one.low, one.high)})"
        for domain, one in found.items()
    ]
    return f"{arm.label} answers {' and '.join(parts)} correctly."


def _sentence(study: Study, claims: Claims, arm: str, domain: str) -> str:
    assert study.main is not None
    comparison = claims.comparisons[arm, domain]
    found, main, other = comparison.difference, study.arm(study.main).label, study.arm(arm).label
    p = p_value(comparison.p_value)
    note = " after Holm's adjustment" if comparison.adjusted_p is not None and len(claims.family) > 1 else ""
    numbers = f"95 % CI {span(found.low, found.high, signed=True)}, p {p if p.startswith('<') else f'= {p}'}{note}"
    if comparison.verdict == 0:
        where = (_place(domain).strip() or "on all questions").capitalize()
        gap = f"({points(found.estimate)} points, {numbers})"
        return f"{where}, no difference between {main} and {other} could be shown {gap}."
    word = "above" if comparison.verdict > 0 else "below"
    return f"{main} is {word} {other}{_place(domain)} by {points(found.estimate)} points ({numbers})."


def _overview(study: Study, claims: Claims, domain: str) -> Iterator[str]:
    """How the main arm does against all others together, where there are more than the sentences name."""
    assert study.main is not None
    compared = [claims.comparisons[arm.name, domain] for arm in study.arms if (arm.name, domain) in claims.comparisons]
    if len(compared) <= len(claims.family[:_MOST_SENTENCES]):
        return
    # So many comparisons at once: whatever the claim is, here all of them are adjusted together.
    verdicts = [one.verdict for one in adjusted(compared)]
    yield (
        f"Of {len(compared)} other arms,{_place(domain)}, {study.arm(study.main).label} is above {verdicts.count(1)} "
        f"and below {verdicts.count(-1)}; for {verdicts.count(0)} no difference could be shown (after Holm's "
        "adjustment over all of them)."
    )


def _place(domain: str) -> str:
    return {IN_DOMAIN: " in domain", OUT_OF_DOMAIN: " out of domain"}.get(domain, "")
