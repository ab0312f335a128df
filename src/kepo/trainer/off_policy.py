"""The data's own completions in the place of rollouts: lambda of GKD (arXiv 2306.13649, algorithm 1).

With `lmbda` = 1 every group is learned from the student's rollouts, with 0 from the data alone. GKD draws for
a batch; here every group is drawn for itself, so that a small batch has both.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from kepo.errors import DataError
from kepo.trainer import seams
from kepo.trainer.exploring import Rollouts
from kepo.trainer.round import Round

if TYPE_CHECKING:
    from kepo.trainer.trainer import KEPOTrainer

COLUMN = "reference"


def check_references(dataset: Any, share: float) -> None:
    """Refuse data without reference completions where some are needed.

    Raises:
        DataError: `share` is below 1 and the data has no column `reference`.
    """
    if share < 1.0 and COLUMN not in (getattr(dataset, "column_names", None) or ()):
        raise DataError(
            f"lmbda is {share:g}, so some groups are learned from the data's own completions, but the data "
            f"set has no column {COLUMN!r}. Build it with kepo.data.to_dataset from questions that have a 'reasoning' "
            "in their metadata, or set lmbda to 1."
        )


def put_references(trainer: KEPOTrainer, round_: Round, rollouts: Rollouts) -> None:
    """Replace, in place, the rollouts of the groups that are drawn to be off-policy; no communication needed.

    Args:
        trainer: Gives the share, the seed and the step.
        round_: The batch; its rows carry `reference`.
        rollouts: What was generated.
    """
    args = trainer.args
    first = trainer.accelerator.process_index * len(round_.rows)
    for row, data in enumerate(round_.rows):
        group = (first + row) // trainer.num_generations
        if random.Random(f"{args.seed}/{trainer.state.global_step}/{group}").random() < args.lmbda:
            continue
        ids = seams.completion_ids(trainer, data[COLUMN])
        rollouts.completion_ids[row] = ids
        rollouts.completions[row] = seams.as_completion(round_.prompts[row], data[COLUMN])
        if rollouts.logprobs is not None:
            rollouts.logprobs[row] = [None] * len(ids)
