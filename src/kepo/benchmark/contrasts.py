"""What the study is asked, as pairs of arms, and the answer to each pair from the records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kepo.evaluation.accuracy import IN_DOMAIN, OUT_OF_DOMAIN, paired_scores, split_domains
from kepo.reports.claims import pair_runs
from kepo.reports.study import Study
from kepo.runs import STUDY
from kepo.statistics.paired import Difference, holm, paired_bootstrap, sign_flip_test

if TYPE_CHECKING:
    import pyarrow as pa

DOMAINS = (IN_DOMAIN, OUT_OF_DOMAIN)


@dataclass(frozen=True, slots=True)
class Contrast:
    """One question to the study, as pairs of arms to compare.

    Attributes:
        title: The question.
        pairs: (first arm, second arm); each is answered by first minus second. Their p-values are adjusted together.
    """

    title: str
    pairs: tuple[tuple[str, str], ...]


def read_contrasts(folder: Path) -> list[Contrast]:
    """The contrasts of the study in `folder`, from its `study.json`."""
    described = json.loads((folder / STUDY).read_text(encoding="utf-8"))
    return [
        Contrast(one["title"], tuple((first, second) for first, second in one["pairs"]))
        for one in described.get("contrasts", [])
    ]


@dataclass(frozen=True, slots=True)
class Answer:
    """First arm minus second, on the questions of one domain.

    Attributes:
        first: Arm.
        second: Arm.
        domain: "in-domain" or "out-of-domain".
        difference: With interval and p-value of the paired bootstrap over base students and questions.
        adjusted_p: After Holm, over the pairs of the same question and domain.
        sign_flip_p: Of the randomization test over replicates; None with one replicate.
    """

    first: str
    second: str
    domain: str
    difference: Difference
    adjusted_p: float
    sign_flip_p: float | None


def answer(study: Study, contrast: Contrast, tables: Mapping[tuple[str, str], pa.Table]) -> list[Answer]:
    """The answers to a contrast, for all pairs of which the study has both arms, domain after domain.

    Args:
        study: Loaded, with evaluations of the same questions.
        contrast: What to compare.
        tables: Of `domain_tables`.
    """
    present = {arm.name for arm in study.arms}
    pairs = [pair for pair in contrast.pairs if set(pair) <= present]
    answers = []
    for domain in DOMAINS:
        found = [one for pair in pairs if (one := _compare(study, *pair, domain, tables)) is not None]
        adjusted = holm({f"{one.first} {one.second}": one.difference.p_value for one in found})
        answers += [replace(one, adjusted_p=adjusted[f"{one.first} {one.second}"]) for one in found]
    return answers


def domain_tables(study: Study) -> dict[tuple[str, str], pa.Table]:
    """(run, domain) -> the evaluation records of that run in that domain."""
    return {
        (run.name, domain): table
        for run in study.runs
        if run.evaluation is not None
        for domain, table in split_domains(run.evaluation.table, run.evaluation.in_domain).items()
    }


def _compare(
    study: Study, first: str, second: str, domain: str, tables: Mapping[tuple[str, str], pa.Table]
) -> Answer | None:
    pairs = pair_runs(study.arm(first), study.arm(second))
    if not pairs:
        return None
    runs = [run for column in zip(*pairs, strict=True) for run in column]
    _, scores = paired_scores([tables[run.name, domain] for run in runs])
    ours, theirs = scores[: len(pairs)], scores[len(pairs) :]
    return Answer(
        first=first,
        second=second,
        domain=domain,
        difference=paired_bootstrap(ours, theirs, clusters=[run.cluster for run, _ in pairs]),
        adjusted_p=1.0,
        sign_flip_p=sign_flip_test((ours - theirs).mean(axis=1)) if len(pairs) > 1 else None,
    )


def sentence(found: Sequence[Answer], labels: Mapping[str, str]) -> str:
    """What the answers of one pair come to, in words."""
    parts = []
    for one in found:
        gap = f"{100 * one.difference.estimate:+.1f} points {one.domain}"
        shown = one.adjusted_p < 0.05 and not one.difference.low <= 0 <= one.difference.high
        parts.append(gap if shown else f"no difference shown {one.domain} ({100 * one.difference.estimate:+.1f})")
    return f"{labels[found[0].first]} against {labels[found[0].second]}: {'; '.join(parts)}."
