"""An evaluation writes its records part by part, so that no question is asked again after an interruption.

The parts lie in `evaluation/.NAME.parts/` until the last question is answered; then they become `NAME.parquet`.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from kepo.errors import ConfigError
from kepo.files import readable_errors, write_json, write_table
from kepo.runs.evaluations import Record, evaluation_file, read_description, read_records, to_table
from kepo.runs.manifest import now

if TYPE_CHECKING:
    import pyarrow as pa

Unit: TypeAlias = tuple[str, int]
"""(question id, permutation): answered, and resumed, as a whole."""

_SECONDS_PER_PART = 30.0
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_SETTINGS = "settings.json"


class Parts:
    """The parts of an evaluation that runs: found again, added to, and joined.

    Args:
        out: The run folder (or any other).
        name: Name of the evaluation: letters, digits, `.`, `_`, `-`.
        settings: Everything that decides the records, as JSON.
        overwrite: Drop parts and records that lie there.

    Raises:
        ConfigError: a bad name, or records or parts of other settings lie there.
    """

    def __init__(self, out: str | Path, name: str, settings: Mapping[str, Any], *, overwrite: bool = False) -> None:
        check_name(name)
        self.file = evaluation_file(out, name)
        self._folder = self.file.with_name(f".{name}.parts")
        self._settings: dict[str, Any] = json.loads(json.dumps(settings))
        self._waiting: list[Record] = []
        self._since = time.monotonic()
        if overwrite:
            shutil.rmtree(self._folder, ignore_errors=True)
        self.finished = not overwrite and self.file.is_file()
        if self.finished:
            self._refuse_others(read_description(self.file).get("settings", {}), self.file)
        else:
            self._open()

    def done(self) -> set[Unit]:
        """What the parts hold already; raises DataError where one is damaged."""
        return {unit for table in self._read_parts() for unit, _ in _keys(table)}

    def add(self, records: Iterable[Record]) -> None:
        """Keep the records of whole units; they are written when the last part is some seconds old."""
        self._waiting += records
        if time.monotonic() - self._since > _SECONDS_PER_PART:
            self.flush()

    def flush(self) -> None:
        """Write what waits as a part of its own."""
        if self._waiting:
            number = 1 + max((int(file.stem.removeprefix("part-")) for file in self._files()), default=0)
            seconds = time.monotonic() - self._since
            table = to_table(self._waiting).replace_schema_metadata({"seconds": f"{seconds:.3f}"})
            write_table(table, self._folder / f"part-{number:06d}.parquet")
            self._waiting = []
        self._since = time.monotonic()

    def join(self, order: Sequence[Unit], describe: Callable[[str, float], Mapping[str, Any]]) -> Path:
        """Make one file of the parts, in `order`, and delete them.

        Args:
            order: Every unit.
            describe: The content of `NAME.json`, from when it was started and the seconds it took.
        """
        import pyarrow as pa

        self.flush()
        tables = self._read_parts()
        joined = pa.concat_tables(tables)
        place = {unit: index for index, unit in enumerate(order)}
        rows = sorted((place[unit], sample, index) for index, (unit, sample) in enumerate(_keys(joined)))
        seconds = sum(float((table.schema.metadata or {}).get(b"seconds", 0)) for table in tables)
        started = json.loads((self._folder / _SETTINGS).read_text(encoding="utf-8"))["started"]
        write_json(describe(started, seconds), self.file.with_suffix(".json"))
        write_table(joined.take([index for _, _, index in rows]).replace_schema_metadata(None), self.file)
        shutil.rmtree(self._folder, ignore_errors=True)
        return self.file

    def _open(self) -> None:
        settings = self._folder / _SETTINGS
        if settings.is_file():
            self._refuse_others(json.loads(settings.read_text(encoding="utf-8"))["settings"], self._folder)
            return
        with readable_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        write_json({"started": now(), "settings": self._settings}, settings)

    def _refuse_others(self, theirs: Mapping[str, Any], where: Path) -> None:
        differing = [name for name in {**self._settings, **theirs} if self._settings.get(name) != theirs.get(name)]
        if differing:
            values = [f"{name}: {theirs.get(name)!r} there, {self._settings.get(name)!r} now" for name in differing]
            shown = "; ".join(values)
            raise ConfigError(
                f"{where} was made with other settings ({shown}). Choose another --name, or --overwrite it."
            )

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("part-*.parquet"))

    def _read_parts(self) -> list[pa.Table]:
        advice = "delete it, and the same command asks its questions again"
        return [read_records(file, advice) for file in self._files()]


def answered(out: str | Path, name: str) -> int:
    """How many records the parts hold so far."""
    import pyarrow.parquet as pq

    count = 0
    for file in evaluation_file(out, name).with_name(f".{name}.parts").glob("part-*.parquet"):
        # The parts may be joined, and so vanish, at any moment.
        with suppress(FileNotFoundError):
            count += pq.read_metadata(file).num_rows
    return count


def check_name(name: str) -> None:
    """Raise ConfigError for a name that could be none of a file."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"the name {name!r} of an evaluation may only hold letters, digits, '.', '_' and '-'")


def _keys(table: pa.Table) -> list[tuple[Unit, int]]:
    columns = [table[name].to_pylist() for name in ("id", "permutation", "sample")]
    return [((question, permutation), sample) for question, permutation, sample in zip(*columns, strict=True)]
