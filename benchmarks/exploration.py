"""Samples and rescued groups of exploration's rule of `kepo.exploration.budget`, beside the best that can be done.

    python -m benchmarks.exploration [--json FILE]

No model: a group's chance p of a correct sample under a hint is given, and everything is computed, not drawn, except
for the groups that a run has explored before. Compared are

- `missing`: as many samples as are missing in every attempt (`exploration_surplus: 0`),
- `new`: the rule in a run that explored nothing yet,
- `run`: the rule in a run that has explored 64 groups of the same kind,
- `best`: the strategy that reaches as many kept rollouts as `run` with the fewest samples, of all that have as many
  attempts, of as many samples at most, and know from what mixture p is drawn.

K rollouts are to be replaced, A attempts may be made, p is the same for all groups, or drawn from a mixture.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy.stats import binom

from kepo.exploration.budget import Belief, attempt_size
from kepo.exploration.history import RECENT_GROUPS, SuccessHistory
from kepo.exploration.settings import ExplorationSettings
from kepo.types import Outcomes

Mixture = tuple[tuple[float, float], ...]
"""(share, p) of groups; shares add up to 1."""
Size = Callable[[int, int], int]
"""(missing, samples so far) -> samples of the next attempt."""

CHANCES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.9)
MIXTURES: dict[str, Mixture] = {
    "half easy (.6), half hard (.05)": ((0.5, 0.6), (0.5, 0.05)),
    "even from .05 to .9": tuple((0.1, p) for p in np.linspace(0.05, 0.9, 10).tolist()),
    "7 in 10 of .5, others hopeless": ((0.7, 0.5), (0.3, 0.0)),
    "half .1, others hopeless": ((0.5, 0.1), (0.5, 0.0)),
}
GROUP_SIZE = 8  # most samples of an attempt
PRICES = np.geomspace(1.0, 4000.0, 160)  # samples that a kept rollout is worth, for the frontier
DEFAULTS = ExplorationSettings()


@dataclass(frozen=True)
class Spent:
    """Means of one group."""

    kept: float
    samples: float
    rescued: float  # share of groups with a kept rollout

    @property
    def each(self) -> float:
        """Samples per kept rollout."""
        return self.samples / self.kept if self.kept else float("inf")


def rule(belief: Belief, injected: int, surplus: float = DEFAULTS.exploration_surplus) -> Size:
    """Kepo's rule for groups of which `belief` is known at first; with `surplus` 0 it is `missing`."""

    def size(missing: int, samples: int) -> int:
        known = belief.after(Outcomes(injected - missing, samples))
        cost = DEFAULTS.exploration_max_cost
        most = min(GROUP_SIZE, cost * injected - samples)
        return attempt_size(missing, known, surplus=surplus, max_cost=cost, most=most)

    return size


def spent(p: float, injected: int, attempts: int, size: Size) -> Spent:
    """What a strategy spends on groups of chance p, and what it keeps."""

    @cache
    def rest(missing: int, left: int, samples: int) -> tuple[float, float, float]:
        """Kept and samples of the rest of the exploration, and the chance to end with nothing at all."""
        if missing == 0 or left == 0:
            return 0.0, 0.0, float(missing == injected)
        n = size(missing, samples)
        chances = binom.pmf(np.arange(missing + 1), n, p)
        chances[missing] = 1 - chances[:missing].sum()
        parts = [(x, chance, rest(missing - x, left - 1, samples + n)) for x, chance in enumerate(chances.tolist())]
        return (
            sum(chance * (x + part[0]) for x, chance, part in parts),
            n + sum(chance * part[1] for _, chance, part in parts),
            sum(chance * part[2] for _, chance, part in parts),
        )

    kept, samples, nothing = rest(injected, attempts, 0)
    return Spent(kept, samples, 1 - nothing)


def frontier(mixture: Mixture, injected: int, attempts: int, ceiling: int, most: int = GROUP_SIZE) -> np.ndarray:
    """(PRICES, 2): kept and samples of the strategies that make the most of price x kept - samples.

    By dynamic programming over what is missing, the attempts left and the samples so far, at most `ceiling` of them and
    `most` in an attempt.
    The strategies know the mixture, and learn of a group's p from its samples, as any strategy has to; of a mixture of
    one p they know all.
    """
    shape = (len(PRICES), ceiling + 1, 2)
    best = [np.zeros(shape) for _ in range(injected + 1)]  # by what is missing: kept and samples, by samples so far
    for _ in range(attempts):
        before, best = best, [np.zeros(shape)]
        for missing in range(1, injected + 1):
            now = np.zeros(shape)
            for n in range(1, min(most, ceiling) + 1):
                chances = _chances(mixture, injected - missing, ceiling + 1 - n, n, missing)
                tried = sum(chances[:, x, None] * before[missing - x][:, n:] for x in range(missing + 1))
                tried = tried + np.stack([chances @ np.arange(missing + 1), np.full(len(chances), n)], 1)
                better = _worth(tried) > _worth(now[:, :-n])
                now[:, :-n][better] = tried[better]
            best.append(now)
    at_start: np.ndarray = best[injected][:, 0]
    return at_start


@cache
def _chances(mixture: Mixture, correct: int, counts: int, n: int, missing: int) -> np.ndarray:
    """(counts, missing + 1): chance of x correct of n, the last of `missing` or more, by samples so far from 0.

    `correct` of these were correct; fewer samples than that do not occur, and are given any chances.
    """
    shares, p = np.array(mixture).T
    incorrect = np.maximum(np.arange(counts) - correct, 0)
    likelihood = shares * p**correct * (1 - p) ** incorrect[:, None]  # (counts, groups)
    likelihood = np.where(likelihood.sum(1, keepdims=True) > 0, likelihood, shares)
    found = binom.pmf(np.arange(missing + 1)[None], n, p[:, None])  # (groups, missing + 1)
    found[:, missing] = np.maximum(1 - found[:, :missing].sum(1), 0)
    chances: np.ndarray = likelihood / likelihood.sum(1, keepdims=True) @ found
    return chances


def _worth(outcome: np.ndarray) -> np.ndarray:
    worth: np.ndarray = PRICES[:, None] * outcome[..., 0] - outcome[..., 1] - 1e-9
    return worth


def fewest_samples(points: np.ndarray, kept: float) -> float:
    """Samples of the frontier `points` at `kept` rollouts; between two points both strategies are mixed."""
    return float(np.interp(kept, [0.0, *points[:, 0]], [0.0, *points[:, 1]]))


def explored_before(mixture: Mixture, injected: int, attempts: int, seed: int = 0) -> Belief:
    """What a run believes of a new prompt once it has explored `RECENT_GROUPS` groups, eight in a step."""
    draw, history = random.Random(seed), SuccessHistory()
    for _ in range(RECENT_GROUPS // 8):
        size = rule(history.belief("", 1), injected)
        for p in draw.choices([p for _, p in mixture], [share for share, _ in mixture], k=8):
            missing, correct, samples = injected, 0, 0
            for _ in range(attempts):
                n = size(missing, samples) if missing else 0
                found = sum(draw.random() < p for _ in range(n))
                missing, correct, samples = max(missing - found, 0), correct + found, samples + n
            history.add("", {1: Outcomes(correct, samples)})
    return history.belief("", 1)


def compare(mixture: Mixture, injected: int, attempts: int) -> dict[str, Spent]:
    """The four strategies on groups of a mixture."""
    sizes = {
        "missing": rule(Belief(), injected, surplus=0.0),
        "new": rule(Belief(), injected),
        "run": rule(explored_before(mixture, injected, attempts), injected),
    }
    found = {name: _mean(mixture, injected, attempts, size) for name, size in sizes.items()}
    ceiling = max(DEFAULTS.exploration_max_cost, attempts) * injected
    points = frontier(mixture, injected, attempts, ceiling)
    kept = found["run"].kept
    return found | {"best": Spent(kept, fewest_samples(points, kept), float("nan"))}


def _mean(mixture: Mixture, injected: int, attempts: int, size: Size) -> Spent:
    parts = [(share, spent(p, injected, attempts, size)) for share, p in mixture]
    fields = ("kept", "samples", "rescued")
    return Spent(*(sum(share * getattr(part, name) for share, part in parts) for name in fields))


def rows(injected: Sequence[int], attempts: Sequence[int]) -> list[dict[str, object]]:
    """All comparisons: of every p and every mixture."""
    kinds: dict[str, Mixture] = {f"p = {p}": ((1.0, p),) for p in CHANCES} | MIXTURES
    return [
        {"groups": name, "K": k, "A": a, **{key: asdict(value) for key, value in compare(mixture, k, a).items()}}
        for name, mixture in kinds.items()
        for k in injected
        for a in attempts
    ]


def table(found: Sequence[dict[str, object]]) -> str:
    """The comparisons as a table in Markdown."""
    lines = [
        "| groups | K | A | rescued, %: missing / new / run | samples per kept: missing / new / run / best "
        "| run of best |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in found:
        spents = {name: Spent(**row[name]) for name in ("missing", "new", "run", "best")}  # type: ignore[arg-type]
        rescued = " / ".join(f"{100 * spents[name].rescued:.0f}" for name in ("missing", "new", "run"))
        each = " / ".join(f"{one.each:.1f}" for one in spents.values())
        ratio = spents["run"].samples / spents["best"].samples
        lines.append(f"| {row['groups']} | {row['K']} | {row['A']} | {rescued} | {each} | {ratio:.2f} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; see the top of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--injected", type=int, nargs="+", default=[1, 2, 4], help="K")
    parser.add_argument("--attempts", type=int, nargs="+", default=[1, 2, 3, 5], help="A")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    given = parser.parse_args(arguments)
    found = rows(given.injected, given.attempts)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))
    sys.stdout.write(table(found))


if __name__ == "__main__":
    main()
