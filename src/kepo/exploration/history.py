"""How often samples were correct in a run so far: what is believed of a prompt before it is sampled.

Kept for every level of hints apart, and for samples without a hint. What is believed begins with the latest groups of
the run (`fit_belief`); outcomes of the same prompt in earlier steps are added. These count half as much with every step
that explores the prompt again, as the policy has changed since.

Plain data that a checkpoint can hold, and that is equal on all processes: a resumed run believes what the run that was
not stopped does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kepo.exploration.budget import Belief, fit_belief
from kepo.types import Outcomes

RECENT_GROUPS = 64
"""Groups of a level that the run's belief is fitted to: the latest."""
REMEMBERED_PROMPTS = 10_000
"""Prompts of a level whose own outcomes are kept: those explored last."""
DECAY = 0.5
"""What earlier outcomes of a prompt count when it is explored again."""


class SuccessHistory:
    """Outcomes of a run's explored groups.

    Attributes:
        record: All of it, as it survives JSON; stays the same object. `groups`: level -> [[correct, samples], ...];
            `prompts`: level -> {key: [correct, samples, turn]}, the turn being larger the later it was explored.
            Levels are text, "none" without a hint.
    """

    def __init__(self) -> None:
        self.record: dict[str, dict[str, Any]] = {"groups": {}, "prompts": {}}
        self._fitted: dict[str, Belief] = {}

    def load(self, record: Mapping[str, Any]) -> None:
        """Take over the `record` of another history; an empty one forgets everything."""
        loaded = {part: dict(record.get(part, {})) for part in self.record}
        for part, levels in self.record.items():
            levels.clear()
            levels.update(loaded[part])
        self._fitted.clear()

    def belief(self, key: str, level: int | None) -> Belief:
        """What is believed of the samples of a prompt at a level of hints (None: without a hint).

        Args:
            key: Names the prompt; "" for one that cannot be found again.
            level: Of the hint.
        """
        name = _name(level)
        if name not in self._fitted:
            self._fitted[name] = fit_belief([Outcomes(*one) for one in self.record["groups"].get(name, ())])
        return self._fitted[name].after(self._earlier(name, key))

    def add(self, key: str, outcomes: Mapping[int | None, Outcomes]) -> None:
        """Take in what was found for one group, by level; in the same order on all processes."""
        for level, seen in outcomes.items():
            name = _name(level)
            groups = self.record["groups"].setdefault(name, [])
            groups.append([*seen])
            del groups[:-RECENT_GROUPS]
            if key:
                self._remember(name, key, seen)
        self._fitted.clear()

    def _remember(self, level: str, key: str, seen: Outcomes) -> None:
        prompts = self.record["prompts"].setdefault(level, {})
        earlier = self._earlier(level, key)
        turn = 1 + max((prompt[2] for prompt in prompts.values()), default=0)
        prompts[key] = [earlier.correct + seen.correct, earlier.samples + seen.samples, turn]
        if len(prompts) > REMEMBERED_PROMPTS:
            del prompts[min(prompts, key=lambda key: prompts[key][2])]

    def _earlier(self, level: str, key: str) -> Outcomes:
        correct, samples, _ = self.record["prompts"].get(level, {}).get(key, (0.0, 0.0, 0))
        return Outcomes(correct * DECAY, samples * DECAY)


def _name(level: int | None) -> str:
    return "none" if level is None else str(level)
