"""Any table by a column map: every kind of file, every way to write answers, and rows that cannot be used."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from kepo.data.readers.questions import load_table, table_source
from kepo.data.readers.rows import TableFile
from kepo.data.readers.table import TableMap
from kepo.data.sources import Source, Unusable
from kepo.errors import ConfigError, DataError
from kepo.types import Question

GERMAN = {"Frage": "Was ist zu sehen?", "pfad": "a.png", "Antwort": "Zyste", "Wahl": "Zyste|Tumor|Stein", "Art": "CT"}
MAP = {"question": "Frage", "image": "pfad", "answer": "Antwort", "options": "Wahl", "modality": "Art"}
ROW: dict[str, Any] = {"question": "What?", "answer": "B", "options": ["one", "two"], "modality": "MRI"}


def write_csv(path: Path, rows: list[dict[str, Any]], delimiter: str = ",", encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as out:
        writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def png(colour: int = 7) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (6, 5), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def source_of(file: Path | TableFile, **table_map: Any) -> Source:
    table = file if isinstance(file, TableFile) else TableFile(file)
    return table_source([table], TableMap(**table_map), None, table.path.parent / "kept")


def parted(source: Source) -> tuple[list[Question], list[Unusable]]:
    rows = list(source.rows)
    return [r for r in rows if isinstance(r, Question)], [r for r in rows if isinstance(r, Unusable)]


def rows_of(folder: Path, *rows: Any, **table_map: Any) -> tuple[list[Question], list[Unusable]]:
    return parted(source_of(write_jsonl(folder / "t.jsonl", list(rows)), **table_map))


@pytest.mark.parametrize("kind", ["csv", "semicolon", "tsv", "jsonl", "json", "parquet"])
def test_every_kind_of_file_gives_the_same_question(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    if kind == "csv":
        table = TableFile(write_csv(tmp_path / "t.csv", [GERMAN], encoding="utf-8-sig"))
    elif kind == "semicolon":
        file = write_csv(tmp_path / "t.csv", [{**GERMAN, "Frage": "Größe?"}], ";", "cp1252")
        table = TableFile(file, delimiter=";", encoding="cp1252")
    elif kind == "tsv":
        table = TableFile(write_csv(tmp_path / "t.tsv", [GERMAN], "\t"))
    elif kind == "jsonl":
        table = TableFile(write_jsonl(tmp_path / "t.jsonl", [GERMAN]))
    elif kind == "json":
        (tmp_path / "t.json").write_text(json.dumps([GERMAN]))
        table = TableFile(tmp_path / "t.json")
    else:
        pyarrow.parquet.write_table(pa.Table.from_pylist([GERMAN]), tmp_path / "t.parquet")
        table = TableFile(tmp_path / "t.parquet")
    (question,), bad = parted(source_of(table, columns=MAP, option_separator="|"))
    assert not bad
    row = 2 if kind in ("csv", "semicolon", "tsv") else 1
    assert question == Question(
        id=f"t-{row}",
        text="Größe?" if kind == "semicolon" else "Was ist zu sehen?",
        answer="A",
        options=("Zyste", "Tumor", "Stein"),
        images=(tmp_path / "a.png",),
        modality="CT",
        metadata={"dataset": "t", "image": "a.png", "file": table.path.name, "row": row},
    )


@pytest.mark.parametrize(
    ("form", "given", "letter"),
    [
        ("auto", "b", "B"),
        ("auto", "TWO.", "B"),
        ("letter", "(b)", "B"),
        ("letter", "B.", "B"),
        ("text", "two", "B"),
        ("index", 1, "B"),
        ("index", "0", "A"),
        ("index", 1.0, "B"),
        ("index", "1.0", "B"),
    ],
)
def test_answers_by_letter_text_and_index(form: str, given: Any, letter: str, tmp_path: Path) -> None:
    (question,), _ = rows_of(tmp_path, {**ROW, "answer": given}, answer=form)
    assert question.answer == letter


@pytest.mark.parametrize(
    ("form", "given", "reason"),
    [
        ("auto", "three", "not among the options"),
        ("letter", "two", "no letter from A to B"),
        ("letter", "C", "no letter"),
        ("text", "B", "not among the options"),
        ("index", 2, "not the index of an option"),
        ("index", -1, "not the index"),
        ("index", "B", "not the index"),
        ("index", 0.5, "not the index"),
        ("index", True, "not the index"),
        ("index", "nan", "missing"),
        ("auto", None, "missing"),
        ("auto", {"a": 1}, "not text"),
    ],
)
def test_answers_that_fit_no_option_are_listed(form: str, given: Any, reason: str, tmp_path: Path) -> None:
    good, (bad,) = rows_of(tmp_path, {**ROW, "answer": given}, answer=form)
    assert not good
    assert (bad.source, bad.row, bad.field) == ("t.jsonl", 1, "answer")
    assert reason in bad.reason


def test_an_option_that_is_the_letter_of_another_is_read_as_asked_for(tmp_path: Path) -> None:
    row = {**ROW, "options": ["B", "A"], "answer": "B"}
    assert rows_of(tmp_path, row, answer="letter")[0][0].answer == "B"
    assert rows_of(tmp_path, row, answer="text")[0][0].answer == "A"
    _, (bad,) = rows_of(tmp_path, row)
    assert "letter of one option and the text of another" in bad.reason


@pytest.mark.parametrize(
    ("cells", "table_map", "options"),
    [
        ({"options": '["one", "two"]'}, {}, ("one", "two")),
        ({"options": {"A": "one", "B": "two", "C": None}}, {}, ("one", "two")),
        ({"options": "one ;; two"}, {"option_separator": ";;"}, ("one", "two")),
        ({"options": None}, {}, ()),
        ({"options": None, "x": "one", "y": "two"}, {"columns": {"option_A": "x", "option_B": "y"}}, ("one", "two")),
        ({}, {"constants": {"options": "one|two"}, "option_separator": "|"}, ("one", "two")),
    ],
)
def test_ways_to_write_options(
    cells: dict[str, Any], table_map: dict[str, Any], options: tuple[str, ...], tmp_path: Path
) -> None:
    (question,), bad = rows_of(tmp_path, {**ROW, **cells}, **table_map)
    assert not bad
    assert question.options == options
    assert question.answer == "B"


def test_lettered_columns_of_their_own_names_need_no_map(tmp_path: Path) -> None:
    row = {"question": "What?", "answer": "three", "modality": "OCT", "option_A": "one", "option_B": "two"}
    (question,), _ = rows_of(tmp_path, {**row, "option_C": "three", "option_D": ""})
    assert (question.options, question.answer) == (("one", "two", "three"), "C")


@pytest.mark.parametrize(
    ("cells", "field", "reason"),
    [
        ({"options": "one, two"}, "options", "no JSON list"),
        ({"options": ["one"]}, "options", "only one option"),
        ({"options": {"A": "one", "C": "two"}}, "options", "not A, B, C"),
        ({"options": 5}, "options", "not a list"),
        ({"options": ["one", ["two"]]}, "options", "not text"),
        ({"options": "[" * 50_000}, "options", "no JSON list"),
        ({"question": "  "}, "question", "missing or empty"),
        ({"question": float("nan")}, "question", "missing or empty"),
        ({"modality": None}, "modality", "missing"),
        ({"split": "holdout"}, "split", "none of train"),
        ({"split": None}, "split", "missing"),
        ({"image": ""}, "image", "missing"),
        ({"image": []}, "image", "empty list"),
        ({"image": ["a.png", 3]}, "image", "is not an image"),
        ({"image": "../a.png"}, "image", "outside the image root"),
        ({"image": ["a.png", "/etc/passwd"]}, "image", "outside the image root"),
        ({"image": {"path": "../../x.png", "bytes": None}}, "image", "outside the image root"),
        ({"image": "a\0.png"}, "image", "no name that a file can have"),
    ],
)
def test_cells_that_cannot_be_used_are_listed(cells: dict[str, Any], field: str, reason: str, tmp_path: Path) -> None:
    good_row = {
        **ROW,
        **{name: "train" if name == "split" else "a.png" for name in cells if name in ("split", "image")},
    }
    good, (bad,) = rows_of(tmp_path, good_row, {**ROW, **cells})
    assert len(good) == 1
    assert (bad.row, bad.field) == (2, field)
    assert reason in bad.reason
    assert len(bad.value) <= 80


def test_the_column_is_named_as_in_the_table(tmp_path: Path) -> None:
    _, (bad,) = rows_of(tmp_path, {**GERMAN, "Antwort": "Luft"}, columns=MAP, option_separator="|")
    assert (bad.field, bad.value) == ("Antwort", "Luft")


def test_rows_that_cannot_be_read_are_listed(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(
        json.dumps(ROW).encode() + b'\n{"question": \n\n[1, 2]\n\xff\xfe\n' + json.dumps(ROW).encode()
    )
    good, bad = parted(source_of(tmp_path / "t.jsonl"))
    assert [q.id for q in good] == ["t-1", "t-6"]
    assert [u.row for u in bad] == [2, 4, 5]
    lines = [
        "question,answer,modality",
        "What?,free text,CT",
        "short,row",
        "a,b,c,d",
        "",
        '"two\nlines","x"" y",CT',
        "Why?,so,CT",
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    good, bad = parted(source_of(tmp_path / "t.csv"))
    assert [(q.id, q.text, q.answer) for q in good] == [
        ("t-2", "What?", "free text"),
        ("t-6", "two\nlines", 'x" y'),
        ("t-8", "Why?", "so"),
    ]
    assert [(u.row, u.reason, u.value) for u in bad] == [
        (3, "2 cells, where the header has 3 columns", "short,row"),
        (4, "4 cells, where the header has 3 columns", "a,b,c,d"),
    ]


def test_a_quote_that_is_never_closed_hides_no_rows(tmp_path: Path) -> None:
    header = "question,modality,answer\n"
    for last, kept in [
        ('Why?,CT,"so\nWhat?,CT,x\nHow?,CT,y\n', ["t-2", "t-4", "t-5"]),
        ('Why?,"CT,so\nWhat?,CT,x\n', ["t-2", "t-4"]),
        ('Why?,"CT,so\nWhat?,CT,"x"\nHow?,CT,y\n', ["t-2", "t-4", "t-5"]),
    ]:
        (tmp_path / "t.csv").write_text(f"{header}Who?,CT,me\n{last}")
        good, (bad,) = parted(source_of(tmp_path / "t.csv"))
        assert ([q.id for q in good], bad.row) == (kept, 3)
        assert "quote" in bad.reason
    # Closed in a later row, it holds the rows between, which are told one by one.
    (tmp_path / "t.csv").write_text(f'{header}Why?,"CT,so\nWhat?,CT,x\nHow?,CT,y"\nWho?,CT,me\n')
    good, bad_rows = parted(source_of(tmp_path / "t.csv"))
    assert ([q.id for q in good], [one.row for one in bad_rows]) == (["t-5"], [2, 3, 4])
    # A last cell of two lines is whole when its quote is closed.
    (tmp_path / "t.csv").write_text(f'{header}Who?,CT,"me\nor you\n"\n')
    assert parted(source_of(tmp_path / "t.csv"))[1] == []


def test_rows_of_another_encoding_are_listed(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"question,answer,modality\nWhat?,x,CT\nGr\xf6\xdfe?,y,CT\nWhy?,z,CT\n")
    good, (bad,) = parted(source_of(tmp_path / "t.csv"))
    assert [q.id for q in good] == ["t-2", "t-4"]
    assert (bad.row, bad.reason) == (3, "not utf-8; say which encoding it is")
    bad.value.encode()
    with pytest.raises(DataError, match=r"t\.csv, row 3: not utf-8; say which encoding"):
        load_table(tmp_path / "t.csv")
    assert len(parted(source_of(TableFile(tmp_path / "t.csv", encoding="cp1252")))[0]) == 3


def test_cells_of_csv_are_texts(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,question,answer,modality\n003,2024-01-01,NA,CT\n1e5,true,007,CT\n")
    good, bad = parted(source_of(tmp_path / "t.csv"))
    assert not bad
    assert [(q.id, q.text, q.answer) for q in good] == [("003", "2024-01-01", "NA"), ("1e5", "true", "007")]


def test_bad_rows_are_numbered_right_in_a_long_file(tmp_path: Path) -> None:
    lines = ["question,answer,modality", *(f"q{row},a,CT" if row % 7 else "short,row" for row in range(2, 500))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    good, bad = parted(source_of(tmp_path / "t.csv"))
    assert [q.id for q in good] == [f"t-{row}" for row in range(2, 500) if row % 7]
    assert all(q.id == f"t-{q.text[1:]}" for q in good)
    assert [u.row for u in bad] == [row for row in range(2, 500) if not row % 7]


def test_ids_that_are_there_twice_are_listed(tmp_path: Path) -> None:
    good, (bad,) = rows_of(tmp_path, {**ROW, "id": 5}, {**ROW, "id": "5"})
    assert [q.id for q in good] == ["5"]
    assert (bad.field, bad.row) == ("id", 2)


def test_constants_datasets_splits_and_licenses(tmp_path: Path) -> None:
    rows = [{**ROW, "origin": "one", "fold": "dev"}, {**ROW, "origin": "two", "fold": "TRAIN", "modality": "Sonar"}]
    file = write_jsonl(tmp_path / "t.jsonl", rows)
    table_map = TableMap({"dataset": "origin", "split": "fold"}, {"task": "Grading", "modality": "ct scan"})
    source = table_source([TableFile(file)], table_map, None, tmp_path / "kept", license="CC0 1.0")
    assert (source.license_of("one"), source.split_given, source.files) == ("CC0 1.0", True, (file,))
    good, bad = parted(source)
    assert not bad
    assert [(q.metadata["dataset"], q.metadata["split"], q.task, q.modality) for q in good] == [
        ("one", "validation", "Grading", "CT"),
        ("two", "train", "Grading", "CT"),
    ]
    plain = source_of(file)
    assert (plain.license_of("t"), plain.split_given) == ("unknown", False)
    # A modality of no known name stays what it is.
    assert parted(plain)[0][1].modality == "Sonar"


def test_images_inside_parquet_are_written_once_each(tmp_path: Path) -> None:
    images = [
        {"bytes": png(7), "path": "../../x.png"},
        {"bytes": png(7), "path": "b.png"},
        {"bytes": png(9), "path": None},
    ]
    rows = [{**ROW, "image": image, "other": "x" * 100} for image in images]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    good, bad = parted(source_of(tmp_path / "t.parquet"))
    assert not bad
    paths = [q.images[0] for q in good]
    assert paths[0] == paths[1] != paths[2]
    assert {path.parent for path in paths} == {(tmp_path / "kept").resolve()}
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == sorted({path.name for path in paths})
    assert [Image.open(path).getpixel((0, 0)) for path in paths] == [7, 7, 9]


@pytest.mark.parametrize(
    ("table_map", "problem"),
    [
        (
            {"columns": {"question": "Frag"}},
            "has no column 'Frag'.*its columns are question, answer, options, modality",
        ),
        ({"columns": {"quest": "question"}}, "no field 'quest'"),
        ({"columns": {"task": "question"}, "constants": {"task": "x"}}, "as a column and as a constant"),
        ({"columns": {"options": "options", "option_A": "answer"}}, "map one of the two"),
        ({"answer": "number"}, "answer 'number' is unknown"),
        ({"option_separator": ""}, "separator is empty"),
    ],
)
def test_maps_that_cannot_work_stop(table_map: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=problem):
        rows_of(tmp_path, ROW, **table_map)


def test_fields_that_every_question_has_must_be_somewhere(tmp_path: Path) -> None:
    row = {key: value for key, value in ROW.items() if key != "modality"}
    with pytest.raises(ConfigError, match=r"not said where modality stands.*its columns are question, answer, options"):
        rows_of(tmp_path, row)


def test_files_that_are_not_what_their_name_says(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        TableFile(tmp_path / "t.csv")
    (tmp_path / "t.xlsx").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the endings \.csv"):
        TableFile(tmp_path / "t.xlsx")
    for name, text, problem in [
        ("t.csv", "", "no header"),
        ("t.csv", "a,b,a\n", "the column 'a' twice"),
        ("t.csv", "Größe,answer,modality\nWhat?,x,CT\n".encode("cp1252"), "check delimiter and encoding"),
        ("t.parquet", "no", "not a Parquet file"),
        ("t.json", '{"a": 1}', "list"),
    ]:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(DataError, match=problem):
            list(source_of(tmp_path / name).rows)
    (tmp_path / "t.csv").write_text("question\n")
    with pytest.raises(ConfigError, match="encoding 'utf-99'"):
        source_of(TableFile(tmp_path / "t.csv", encoding="utf-99"))
    with pytest.raises(ConfigError, match="not one ASCII character"):
        TableFile(tmp_path / "t.csv", delimiter="||")
