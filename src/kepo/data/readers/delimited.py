"""Rows of CSV and TSV files; every line that belongs to no row is told, with its number."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from kepo.data.sources import Unusable, is_empty, shortened
from kepo.errors import ConfigError, DataError

# What follows a quote that is never closed is not searched for its end for ever.
_MOST_LINES = 10_000
_WHOLE = re.compile(r"-?\d+\.0")
# Bytes that are not of the encoding, as Python keeps them.
_UNDECODED = re.compile("[\udc80-\udcff]")


class _Lines:
    """The lines of a file with their numbers; lines that were taken in vain can be given back."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._again, self.number = file, deque[str](), 1

    def take(self) -> str | None:
        line = self._again.popleft() if self._again else next(self._file, None)
        self.number += line is not None
        return line

    def give_back(self, lines: list[str]) -> None:
        self._again.extendleft(reversed(lines))
        self.number -= len(lines)


def header_of(path: Path, delimiter: str, encoding: str) -> tuple[str, ...]:
    """The names of the columns; a DataError where the file has none, or one twice."""
    with _opened(path, encoding) as file:
        cells, used = _cells(_Lines(file), delimiter)
    if isinstance(cells, str) or any(_UNDECODED.search(line) for line in used):
        problem = cells if isinstance(cells, str) else f"not {encoding}"
        raise DataError(f"{path}: the header cannot be read ({problem}); check delimiter and encoding")
    header = tuple(name.strip() for name in cells or ())
    if not any(header):
        raise DataError(f"{path}: there is no header; the first line must name the columns")
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise DataError(f"{path}: the header has the column {twice[0]!r} twice; rename one of them")
    return header


def delimited_rows(path: Path, delimiter: str, encoding: str) -> Iterator[tuple[int, dict[str, str] | Unusable]]:
    """(line that a row begins in, the row or what is wrong with it); empty lines are skipped. Cells are texts."""
    header = header_of(path, delimiter, encoding)
    whole = _whole_numbers(path, delimiter, encoding, len(header))
    with _opened(path, encoding) as file:
        lines = _Lines(file)
        _cells(lines, delimiter)
        while True:
            number = lines.number
            cells, used = _cells(lines, delimiter)
            if not used:
                return
            text = "".join(used).rstrip("\r\n")
            if isinstance(cells, str):
                lines.give_back(used[1:])
                yield number, Unusable(path.name, number, "", cells, _shown(used[0].rstrip("\r\n")))
            elif _UNDECODED.search(text):
                for later, line in enumerate(used):
                    reason = f"not {encoding}; say which encoding it is"
                    yield number + later, Unusable(path.name, number + later, "", reason, _shown(line))
            elif not any(cells):
                continue
            elif len(cells) != len(header):
                reason = f"{len(cells)} cells, where the header has {len(header)} columns"
                yield number, Unusable(path.name, number, "", reason, shortened(text))
                for later, line in enumerate(used[1:], start=number + 1):
                    yield (
                        later,
                        Unusable(path.name, later, "", "part of a row that is unusable", shortened(line.rstrip())),
                    )
            else:
                read = (cell.removesuffix(".0") if at in whole else cell for at, cell in enumerate(cells))
                yield number, dict(zip(header, read, strict=True))


def _whole_numbers(path: Path, delimiter: str, encoding: str, width: int) -> set[int]:
    """Places of the columns of whole numbers that are written as `3.0`, as pandas does where a cell is missing."""
    found, possible = set[int](), set(range(width))
    with _opened(path, encoding) as file:
        lines = _Lines(file)
        _cells(lines, delimiter)
        while possible:
            cells, used = _cells(lines, delimiter)
            if not used:
                break
            if isinstance(cells, str):
                lines.give_back(used[1:])
            elif len(cells) == width:
                filled = {at for at in possible if not is_empty(cells[at])}
                whole = {at for at in filled if _WHOLE.fullmatch(cells[at])}
                found, possible = found | whole, possible - (filled - whole)
    return found & possible


def _cells(lines: _Lines, delimiter: str) -> tuple[list[str] | str, list[str]]:
    """(the cells of the next row or what is wrong with it, its lines); no lines at the end of the file."""
    used: list[str] = []

    def more() -> Iterator[str]:
        while len(used) < _MOST_LINES and (line := lines.take()) is not None:
            used.append(line)
            yield line

    try:
        return next(csv.reader(more(), delimiter=delimiter, strict=True), []), used
    except csv.Error as error:
        closed = "unexpected end" not in str(error)
        reason = f"a quote is not where one may be ({error})" if closed else "a quote is never closed"
        return reason, used


def _opened(path: Path, encoding: str) -> TextIO:
    # An image as base64 text is longer than the limit of 128 KiB, which only guards against quotes never closed.
    csv.field_size_limit(2**31 - 1)
    try:
        return path.open(
            encoding="utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding,
            errors="surrogateescape",
            newline="",
        )
    except LookupError as error:
        raise ConfigError(f"unknown encoding {encoding!r}; use utf-8, latin-1, cp1252, ...") from error


def _shown(line: str) -> str:
    """A line for messages, its undecoded bytes as question marks."""
    return shortened(_UNDECODED.sub("\N{REPLACEMENT CHARACTER}", line.rstrip("\r\n")))
