"""What a decoder reads in one pass: rows alone, or packs of rows that share a prompt (`kepo.models.packing`).

All prompts are of one length and all completions as long as they may be; which rows share a sequence is asked of the
code that packs them in a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from kepo.models.packing import Cost, TokenRow, plan_packs


@dataclass(frozen=True, slots=True)
class Sequences:
    """The sequences of a pass, padded to one length."""

    rows: int  # completions
    prompts: int  # distinct prompts among them
    count: int  # sequences
    longest: int  # tokens of a sequence

    @property
    def tokens(self) -> int:
        """Tokens that the decoder computes."""
        return self.count * self.longest

    def __str__(self) -> str:
        if self.count == self.rows:
            return f"{self.rows} rows x {self.longest} tokens"
        packs = f"{self.count} packs" if self.count > 1 else "1 pack"
        return f"{packs} x {self.longest} tokens ({self.rows} rows)"


def sequences_of(groups: Sequence[int], prompt: int, completion: int, cost: Cost | None) -> Sequences:
    """The sequences of a batch.

    Args:
        groups: Rows of each distinct prompt.
        prompt: Tokens of a prompt, >= 1.
        completion: Tokens of a completion.
        cost: Of the decoder; None: every row is a sequence of its own.
    """
    shown = [place for place, size in enumerate(groups) for _ in range(size)]
    packs = plan_packs([TokenRow((place,) * prompt, (0,) * completion) for place in shown], cost)
    longest = prompt + max(len(members) for members in packs) * completion
    return Sequences(len(shown), len(groups), len(packs), longest)


def largest_batch(batches: Sequence[Sequence[int]], prompt: int, completion: int, cost: Cost | None) -> Sequences:
    """The sequences of the batch that computes most tokens; arguments as in `sequences_of`."""
    found = [sequences_of(groups, prompt, completion, cost) for groups in batches]
    return max(found, key=lambda sequences: (sequences.tokens, sequences.longest))


def whole_group_batches(rows: int, group: int, size: int, processes: int) -> list[tuple[int, ...]]:
    """The rows of each prompt in the micro-batches of a training step, which hold whole groups where they can.

    Args:
        rows: Of a process and generation batch.
        group: G.
        size: Rows of a micro-batch.
        processes: Over which the groups lie one after the other.
    """
    found: set[tuple[int, ...]] = set()
    for process in range(min(processes, group)):  # further ones begin at the same places of a group
        owner = [(process * rows + row) // group for row in range(rows)]
        found |= {tuple(Counter(owner[start : start + size]).values()) for start in range(0, rows, size)}
    return sorted(found)


def spread_batch(rows: int, prompts: int) -> tuple[int, ...]:
    """The rows of each prompt in a batch whose `rows` share as little as `prompts` distinct prompts allow."""
    shown = min(rows, prompts)
    return tuple(rows // shown + (place < rows % shown) for place in range(shown))
