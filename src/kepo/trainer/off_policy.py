"""The data's own completions in the place of rollouts: lambda of GKD (arXiv 2306.13649, algorithm 1).

With `lmbda` = 1 every group is learned from the student's rollouts, with 0 from the data alone. GKD draws for
a batch; here every group is drawn for itself, so that a small batch has both.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from kepo.errors import DataError
from kepo.trainer.config import KEPOConfig
from kepo.trainer.generation_batch import GenerationBatch, Rollouts, as_completion

COLUMN = "reference"


def check_references(dataset: Any, lmbda: float) -> None:
    """Refuse data without reference completions where some are needed.

    Raises:
        DataError: `lmbda` is below 1 and the data has no column `reference`.
    """
    if lmbda < 1.0 and COLUMN not in (getattr(dataset, "column_names", None) or ()):
        raise DataError(
            f"lmbda is {lmbda:g}, so some groups are learned from the data's own completions, but the data "
            f"set has no column {COLUMN!r}. Build it with kepo.data.to_dataset from questions that have a 'reasoning' "
            "in their metadata, or set lmbda to 1."
        )


def put_references(
    batch: GenerationBatch, rollouts: Rollouts, args: KEPOConfig, step: int, tokenize: Callable[[str], list[int]]
) -> None:
    """Replace, in place, the rollouts of the groups that are drawn to be off-policy; no communication needed.

    Args:
        batch: Its rows carry `reference`.
        rollouts: What was generated.
        args: Gives `lmbda`, the seed and the size of a group.
        step: Optimizer steps finished.
        tokenize: From a reference to token ids, its end included.
    """
    for row, data in enumerate(batch.rows):
        group = (batch.first_row + row) // args.num_generations
        if random.Random(f"{args.seed}/{step}/{group}").random() >= args.lmbda:
            rollouts.replace(row, tokenize(data[COLUMN]), as_completion(batch.prompts[row], data[COLUMN]))
