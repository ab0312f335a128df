"""Several processes: agreeing on a number, adding up, gathering records. Every method is collective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from accelerate.utils import gather_object

T = TypeVar("T")


class Processes:
    """The W processes of a run; with one process nothing is communicated.

    Args:
        accelerator: Of the trainer.

    Attributes:
        index: This process, 0..W-1.
        count: W.
    """

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator
        self.index: int = accelerator.process_index
        self.count: int = accelerator.num_processes

    def max(self, value: int) -> int:
        """The largest `value` of all processes."""
        return value if self.count == 1 else int(self.gather(torch.tensor([value])).max())

    def sum(self, value: float) -> float:
        """The sum of `value` over all processes."""
        return value if self.count == 1 else float(self.gather(torch.tensor([value])).sum())

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sums of named values over all processes, which may name different ones."""
        sums: dict[str, float] = {}
        for one in self.gather_objects([dict(values)]):
            for name, value in one.items():
                sums[name] = sums.get(name, 0.0) + value
        return sums

    def sum_tensor(self, values: torch.Tensor) -> torch.Tensor:
        """The elementwise sum of equally shaped tensors of all processes."""
        total: torch.Tensor = self._accelerator.reduce(values, reduction="sum")
        return total

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """The tensors of all processes, (N,) each, as one (W * N,) in the order of the processes."""
        gathered: torch.Tensor = self._accelerator.gather(values.to(self._accelerator.device))
        return gathered

    def gather_objects(self, items: list[T]) -> list[T]:
        """The items of all processes in the order of the processes; they must survive pickling."""
        gathered: list[T] = items if self.count == 1 else gather_object(items)
        return gathered
