"""Files that are not what their names say."""

from __future__ import annotations

from pathlib import Path

import pytest

from kepo.data.arguments import DataArguments, load_questions
from kepo.errors import DataError

CSV = "question,answer\nWhat is shown?,A\n"
JSONL = '{"question": "Which?", "answer": "yes"}\n' * 2
JSON = '[{"question": "Which?", "answer": "yes"}]'


@pytest.mark.parametrize(
    ("name", "content", "seems"),
    [
        ("rows.json", CSV, "csv"),
        ("rows.jsonl", CSV, "csv"),
        ("rows.jsonl", CSV.replace(",", "\t"), "tsv"),
        ("rows.json", JSONL, "jsonl"),
        ("rows.csv", JSONL, "jsonl"),
        ("rows.tsv", JSON, "json"),
        ("rows.parquet", CSV, "csv"),
        ("rows.jsonl", JSON, "json"),
    ],
)
def test_what_a_file_looks_like_is_said(tmp_path: Path, name: str, content: str, seems: str) -> None:
    (tmp_path / name).write_text(content)
    kind = name.split(".")[1]
    with pytest.raises(
        DataError, match=rf"{name}: it is to be read as {kind}, but looks like {seems}; .*data_format: {seems}"
    ):
        load_questions(DataArguments(data_path=str(tmp_path / name)))


@pytest.mark.parametrize(("name", "content"), [("rows.json", JSON), ("rows.jsonl", JSONL), ("rows.csv", CSV)])
def test_a_file_that_is_what_its_name_says_is_read(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert load_questions(DataArguments(data_path=str(tmp_path / name)))


def test_a_wrong_data_format_is_named_too(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(CSV)
    with pytest.raises(DataError, match="to be read as json, but looks like csv"):
        load_questions(DataArguments(data_path=str(tmp_path / "rows.csv"), data_format="json"))


def test_json_lines_with_a_damaged_first_line_stay_json_lines(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("broken, here\n" + JSONL)
    with pytest.raises(DataError, match="row 1: the line is not JSON"):
        load_questions(DataArguments(data_path=str(tmp_path / "rows.jsonl")))
