"""A hint bank: hints in one text file, one line each, that runs read and add to and people share and diff.

While hints are added the file only grows: whole lines, under a lock, so that several processes may add to it. `tidy`
sorts it, so that two banks with the same hints are the same file. A line that a killed writer left half written is
dropped, with a warning.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock
from msgspec.structs import replace

from kepo.errors import ConfigError, DataError
from kepo.exploration.bank_lines import BankedHint, parse_line, to_line
from kepo.exploration.duplicates import is_duplicate
from kepo.files import replacing

logger = logging.getLogger(__name__)


class HintBank:
    """The hints in a file. Made by `open`; what other processes add is seen by `refresh`, and when hints are added."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._by_hash: dict[str, list[BankedHint]] = {}
        self._by_question: dict[str, list[BankedHint]] = {}
        self._lines = 0
        self._read = 0  # bytes
        self._file: int | None = None  # inode: `tidy` of another process puts another file in place
        self._warned = False

    @classmethod
    def open(cls, path: str | Path, *, create: bool = False) -> HintBank:
        """Read the bank at `path`.

        Args:
            path: The file.
            create: Make an empty bank where there is none, its folder included.

        Raises:
            ConfigError: There is no such file, or it cannot be made or read.
            DataError: A line that is not one of a bank; names file and line.
        """
        bank = cls(Path(path))
        try:
            if create:
                bank.path.parent.mkdir(parents=True, exist_ok=True)
                bank.path.touch()
            bank._refresh()
        except FileNotFoundError as error:
            raise ConfigError(
                f"There is no hint bank {bank.path}. Write one with `kepo hints`, fix the path, or name a teacher, "
                "which writes the missing hints."
            ) from error
        except OSError as error:
            raise ConfigError(f"The hint bank {bank.path} cannot be opened: {error}.") from error
        return bank

    def __len__(self) -> int:
        return sum(map(len, self._by_hash.values()))

    @property
    def hints(self) -> list[BankedHint]:
        """All hints, sorted."""
        return sorted((hint for hints in self._by_hash.values() for hint in hints), key=lambda hint: hint.order)

    @property
    def teachers(self) -> tuple[str, ...]:
        """Who wrote them, sorted."""
        return tuple(sorted({hint.teacher for hints in self._by_hash.values() for hint in hints}))

    def find(self, content_hash: str, teacher: str | None = None) -> tuple[BankedHint, ...]:
        """The hints of one request, those that leak included, in the order of `BankedHint.order`.

        Args:
            content_hash: Of the request, see `kepo.files.content_hash`.
            teacher: Only hints of this teacher; None: of any.
        """
        hints = [hint for hint in self._by_hash.get(content_hash, ()) if teacher in (None, hint.teacher)]
        return tuple(sorted(hints, key=lambda hint: hint.order))

    def refresh(self) -> None:
        """Read what was added to the file since the last look.

        Raises:
            ConfigError: The file cannot be read any more.
            DataError: A line that is not one of a bank; names file and line.
        """
        with self._explained("read"):
            self._refresh()

    def add(self, hints: Iterable[BankedHint]) -> list[BankedHint]:
        """Append hints to the file, under its lock.

        Args:
            hints: As `to_banked` makes them; `index` and `duplicate` are set here. Those of an empty answer are left
                out, so that they are asked for again.

        Returns:
            The hints as they were written.

        Raises:
            ConfigError: The file cannot be written.
        """
        drafts = [hint for hint in hints if hint.raw.strip()]
        if not drafts:
            return []
        with self._explained("written"), self._lock():
            self._make_whole()
            added = [self._remember(self._placed(draft)) for draft in drafts]
            with self.path.open("ab") as file:
                file.write(b"".join(map(to_line, added)))
                self._read = file.tell()
        self._lines += len(added)
        return added

    def tidy(self) -> None:
        """Sort the file, number its hints and mark duplicates in that order; a bank that is in order is left alone.

        Raises:
            ConfigError: The file cannot be written; it is what it was.
        """
        with self._explained("written"), self._lock():
            self._make_whole()
            content = b"".join(map(to_line, _in_order(self.hints)))
            if content != self.path.read_bytes():
                with replacing(self.path) as partial:
                    partial.write_bytes(content)
        self.refresh()

    # --- the file ---------------------------------------------------------------------------------------------------

    def _lock(self) -> FileLock:
        return FileLock(f"{self.path}.lock")

    @contextlib.contextmanager
    def _explained(self, done: str) -> Iterator[None]:
        """An error of the file is a sentence; what is known is read anew then, since nobody knows how far it came."""
        try:
            yield
        except OSError as error:
            self._forget()
            raise ConfigError(f"The hint bank {self.path} cannot be {done}: {error}.") from error

    def _refresh(self) -> None:
        with self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._file or status.st_size < self._read:
                self._forget()
                self._file = status.st_ino
            file.seek(self._read)
            self._take(file.read())

    def _take(self, content: bytes) -> None:
        *lines, last = content.split(b"\n")
        for line in lines:
            self._lines += 1
            if line.strip():
                self._remember(self._parsed(line))
        self._read += len(content) - len(last)
        if not last:
            return
        try:
            self._remember(parse_line(last))
        except ValueError:
            if not self._warned:
                logger.warning("The last line of the hint bank %s is half written; it is left out.", self.path)
            self._warned = True
        else:
            self._read += len(last)

    def _parsed(self, line: bytes) -> BankedHint:
        try:
            return parse_line(line)
        except ValueError as error:
            raise DataError(
                f"{self.path}, line {self._lines}: this is no line of a hint bank: {error}. Remove the line, and "
                "`kepo hints` writes the hint again."
            ) from error

    def _make_whole(self) -> None:
        """Take up what others wrote, and see to it that the file ends with a whole line."""
        self._refresh()
        with self.path.open("r+b") as file:
            file.truncate(self._read)
            file.seek(max(self._read - 1, 0))
            if file.read(1) not in (b"", b"\n"):
                file.write(b"\n")
                self._read += 1
                self._lines += 1

    # --- what is known of it ----------------------------------------------------------------------------------------

    def _forget(self) -> None:
        self._by_hash, self._by_question = {}, {}
        self._read = self._lines = 0

    def _remember(self, hint: BankedHint) -> BankedHint:
        hints = self._by_hash.setdefault(hint.content_hash, [])
        if hint not in hints:  # two banks that were put together may both hold it
            hints.append(hint)
            self._by_question.setdefault(hint.question, []).append(hint)
        return hint

    def _placed(self, draft: BankedHint) -> BankedHint:
        """The hint with its number, and whether it says what another hint of its question says."""
        taken = [hint.index for hint in self.find(draft.content_hash, draft.teacher)]
        others = [hint.text for hint in self._by_question.get(draft.question, ())]
        return replace(draft, index=max(taken, default=-1) + 1, duplicate=is_duplicate(draft.text, others))


def _in_order(hints: Sequence[BankedHint]) -> list[BankedHint]:
    """Sorted hints, numbered without gaps, a duplicate being one that follows a hint of its question like it."""
    counts: dict[tuple[str, str], int] = {}
    texts: dict[str, list[str]] = {}
    ordered = []
    for hint in hints:
        key, said = (hint.content_hash, hint.teacher), texts.setdefault(hint.question, [])
        index = counts.get(key, 0)
        ordered.append(replace(hint, index=index, duplicate=is_duplicate(hint.text, said)))
        counts[key] = index + 1
        said.append(hint.text)
    return ordered
