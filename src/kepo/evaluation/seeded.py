"""Sampling in which every row has random numbers of its own.

Legend: B rows, T new tokens at most, P tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import TopPLogitsWarper

from kepo.evaluation.backend import Sampling


class SeededSampling:
    """Draws each row's token from the row's own stream of random numbers, so that a sample belongs to its seed alone.

    A logits processor that leaves one token possible: the one at which the cumulative distribution passes the row's
    next random number. Greedy decoding then takes it.

    Args:
        sampling: Temperature > 0, nucleus, and the number of steps.
        streams: (seed, sample) of each row.
    """

    def __init__(self, sampling: Sampling, streams: Sequence[tuple[int, int]]) -> None:
        def numbers(seed: int, sample: int) -> torch.Tensor:
            generator = torch.Generator().manual_seed(seed)
            # Drawn for all earlier samples too: sample k is the same however many are asked for.
            return torch.rand(sample + 1, sampling.max_new_tokens, generator=generator, dtype=torch.float64)[-1]

        self._sampling = sampling
        self._numbers = torch.stack([numbers(seed, sample) for seed, sample in streams])  # (B, T)
        self._step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, V) in which only the drawn token is not -inf."""
        scores = scores.float() / self._sampling.temperature
        if self._sampling.top_p < 1:
            scores = TopPLogitsWarper(self._sampling.top_p)(input_ids, scores)
        cumulative = scores.softmax(-1).double().cumsum(-1)  # (B, V)
        drawn = self._numbers[:, self._step, None].to(scores.device) * cumulative[:, -1:]  # (B, 1)
        self._step += 1
        token = torch.searchsorted(cumulative, drawn, right=True).clamp_max(scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)
