"""Comparisons: numbers a hand can compute, pairs that belong together, verdicts that are not too bold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kepo.reports.claims import Claims, headline, make_claims, pair_runs
from kepo.reports.load import load_study
from kepo.reports.study import Study
from tests.unit.reports.study import answer_record, write_answers, write_records, write_run


def claims_of(folder: Path, answers: Mapping[tuple[str, str], Sequence[int]]) -> tuple[Study, Claims]:
    """A study of (arm, replicate) -> flags, all questions out of domain."""
    for (arm, replicate), right in answers.items():
        run = folder / f"{arm}-{replicate.replace('/', '-')}"
        write_answers(write_run(run, folder, arm, replicate, 1, trained=arm != "zero-shot"), right)
    study = load_study([folder])
    claims = make_claims(study)
    assert claims is not None
    return study, claims


def test_accuracy_and_difference_are_means_over_replicates(tmp_path: Path) -> None:
    _, claims = claims_of(
        tmp_path,
        {
            ("kepo", "s/1"): [1, 1, 1, 0],
            ("kepo", "s/2"): [1, 1, 0, 0],
            ("grpo", "s/1"): [1, 0, 0, 0],
            ("grpo", "s/2"): [1, 1, 0, 0],
        },
    )
    assert claims.domains == ("out-of-domain",)
    assert claims.questions == {"out-of-domain": 4}
    assert claims.accuracy["kepo", "out-of-domain"].estimate == pytest.approx(5 / 8)
    assert claims.accuracy["grpo", "out-of-domain"].estimate == pytest.approx(3 / 8)
    one = claims.comparisons["grpo", "out-of-domain"]
    assert one.difference.estimate == pytest.approx(2 / 8)
    assert (one.difference.replicates, one.difference.questions, one.clusters) == (2, 4, 1)
    # Differences of the pairs: 0.5 and 0. Of the 4 sign patterns all have |sum| = 0.5.
    assert one.sign_flip_p == 1.0


def test_chance_and_the_most_frequent_letter_are_references(tmp_path: Path) -> None:
    _, claims = claims_of(tmp_path, {("kepo", "s/1"): [1, 0], ("grpo", "s/1"): [0, 0]})
    assert claims.chance["out-of-domain"] == 0.25
    assert claims.letter["out-of-domain"] == 1.0


def test_without_a_known_domain_all_questions_are_one(tmp_path: Path) -> None:
    write_answers(write_run(tmp_path / "a", tmp_path, "kepo", "s/1", 1), [1, 0], in_domain=())
    claims = make_claims(load_study([tmp_path]))
    assert claims is not None
    assert claims.domains == ("all questions",)


def test_runs_are_paired_by_replicate_and_others_left_out(tmp_path: Path) -> None:
    study, _ = claims_of(
        tmp_path, {("kepo", "s/1"): [1], ("kepo", "s/2"): [1], ("grpo", "s/2"): [0], ("grpo", "s/3"): [1]}
    )
    pairs = pair_runs(study.arm("kepo"), study.arm("grpo"))
    assert [(one.replicate, other.replicate) for one, other in pairs] == [("s/2", "s/2")]


def test_an_untrained_model_stands_for_every_seed_of_its_base_student(tmp_path: Path) -> None:
    study, _ = claims_of(
        tmp_path, {("kepo", "s/1"): [1], ("kepo", "s/2"): [1], ("kepo", "t/1"): [1], ("zero-shot", "s"): [0]}
    )
    pairs = pair_runs(study.arm("kepo"), study.arm("zero-shot"))
    assert [(one.replicate, other.replicate) for one, other in pairs] == [("s/1", "s"), ("s/2", "s")]


def test_an_arm_without_a_common_replicate_is_not_compared_and_that_is_said(tmp_path: Path) -> None:
    _, claims = claims_of(tmp_path, {("kepo", "s/1"): [1], ("grpo", "s/2"): [0]})
    assert not claims.comparisons
    assert claims.skipped == {"grpo": "no replicate in common with the main arm"}


def test_only_the_family_of_baselines_is_adjusted(tmp_path: Path) -> None:
    flags = {(arm, "s/1"): [1] * 8 + [0] * 4 for arm in ("kepo", "grpo", "sft")}
    _, claims = claims_of(tmp_path, flags)
    assert claims.family == ("grpo",)
    assert claims.comparisons["grpo", "out-of-domain"].adjusted_p is not None
    assert claims.comparisons["sft", "out-of-domain"].adjusted_p is None


def test_without_baselines_holm_adjusts_over_all_other_arms(tmp_path: Path) -> None:
    flags = {("kepo", "s/1"): [1] * 40, ("sft", "s/1"): [1] * 30 + [0] * 10, ("opd", "s/1"): [1] * 20 + [0] * 20}
    _, claims = claims_of(tmp_path, flags)
    assert set(claims.family) == {"sft", "opd"}
    # Holm: the smallest of two p-values is doubled.
    least = min(claims.comparisons.values(), key=lambda one: one.difference.p_value)
    assert least.adjusted_p == pytest.approx(2 * least.difference.p_value)


def test_a_clear_difference_is_stated_and_an_unclear_one_is_not(tmp_path: Path) -> None:
    study, claims = claims_of(tmp_path / "clear", {("kepo", "s/1"): [1] * 40, ("grpo", "s/1"): [0] * 20 + [1] * 20})
    assert "kepo is above grpo out of domain by +50.0 points" in headline(study, claims)[0]
    study, claims = claims_of(tmp_path / "below", {("kepo", "s/1"): [0] * 40, ("grpo", "s/1"): [0] * 20 + [1] * 20})
    assert "kepo is below grpo out of domain by −50.0 points" in headline(study, claims)[0]
    study, claims = claims_of(tmp_path / "unclear", {("kepo", "s/1"): [1, 1, 0], ("grpo", "s/1"): [1, 0, 0]})
    assert "no difference between kepo and grpo could be shown" in headline(study, claims)[0]


def test_the_adjusted_p_value_decides_the_verdict(tmp_path: Path) -> None:
    _, claims = claims_of(tmp_path, {("kepo", "s/1"): [1] * 40, ("grpo", "s/1"): [0] * 20 + [1] * 20})
    one = claims.comparisons["grpo", "out-of-domain"]
    assert one.verdict == 1
    assert replace(one, adjusted_p=0.2).verdict == 0
    assert replace(one, difference=replace(one.difference, low=-0.1)).verdict == 0


def test_in_and_out_of_domain_are_two_claims(tmp_path: Path) -> None:
    for arm, right in (("kepo", True), ("grpo", False)):
        rows = [answer_record(f"m{n}", right, "MRI") for n in range(20)]
        rows += [answer_record(f"c{n}", True, "CT") for n in range(20)]
        write_records(write_run(tmp_path / arm, tmp_path, arm, "s/1", 1), rows)
    study = load_study([tmp_path])
    claims = make_claims(study)
    assert claims is not None
    sentence = headline(study, claims)[0]
    assert "Out of domain, no difference between kepo and grpo could be shown (0.0 points" in sentence
    assert "kepo is above grpo in domain by +100.0 points" in sentence


def test_the_overview_adjusts_over_all_arms(tmp_path: Path) -> None:
    # Each of the ten arms is wrong on six questions more: p is about .02, and ten times that is nothing.
    others = {(f"arm-{n}", "s/1"): [0] * 6 + [1] * 34 for n in range(10)}
    some = [0] + [1] * 39
    study, claims = claims_of(tmp_path, {("kepo", "s/1"): some, ("grpo", "s/1"): [0] * 20 + [1] * 20, **others})
    assert claims.comparisons["arm-0", "out-of-domain"].verdict == 1
    assert "Of 11 other arms, out of domain, kepo is above 1 and below 0; for 10 no" in headline(study, claims)[1]


def test_one_arm_alone_is_described(tmp_path: Path) -> None:
    study, claims = claims_of(tmp_path, {("kepo", "s/1"): [1, 1, 0, 0]})
    assert headline(study, claims)[0].startswith("kepo answers 50.0 % out of domain")


def test_no_evaluation_is_said(tmp_path: Path) -> None:
    write_run(tmp_path / "a", tmp_path, "kepo", "s/1", 1)
    study = load_study([tmp_path])
    assert make_claims(study) is None
    assert "No run has an evaluation named 'test'" in headline(study, None)[0]
