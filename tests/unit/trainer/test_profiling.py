"""How many steps a profile needs, and what its tables make of the clock."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kepo.errors import ConfigError
from kepo.runs.profile import OperatorCost, Profile, profile_as_markdown, write_profile
from kepo.trainer.phases import REST, ROLLOUTS, TEACHER, TRAINING, StepTimes
from kepo.trainer.profiling import check_profile_fits, phase_costs, whole_generation_batches

STEPS = [
    StepTimes({ROLLOUTS: 3.0, TRAINING: 4.0, REST: 1.0}, {ROLLOUTS: 1, TRAINING: 2, REST: 1}, completion_tokens=60),
    StepTimes({ROLLOUTS: 0.0, TRAINING: 4.0, REST: 0.0, TEACHER: 0.0}, {TRAINING: 2}),
]


@pytest.mark.parametrize(
    ("accumulation", "per_generation", "iterations", "asked", "rounded"),
    [
        (1, 1, 1, 3, 3),
        (2, 4, 1, 1, 2),  # rollouts in every second step
        (2, 4, 1, 3, 4),
        (2, 4, 2, 3, 4),  # in every fourth
        (4, 2, 1, 1, 1),  # twice a step
        (2, 3, 1, 2, 3),  # after one and a half steps
        (4, None, None, 2, 2),  # supervised training
    ],
)
def test_steps_are_rounded_up_to_whole_generation_batches(
    accumulation: int, per_generation: int | None, iterations: int | None, asked: int, rounded: int
) -> None:
    args: Any = SimpleNamespace(gradient_accumulation_steps=accumulation)
    if per_generation is not None:
        args.steps_per_generation, args.num_iterations = per_generation, iterations
    assert whole_generation_batches(args, asked) == rounded


def test_no_step_cannot_be_profiled() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        whole_generation_batches(SimpleNamespace(gradient_accumulation_steps=1), 0)


def test_costs_are_means_over_the_steps() -> None:
    rollouts, training, rest = phase_costs(STEPS, Counter({ROLLOUTS: 80, TRAINING: 100}))
    assert (rollouts.seconds, rollouts.share, rollouts.calls, rollouts.tokens) == (1.5, 3 / 12, 0.5, 40)
    assert (training.seconds, training.share, training.calls, training.tokens) == (4, 8 / 12, 2, 50)
    assert (rest.seconds, rest.calls) == (0.5, 0)


def _profile(**fields: Any) -> Profile:
    defaults: dict[str, Any] = dict(
        device="CPU",
        steps=(2, 3),
        seconds=(8.0, 4.0),
        traced_seconds=(9.0, 5.0),
        phases=phase_costs(STEPS, Counter({ROLLOUTS: 80, TRAINING: 2400})),
        completion_tokens=30.0,
        rollout_tokens_per_second=20.0,
        peak_memory=3 * 2**29,
        memory_of="resident set",
        operators=(OperatorCost("aten::mm", 0.5, 0.25, 12.0),),
    )
    return Profile(**{**defaults, **fields})


def test_the_tables_say_what_was_measured() -> None:
    text = profile_as_markdown(_profile())
    lines = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("|")]
    rows = {name: cells for _, name, *cells, _ in lines}
    assert rows["rollouts"] == ["1.500", "25.0%", "0.5", "40"]
    assert rows["rest"] == ["0.500", "8.3%", "", ""]
    assert rows["whole step"] == ["6.000", "100.0%", "", "1,240"]
    assert rows["`aten::mm`"] == ["0.5000", "25.0%", "12"]
    assert "30 completion tokens, 20 tokens per second" in text
    assert "1.50 GiB (resident set)" in text
    assert "8.000, 4.000; with the tracer" in text
    assert "completion tokens" not in profile_as_markdown(_profile(rollout_tokens_per_second=None))


def test_programs_read_the_same(tmp_path: Path) -> None:
    write_profile(tmp_path, _profile())
    content = json.loads((tmp_path / "phases.json").read_text())
    assert content["step_seconds"] == 6 == sum(phase["seconds"] for phase in content["phases"])
    assert content["operators"] == [{"name": "aten::mm", "seconds": 0.5, "share": 0.25, "calls": 12.0}]
    assert (tmp_path / "phases.md").read_text() == profile_as_markdown(_profile())


@pytest.mark.parametrize(("done", "makes"), [(0, 4), (6, 10)])
def test_a_run_that_is_too_short_is_refused(done: int, makes: int) -> None:
    args = SimpleNamespace(gradient_accumulation_steps=1, steps_per_generation=1)
    check_profile_fits(args, 2, makes + 1, done)
    with pytest.raises(ConfigError, match=rf"This run makes 4\. Set max_steps to at least {done + 5}"):
        check_profile_fits(args, 2, makes, done)
