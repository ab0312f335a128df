"""What a reader of a data set yields: its questions, and a record of every row that no question could be made of.

`kepo prepare` lists those records; training, which takes no data with a hole in it, raises the first one (`strict`).
Nothing is dropped silently. Whether an image decodes is found out later, by `kepo.data.images` or `kepo.data.prepare`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as setting  # `Unusable` has an attribute of that name
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from kepo.errors import DataError
from kepo.types import Question

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Unusable:
    """A row that no question could be made of."""

    source: str  # the name of the file
    row: int  # from 1
    field: str  # the column that is wrong; empty where it is the whole row
    reason: str  # what is wrong, without the value, so that rows can be counted by it
    value: str  # shortened
    problem: str = setting(default="", compare=False)  # what is wrong with which value, and what to do

    def record(self) -> dict[str, Any]:
        """The columns of `unusable.jsonl`."""
        return {name: getattr(self, name) for name in ("source", "row", "field", "reason", "value")}


@runtime_checkable
class LazyImage(Protocol):
    """An image that is no file of its own, such as one of an array. It must pickle into few bytes."""

    @property
    def name(self) -> str:
        """Unique in its source; for messages."""

    def load(self) -> Image:
        """The decoded image, in a mode that Pillow converts to RGB without clipping. Raises OSError or ValueError."""


@dataclass(frozen=True, slots=True)
class Source:
    """A data set, ready to be read once.

    Attributes:
        name: Names the data set in its card.
        rows: A question or an unusable row for every row, in the order of the files. Images are paths that are already
            resolved below their root, or `LazyImage`s. Every question has a `modality`, a `task` where it is known,
            and `metadata["dataset"]`, the collection of its image. Optional in `metadata`: `file` and `row`, which
            name the row if its image is unusable, and `image`, the name of the image, by which questions without
            images are kept in one split.
        files: The files that `rows` come from; with `options` and settings they decide if a folder is up to date.
        license_of: Collection -> license of its images, "unknown" where it is not known.
        notes: Sentences for the data card.
        split_given: `metadata["split"]` says "train", "validation" or "test" already.
        options: What besides `files` decides the rows, such as settings of the reader; must survive JSON.
    """

    name: str
    rows: Iterable[Question | Unusable]
    files: tuple[Path, ...]
    license_of: Callable[[str], str] = lambda dataset: "unknown"
    notes: tuple[str, ...] = ()
    split_given: bool = False
    options: Mapping[str, Any] = setting(default_factory=dict)


def strict(rows: Iterable[Question | Unusable], files: Sequence[Path]) -> list[Question]:
    """The questions of `rows`, none of which may be unusable.

    Raises:
        DataError: naming file (one of `files`), row, field and value of the first unusable row, and what to do.
    """
    questions = []
    for row in rows:
        if isinstance(row, Unusable):
            file = next((str(file) for file in files if file.name == row.source), row.source)
            field_name = f", field {row.field!r}" if row.field else ""
            raise DataError(f"{file}, row {row.row}{field_name}: {row.problem or row.reason}")
        questions.append(row)
    return questions


def shortened(value: Any, length: int = 80) -> str:
    """`value` as text of at most `length` characters that can be written as UTF-8."""
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= length else f"{text[: length - 3]}..."


def is_empty(value: Any) -> bool:
    """Whether a cell holds nothing: None, a blank text, or the NaN that tables of pandas have where a cell is missing.

    A text "nan" is that NaN, written by a table whose column of numbers has a gap.
    """
    if isinstance(value, str):
        return value.strip() in ("", "nan", "NaN")
    # Neither NaN nor pandas' NaT equals itself; an array compares to an array.
    return value is None or (isinstance(value, float) and value != value)
