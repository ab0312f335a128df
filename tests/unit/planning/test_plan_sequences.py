"""Which sequences a pass reads in the worst case."""

from __future__ import annotations

import random

from kepo.models.packing import Cost, TokenRow, plan_packs
from kepo.planning.sequences import Sequences, largest_batch, sequences_of, spread_batch, whole_group_batches

LINEAR = Cost(1.0, 0.0)  # packs are as large as they can be


def test_rows_alone() -> None:
    assert sequences_of([2, 1], 10, 5, None) == Sequences(rows=3, prompts=2, count=3, longest=15)


def test_packs_hold_a_prompt_and_its_completions() -> None:
    found = sequences_of([4, 4], 10, 5, LINEAR)
    assert found == Sequences(rows=8, prompts=2, count=2, longest=30)
    assert found.tokens == 60


def test_the_batch_of_most_tokens_is_planned_for() -> None:
    assert largest_batch([(4,), (2, 2)], 10, 5, LINEAR).tokens == 40  # not 30


def test_micro_batches_hold_whole_groups_where_they_can() -> None:
    assert whole_group_batches(16, 8, 4, 8) == [(4,)]
    assert whole_group_batches(16, 4, 8, 1) == [(4, 4)]
    assert whole_group_batches(12, 8, 12, 2) == [(4, 8), (8, 4)]  # a group lies on two processes
    assert whole_group_batches(24, 8, 6, 1) == [(2, 4), (4, 2), (6,)]


def test_a_gate_may_leave_few_rows_of_many_prompts() -> None:
    assert spread_batch(8, 2) == (4, 4)
    assert spread_batch(8, 16) == (1,) * 8
    assert spread_batch(7, 2) == (4, 3)


def test_shorter_completions_never_compute_more_tokens() -> None:
    cost, drawn = Cost(100.0, 0.03), random.Random(0)
    most = sequences_of([4, 4], 40, 100, cost).tokens
    for _ in range(50):
        rows = [TokenRow((place,) * 40, (0,) * drawn.randint(1, 100)) for place in (0, 0, 0, 0, 1, 1, 1, 1)]
        packs = plan_packs(rows, cost)
        longest = max(40 + sum(len(rows[row].completion) for row in members) for members in packs)
        assert len(packs) * longest <= most
