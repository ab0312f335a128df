"""An evaluation that runs writes its records part by part, so that what was asked is never asked again.

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
"""(question id, permutation): what is asked, and resumed, as a whole."""

_SECONDS_PER_PART = 30.0
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_SETTINGS = "settings.json"


class Parts:
    """The parts of an evaluation that runs: found again, added to, and joined.

    Args:
        out: The run folder (or any other).
        name: Name of the evaluation: letters, digits, `.`, `_`, `-`.
        settings: Everything that decides the records, as JSON; parts made with other settings are refused.
        overwrite: Drop parts and records that lie there.

    Raises:
        ConfigError: a bad name, or records or parts of other settings lie there.
        DataError: the folder cannot be written.
    """

    def __init__(self, out: str | Path, name: str, settings: Mapping[str, Any], *, overwrite: bool = False) -> None:
        check_name(name)
        self.file = evaluation_file(out, name)
        self._description = self.file.with_suffix(".json")
        self._folder = self.file.with_name(f".{name}.parts")
        self._settings: dict[str, Any] = json.loads(json.dumps(settings))
        self._waiting: list[Record] = []
        self._since = time.monotonic()
        if overwrite:
            shutil.rmtree(self._folder, ignore_errors=True)
        self.finished = not overwrite and self._is_finished()
        if not self.finished:
            self._open()

    def done(self) -> set[Unit]:
        """What the parts hold already.

        Raises:
            DataError: a part is damaged.
        """
        return {unit for _, table in self._read_parts() for unit in _units(table)}

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
            order: Every unit that was asked.
            describe: From when it was started and the seconds it took to the content of `NAME.json`.
        """
        import pyarrow as pa

        self.flush()
        tables = self._read_parts()
        place = {unit: index for index, unit in enumerate(order)}
        rows = sorted(
            (place[unit], sample, index)
            for index, (unit, sample) in enumerate(_keys(pa.concat_tables([table for _, table in tables])))
        )
        seconds = sum(float((table.schema.metadata or {}).get(b"seconds", 0)) for _, table in tables)
        joined = pa.concat_tables([table for _, table in tables]).take([index for _, _, index in rows])
        write_json(describe(self._started(), seconds), self._description)
        write_table(joined.replace_schema_metadata(None), self.file)
        shutil.rmtree(self._folder, ignore_errors=True)
        return self.file

    def _is_finished(self) -> bool:
        if not self.file.is_file():
            return False
        self._refuse_others(read_description(self.file).get("settings", {}), self.file)
        return True

    def _open(self) -> None:
        settings = self._folder / _SETTINGS
        if settings.is_file():
            self._refuse_others(json.loads(settings.read_text(encoding="utf-8"))["settings"], self._folder)
            return
        with readable_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        write_json({"started": now(), "settings": self._settings}, settings)

    def _started(self) -> str:
        return str(json.loads((self._folder / _SETTINGS).read_text(encoding="utf-8"))["started"])

    def _refuse_others(self, theirs: Mapping[str, Any], where: Path) -> None:
        differing = [name for name in {**self._settings, **theirs} if self._settings.get(name) != theirs.get(name)]
        if differing:
            shown = "; ".join(
                f"{name}: {theirs.get(name)!r} there, {self._settings.get(name)!r} now" for name in differing
            )
            raise ConfigError(
                f"{where} was made with other settings ({shown}). Choose another --name, or --overwrite it."
            )

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("part-*.parquet"))

    def _read_parts(self) -> list[tuple[Path, pa.Table]]:
        advice = "delete it, and the same command asks its questions again"
        return [(file, read_records(file, advice)) for file in self._files()]


def answered(out: str | Path, name: str) -> int:
    """How many records the parts of an evaluation that runs hold so far, without reading them."""
    import pyarrow.parquet as pq

    count = 0
    for file in evaluation_file(out, name).with_name(f".{name}.parts").glob("part-*.parquet"):
        # The parts may be joined, and so vanish, at any moment.
        with suppress(FileNotFoundError):
            count += pq.read_metadata(file).num_rows
    return count


def check_name(name: str) -> None:
    """Refuse a name of an evaluation that could be none of a file."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"the name {name!r} of an evaluation may only hold letters, digits, '.', '_' and '-'")


def _keys(table: pa.Table) -> list[tuple[Unit, int]]:
    columns = [table[name].to_pylist() for name in ("id", "permutation", "sample")]
    return [((question, permutation), sample) for question, permutation, sample in zip(*columns, strict=True)]


def _units(table: pa.Table) -> set[Unit]:
    return {unit for unit, _ in _keys(table)}
