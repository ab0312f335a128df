"""What the tests of the divergences share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass
class Sizes:
    """Numbers of elements of the tensors that were made, and of those that the graph keeps for backward."""

    made: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)

    @property
    def largest(self) -> int:
        return max(self.made)

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        self.kept.append(tensor.numel())
        return tensor


class _Recorder(TorchDispatchMode):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self._sizes = sizes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self._sizes.made += [leaf.numel() for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
        return output


@pytest.fixture
def tensor_sizes() -> Callable[[], Any]:
    """A context manager that records the size of every tensor that is made, in forward and in backward, or kept."""

    @contextmanager
    def record() -> Iterator[Sizes]:
        sizes = Sizes()
        with _Recorder(sizes), torch.autograd.graph.saved_tensors_hooks(sizes.keep, lambda tensor: tensor):
            yield sizes

    return record
