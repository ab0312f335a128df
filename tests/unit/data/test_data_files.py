"""Questions from files, and the way there and back through a data set."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kepo.data import load_dataset_folder, load_table, to_dataset
from kepo.errors import DataError

ROW: dict[str, Any] = {"question": "What is it?", "options": ["Cyst", "Tumour"], "answer": "tumour"}


def write_jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def png(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def test_jsonl_counts_lines_and_skips_empty_ones(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "set.jsonl", ROW, "\n", {**ROW, "image": "img/a.png"})
    questions = load_table(path)
    assert [question.id for question in questions] == ["set-1", "set-3"]
    assert questions[1].images == (tmp_path / "img" / "a.png",)
    assert load_table(path, image_root=tmp_path / "else")[1].images == (tmp_path / "else" / "img" / "a.png",)


def test_jsonl_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROW).encode())
    assert len(load_table(path)) == 1


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([ROW, "{not json\n"], "row 2: the line is not JSON"),
        ([ROW, "\n", json.dumps(ROW) + "}\n"], "row 3: the line is not JSON"),
        ([ROW, [1, 2]], r"row 2: it is \[1, 2\], not a record"),
        ([ROW, {**ROW, "answer": "Stone"}], "row 2, field 'answer': 'Stone' is not among the options"),
        ([{**ROW, "id": "a"}, {**ROW, "id": "a"}], "row 2, field 'id': 'a' is already the id of row 1"),
        ([{**ROW, "image": "../x.png"}], "row 1, field 'image': the image '../x.png' lies outside"),
    ],
)
def test_jsonl_errors_name_the_line(tmp_path: Path, rows: list[Any], says: str) -> None:
    path = write_jsonl(tmp_path / "set.jsonl", *rows)
    with pytest.raises(DataError, match=rf"set\.jsonl, {says}"):
        load_table(path)


def test_jsonl_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(json.dumps(ROW).encode() + b"\n\xff\xfe\n")
    with pytest.raises(DataError, match="row 2: the line is not UTF-8"):
        load_table(path)


@pytest.mark.parametrize("load", [load_table])
def test_a_file_that_is_not_there(tmp_path: Path, load) -> None:
    with pytest.raises(DataError, match="there is no such file; check data_path"):
        load(tmp_path / "none")


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_parquet(tmp_path: Path) -> None:
    stored = {**ROW, "images": [{"bytes": png("red"), "path": "a.png"}], "metadata": '{"a": 1}'}
    named = {**ROW, "images": [{"bytes": None, "path": "b.png"}], "metadata": None}
    first, second = load_table(write_parquet(tmp_path / "set.parquet", [stored, named]))
    assert (first.id, first.answer, first.metadata) == ("set-1", "B", {"a": 1})
    assert first.images[0].convert("RGB").getpixel((0, 0)) == (255, 0, 0)
    assert second.images == (tmp_path / "b.png",)


def test_parquet_errors(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(DataError, match=r"bad\.parquet: not a Parquet file"):
        load_table(tmp_path / "bad.parquet")
    truncated = {**ROW, "images": [{"bytes": png()[:-30], "path": None}]}
    path = write_parquet(tmp_path / "set.parquet", [{**ROW, "images": []}, truncated])
    with pytest.raises(
        DataError, match=r"set\.parquet, row 2, field 'images': the stored image is truncated or damaged"
    ):
        load_table(path)


def test_there_and_back_through_a_data_set(tmp_path: Path) -> None:
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        (tmp_path / name).write_bytes(png(colour))
    path = write_jsonl(
        tmp_path / "set.jsonl",
        {**ROW, "id": "x", "images": ["a.png", "b.png"], "modality": "CT", "task": "T", "metadata": {"k": [1, "ü"]}},
        {"question": "Where is {it}?", "answer": "left lung", "image": "b.png"},
        {"question": "1+1?", "answer": "2"},
    )
    questions = load_table(path)
    to_dataset(questions, "think").save_to_disk(str(tmp_path / "saved"))
    for name in ("a.png", "b.png"):
        (tmp_path / name).unlink()

    again = load_dataset_folder(tmp_path / "saved")
    for before, after in zip(questions, again, strict=True):
        for field in ("id", "text", "answer", "options", "modality", "task", "metadata"):
            assert getattr(after, field) == getattr(before, field), field
        assert len(after.images) == len(before.images)
    colours = [[image.convert("RGB").getpixel((0, 0)) for image in question.images] for question in again]
    assert colours == [[(255, 0, 0), (0, 0, 255)], [(0, 0, 255)], []]


def test_splits_of_a_folder(tmp_path: Path) -> None:
    from datasets import DatasetDict

    questions = load_table(write_jsonl(tmp_path / "set.jsonl", ROW, ROW, ROW))
    splits = {"train": to_dataset(questions[:2], "plain"), "test": to_dataset(questions[2:], "plain")}
    DatasetDict(splits).save_to_disk(str(tmp_path / "two"))
    DatasetDict({"test": splits["test"]}).save_to_disk(str(tmp_path / "one"))

    assert [question.id for question in load_dataset_folder(tmp_path / "two", split="train")] == ["set-1", "set-2"]
    assert [question.id for question in load_dataset_folder(tmp_path / "one")] == ["set-3"]
    with pytest.raises(DataError, match="field 'data_split': no split was chosen; there are train, test"):
        load_dataset_folder(tmp_path / "two")
    with pytest.raises(DataError, match="there is no split 'dev'; there are train, test"):
        load_dataset_folder(tmp_path / "two", split="dev")


def test_a_folder_that_holds_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder written by datasets' save_to_disk"):
        load_dataset_folder(tmp_path)


def test_a_saved_row_that_cannot_be_used(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_list([ROW, {**ROW, "answer": "Stone"}]).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match="saved, row 2, field 'answer': 'Stone' is not among the options"):
        load_dataset_folder(tmp_path / "saved")


@pytest.mark.parametrize("field", ["image", "images"])
def test_a_saved_image_that_is_truncated(tmp_path: Path, field: str) -> None:
    from datasets import Dataset, Features, Image, List, Value

    text, image = Value("string"), Image()
    features = Features(question=text, answer=text, **{field: image if field == "image" else List(image)})
    rows = [{"bytes": data, "path": None} for data in (png(), png()[:-30])]
    columns = {"question": ["?"] * 2, "answer": ["x"] * 2, field: rows if field == "image" else [[row] for row in rows]}
    Dataset.from_dict(columns, features=features).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match=f"saved, row 2, field '{field}': the stored image is truncated or damaged"):
        load_dataset_folder(tmp_path / "saved")
