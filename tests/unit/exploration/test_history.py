"""What a run remembers of explored groups, and that a checkpoint brings back all of it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from kepo.exploration import history as module
from kepo.exploration.budget import Belief, fit_belief
from kepo.exploration.history import RECENT_GROUPS, SuccessHistory
from kepo.trainer.exploring import SuccessMemory
from kepo.types import Outcomes


def test_a_run_that_explored_nothing_believes_nothing() -> None:
    assert SuccessHistory().belief("q1", 1) == Belief()


def test_groups_tell_about_all_prompts_of_their_level() -> None:
    history = SuccessHistory()
    for place in range(10):
        history.add(f"q{place}", {0: Outcomes(0, 10), 2: Outcomes(2, 2)})
    assert history.belief("new", 0) == fit_belief([Outcomes(0, 10)] * 10)
    assert history.belief("new", 0).mean < 0.2 < 0.6 < history.belief("new", 2).mean
    assert history.belief("new", 1) == history.belief("new", None) == Belief()


def test_a_prompt_is_remembered_and_counts_half_as_much_each_time() -> None:
    history = SuccessHistory()
    history.add("q1", {None: Outcomes(0, 8)})
    run = fit_belief([Outcomes(0, 8)])
    assert history.belief("q1", None) == run.after(Outcomes(0, 4))
    assert history.belief("q2", None) == history.belief("", None) == run
    history.add("q1", {None: Outcomes(4, 4)})
    run = fit_belief([Outcomes(0, 8), Outcomes(4, 4)])
    assert history.belief("q1", None) == run.after(Outcomes(2, 4))  # (0 / 2 + 4) / 2 of (8 / 2 + 4) / 2


def test_prompts_that_cannot_be_found_again_are_not_remembered() -> None:
    history = SuccessHistory()
    history.add("", {1: Outcomes(1, 2)})
    assert history.record == {"groups": {"1": [[1, 2]]}, "prompts": {}}


def test_only_the_latest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_PROMPTS", 2)
    history = SuccessHistory()
    for key in ("c", "a", "c", "b"):
        history.add(key, {1: Outcomes(1, 2)})
    assert sorted(history.record["prompts"]["1"]) == ["b", "c"]
    for _ in range(RECENT_GROUPS):
        history.add("", {1: Outcomes(0, 2)})
    assert history.record["groups"]["1"] == [[0, 2]] * RECENT_GROUPS


def _add_some(history: SuccessHistory, keys: str) -> None:
    for place, key in enumerate(keys):
        history.add(key, {1: Outcomes(place % 3, 3), None: Outcomes(0, place + 1)})


def test_a_checkpoint_brings_all_of_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_PROMPTS", 4)
    whole, first, resumed = SuccessHistory(), SuccessHistory(), SuccessHistory()
    _add_some(whole, "zyxzabc")
    _add_some(first, "zyxzabc")
    resumed.load(json.loads(json.dumps(first.record, sort_keys=True)))
    for history in (whole, resumed):
        _add_some(history, "dxe")  # what is forgotten now depends on the order of before
    assert resumed.record == whole.record
    assert resumed.belief("z", 1) == whole.belief("z", 1)


def _state(**callbacks: Any) -> Any:
    return SimpleNamespace(stateful_callbacks=callbacks)


def test_a_step_is_learned_from_when_it_is_finished_and_saved_with_the_state() -> None:
    history = SuccessHistory()
    memory = SuccessMemory(history, lambda: history.add("q1", {1: Outcomes(1, 2)}))
    state = _state()
    memory.on_train_begin(None, state, None)
    saved = state.stateful_callbacks[SuccessMemory.KEY]
    assert saved == {"groups": {}, "prompts": {}}
    memory.on_step_end(None, state, None)
    assert saved == history.record == {"groups": {"1": [[1, 2]]}, "prompts": {"1": {"q1": [1, 2, 1]}}}
    other = SuccessHistory()
    resumed = _state(**{SuccessMemory.KEY: json.loads(json.dumps(saved))})
    SuccessMemory(other, lambda: None).on_train_begin(None, resumed, None)
    assert other.record == history.record
    assert resumed.stateful_callbacks[SuccessMemory.KEY] is other.record
    # A second training of the same trainer begins with nothing.
    memory.on_train_begin(None, _state(), None)
    assert history.record == {"groups": {}, "prompts": {}}
