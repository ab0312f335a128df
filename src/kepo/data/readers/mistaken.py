"""A file that is not what its name or `data_format` says: CSV named .json, JSON lines named .csv, and so on."""

from __future__ import annotations

import json
from pathlib import Path

from kepo.errors import DataError

_START = 65536  # bytes that are looked at


def check_kind(file: Path, kind: str) -> None:
    """Refuse a file whose first lines are of another kind than `kind`; one that cannot be told is left alone.

    Raises:
        DataError: Names the file, what it seems to be, and what to do.
    """
    seems = seeming_kind(file)
    same = {"csv", "tsv"}  # a delimiter can be given for both
    if seems in (None, kind) or {seems, kind} <= same:
        return
    raise DataError(
        f"{file} is read as {kind}, but looks like {seems}. Rename it to .{seems}, or set data_format: {seems}."
    )


def seeming_kind(file: Path) -> str | None:
    """What the beginning of a file looks like: "parquet", "json", "jsonl", "csv" or "tsv"; None: none of these."""
    with file.open("rb") as content:
        start = content.read(_START)
    if start.startswith(b"PAR1"):
        return "parquet"
    try:
        text = start.decode("utf-8-sig") if len(start) < _START else start.decode("utf-8-sig", errors="ignore")
    except UnicodeDecodeError:
        return None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    if lines[0].startswith("["):
        return "json"
    if lines[0].startswith("{"):
        return "jsonl" if len(lines) > 1 and all(map(_is_record, lines[:2])) else None
    if any(line.startswith(("{", "[")) for line in lines):
        return None  # JSON lines, the first of which is damaged
    cells = [line.count(",") for line in lines[:3]]
    tabs = [line.count("\t") for line in lines[:3]]
    if min(tabs) > 0:
        return "tsv"
    return "csv" if min(cells) > 0 and len(lines) > 1 else None


def _is_record(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except json.JSONDecodeError:
        return False
