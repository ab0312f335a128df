"""The result in sentences that follow from the numbers, and say so where nothing could be shown."""

from __future__ import annotations

from collections.abc import Iterator

from kepo.evaluation.accuracy import OUT_OF_DOMAIN
from kepo.reports.claims import Claims, adjusted
from kepo.reports.document import p_value, percent, points, span
from kepo.reports.study import Study

_MOST_SENTENCES = 3


def headline(study: Study, claims: Claims | None) -> tuple[str, ...]:
    """The result in sentences that follow from the numbers."""
    if claims is None:
        return (f"No run has an evaluation named '{study.evaluation}'; what follows is about training.",)
    if not claims.comparisons:
        return (_only_accuracy(study, claims),)
    domain = OUT_OF_DOMAIN if OUT_OF_DOMAIN in claims.domains else claims.domains[-1]
    others = [name for name in claims.domains if name != domain]
    sentences = [
        f"{_sentence(study, claims, arm, domain)} {' '.join(_sentence(study, claims, arm, other) for other in others)}"
        for arm in claims.family[:_MOST_SENTENCES]
    ]
    return (*(sentence.strip() for sentence in sentences), *_overview(study, claims, domain))


def _only_accuracy(study: Study, claims: Claims) -> str:
    arm = next(arm for arm in study.arms if (arm.name, claims.domains[0]) in claims.accuracy)
    parts = []
    for domain in claims.domains:
        found = claims.accuracy[arm.name, domain]
        ends = span(found.low, found.high)
        parts.append(f"{percent(found.estimate)} %{_place(domain)} (95 % CI {ends})")
    return f"{arm.label} answers {' and '.join(parts)} correctly."


def _sentence(study: Study, claims: Claims, arm: str, domain: str) -> str:
    assert study.main is not None
    comparison = claims.comparisons[arm, domain]
    found, main, other = comparison.difference, study.arm(study.main).label, study.arm(arm).label
    p = p_value(comparison.p_value)
    note = " after Holm's adjustment" if comparison.adjusted_p is not None and len(claims.family) > 1 else ""
    numbers = f"95 % CI {span(found.low, found.high, signed=True)}, p {p if p.startswith('<') else f'= {p}'}{note}"
    if comparison.verdict == 0:
        return (
            f"{_capital(_place(domain).strip() or 'on all questions')}, no difference between {main} and {other} could "
            f"be shown ({points(found.estimate)} points, {numbers})."
        )
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
    return {"in-domain": " in domain", "out-of-domain": " out of domain"}.get(domain, "")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
