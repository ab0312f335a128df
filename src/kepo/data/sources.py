"""What every reader of a data set hands to `kepo prepare`: its questions, and the rows that cannot be used.

A reader goes over its files once and yields a `Question` or an `Unusable` for every row, so that nothing is dropped
silently; what it does not know, such as whether an image decodes, is found out by `kepo.data.prepare`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from kepo.types import Question

if TYPE_CHECKING:
    from PIL.Image import Image

    from kepo.data.schema import RowError


@dataclass(frozen=True, slots=True)
class Unusable:
    """A row that no question could be made of.

    Attributes:
        source: The file.
        row: Row number in it, from 1.
        field: The column that is wrong; empty where it is the whole row.
        reason: What is wrong, without the value, so that rows can be counted by it.
        value: The value, shortened.
    """

    source: str
    row: int
    field: str
    reason: str
    value: str


@runtime_checkable
class LazyImage(Protocol):
    """An image that is no file of its own, such as one of an array; decoded only when it is needed.

    It is sent to other processes, so it must pickle, and into few bytes: where the image lies, not the image.
    """

    @property
    def name(self) -> str:
        """Unique in its source; for messages."""
        ...

    def load(self) -> Image:
        """The decoded image, in any mode that Pillow converts to RGB without clipping.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Source:
    """A data set, ready to be read once.

    Attributes:
        name: Names the data set in its card.
        rows: A question or an unusable row for every row, in the order of the files. Images are paths that are already
            resolved below their root, or `LazyImage`s; nothing else. Every question has a `modality`, a `task` where
            it is known, and `metadata["dataset"]`, the collection that its image comes from. Optional in `metadata`:
            `file` and `row`, which name the row should its image turn out to be unusable (else the place in `rows`
            does), and `image`, the name of the image, by which questions without images are kept on one side.
        files: The files that `rows` come from; with the settings they say whether a prepared folder is up to date.
        licences: Dataset -> licence of its images, "unknown" where it is not known.
        notes: Sentences for the data card.
        split_given: `metadata["split"]` says "train", "validation" or "test" already.
        options: What besides `files` decides the rows, such as settings of the reader; must survive JSON.
    """

    name: str
    rows: Iterable[Question | Unusable]
    files: tuple[Path, ...]
    licences: Mapping[str, str]
    notes: tuple[str, ...] = ()
    split_given: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


def unusable(error: RowError, row: Any) -> Unusable:
    """The record of a row that `kepo.data.schema` refused with `error`."""
    value = row.get(error.field, "") if isinstance(row, Mapping) else row
    return Unusable(error.source, error.row, error.field, error.reason, shortened(value))


def shortened(value: Any, length: int = 80) -> str:
    """`value` as text of at most `length` characters that can be written as UTF-8."""
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= length else f"{text[: length - 3]}..."
