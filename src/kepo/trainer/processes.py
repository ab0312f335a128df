"""Several processes: agreeing on a number, adding up, gathering records, failing together. Every call is collective."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from accelerate.utils import gather_object

from kepo.errors import ConfigError, DataError, KepoError, TeacherError
from kepo.teachers.base import AsynchronousHintWriter, HintWriter, MaxOverProcesses, PendingHints
from kepo.types import Conversation

T = TypeVar("T")


class Processes:
    """The W processes of a run; with one process nothing is communicated."""

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator
        self.index: int = accelerator.process_index  # this process, 0..W-1
        self.count: int = accelerator.num_processes  # W

    def max(self, value: int) -> int:
        """The largest `value` of all processes."""
        return value if self.count == 1 else int(self.gather(torch.tensor([value])).max())

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sums of named values over all processes, which may name different ones."""
        gathered = self.gather_objects([dict(values)])
        names = dict.fromkeys(name for one in gathered for name in one)
        return {name: sum(one.get(name, 0.0) for one in gathered) for name in names}

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


class StoppedElsewhereError(KepoError):
    """What ended the run happened on another process."""


class FailTogether:
    """Makes calls that fail on every process when they fail on one of them.

    Without this, the other processes would wait in their next collective until it times out, and nothing was saved.

    Attributes:
        failure: What the last failed call raised here; None as long as all goes well.
    """

    def __init__(self, max_over_processes: MaxOverProcesses) -> None:
        self._max_over_processes = max_over_processes
        self.failure: KepoError | None = None

    def __call__(self, call: Callable[[], T]) -> T:
        """What `call()` returns.

        Raises:
            KepoError: the teacher failed, or a file that the run needs, here (`TeacherError`, `ConfigError`,
                `DataError`) or on another process (`StoppedElsewhereError`).
        """
        failure: KepoError | None = None
        try:
            result = call()
        except (TeacherError, ConfigError, DataError) as error:
            failure = error
        if self._max_over_processes(int(failure is not None)):
            self.failure = failure or StoppedElsewhereError("Another process failed, and says why.")
            raise self.failure
        return result


@dataclass(frozen=True)
class TogetherWriter:
    """A hint writer whose failure is every process's failure; implements `HintWriter`."""

    writer: HintWriter
    together: FailTogether

    @property
    def name(self) -> str:
        """See `HintWriter.name`."""
        return self.writer.name

    def write_hints(self, conversations: Sequence[Conversation]) -> list[str]:
        """See `HintWriter.write_hints`."""
        return self.together(lambda: self.writer.write_hints(conversations))


@dataclass(frozen=True)
class TogetherPending:
    """Hints on their way whose failure is every process's failure; implements `PendingHints`."""

    pending: PendingHints
    together: FailTogether

    def result(self) -> list[str]:
        """See `PendingHints.result`."""
        return self.together(self.pending.result)


@dataclass(frozen=True)
class AsynchronousTogetherWriter(TogetherWriter):
    """A `TogetherWriter` that can begin; implements `AsynchronousHintWriter`."""

    writer: AsynchronousHintWriter

    def start_hints(self, conversations: Sequence[Conversation]) -> TogetherPending:
        """See `AsynchronousHintWriter.start_hints`."""
        return TogetherPending(self.writer.start_hints(conversations), self.together)


def together_writer(writer: HintWriter, together: FailTogether) -> TogetherWriter:
    """`writer`, failing on every process when it fails on one, and as asynchronous as it is."""
    if isinstance(writer, AsynchronousHintWriter):
        return AsynchronousTogetherWriter(writer, together)
    return TogetherWriter(writer, together)
