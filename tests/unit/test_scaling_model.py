"""The written model of many GPUs, against values computed by hand, and its operations against counted ones."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.cluster import (
    Machine,
    Sizes,
    Step,
    all_reduce_seconds,
    expected_attempts,
    expected_most,
    gather_seconds,
    placement,
    reading_flops,
    step_seconds,
    student_flops,
    teacher_flops,
)
from benchmarks.meter import CPU_ATTENTION
from benchmarks.scaling import Point, points, together
from kepo.models.packing import Cost
from kepo.planning.architecture import measure_architecture

TOY = Sizes(decoder=Cost(10.0, 1.0), head=100.0, image=5.0, parameters=1_000_000_000)
STEP = Step(prompts=4, group=2, prompt=4, mean=3, longest=6, active=1.0, gated=1.0, checkpointing=False)


@pytest.mark.parametrize(
    ("units", "processes", "share", "most"),
    [(1, 3, 0.5, 7 / 8), (2, 2, 0.5, 15 / 16 + 7 / 16), (4, 1, 0.25, 1.0), (3, 8, 1.0, 3.0)],
)
def test_the_busiest_process(units: int, processes: int, share: float, most: float) -> None:
    assert expected_most(units, processes, share) == pytest.approx(most)


def test_attempts_go_on_as_long_as_one_group_needs_them() -> None:
    assert expected_attempts(1, 0.5, 3) == pytest.approx(1 + 0.5 + 0.25)
    assert expected_attempts(2, 0.5, 2) == pytest.approx(1 + 0.75)
    assert expected_attempts(50, 0.0, 3) == 1


def test_groups_lie_whole_on_a_gpu_as_long_as_there_are_enough() -> None:
    assert placement(Step(prompts=16, group=8), 8) == (2, 8, 8)
    assert placement(Step(prompts=16, group=8), 64) == (1, 2, 16)
    with pytest.raises(ValueError, match="each of 256 GPUs"):
        placement(Step(prompts=16, group=8), 256)


def test_operations_of_reading_a_group() -> None:
    assert reading_flops(TOY, STEP, 2) == 10 * (10 + 10) + 5, "one pack of 4 + 2 x 3 is cheaper than two of 7"
    plain = Step(prompts=4, group=2, prompt=4, mean=3, longest=6, shared=False)
    assert reading_flops(TOY, plain, 2) == 2 * (10 * (10 + 10) + 5), "padded to the longest"


def test_operations_of_a_step() -> None:
    # Four groups on two GPUs: two each, of 6 completion tokens.
    assert student_flops(TOY, TOY, STEP, 2) == 2 * (3 * 205 + 3 * 100 * 6 + 6 * (2 * 100 + 100))
    assert teacher_flops(TOY, STEP, 2) == 2 * (205 + 100 * 6)


def test_messages() -> None:
    machine = Machine(link=400e9, network=200e9, link_efficiency=0.5)
    assert gather_seconds(TOY, 8, machine) == pytest.approx(2e9 * 7 / 8 / 200e9)
    assert gather_seconds(TOY, 16, machine) == pytest.approx(2e9 * 15 / 16 / 100e9)
    assert all_reduce_seconds(TOY, 8, machine) == pytest.approx(2 * 2e9 * 7 / 8 / 200e9)
    assert gather_seconds(TOY, 1, machine) == 0


def test_terms_of_a_step() -> None:
    machine = Machine(flops=1e3, efficiency=0.5, token_seconds=2.0)
    terms = step_seconds(TOY, TOY, STEP, 2, machine, {"rewards": 0.5, "writing": 0.25})
    assert terms["rollouts"] == 6 * 2
    assert terms["exploration"] == 0
    assert terms["teacher: arithmetic"] == teacher_flops(TOY, STEP, 2) / 500
    assert terms["rewards"] == 4 * 0.5
    assert terms["writing"] == 8 * 0.25


def test_operations_by_formula_are_those_that_are_counted() -> None:
    config = LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    sizes = Sizes.of(measure_architecture(model, "toy", "this test"))
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter, torch.no_grad():
        model(torch.ones(3, 20, dtype=torch.long), use_cache=False)
    assert sizes.decoder(3, 20) + 60 * sizes.head == counter.get_total_flops()


def test_points_are_measured_once_and_gates_are_open_for_three_in_eight() -> None:
    assert len(points()) == len(set(points()))
    assert Point("text").correct == [3, 0, 6]
    assert sum(Point("text", group=16, prompts=6).correct) / (16 * 6) == pytest.approx(3 / 8)


def test_records_of_two_processes_become_one() -> None:
    one = {"arm": "kepo", "student MFLOP": 5, "student tokens": 7, "student s": 1.0}
    two = {"arm": "kepo", "student MFLOP": 9, "student tokens": 1, "student s": 0.5}
    joined = {"arm": "kepo", "student MFLOP": 14, "busiest student MFLOP": 9, "student tokens": 8, "student s": 1.0}
    assert together([one, two]) == joined
