"""Data sets of the hub, files that are not what they are called, and prepared sets in a viewer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict, load_from_disk
from PIL import Image

from kepo.data import DataArguments, load_questions
from kepo.data.prepare import PrepareSettings, prepare
from kepo.data.readers.questions import table_source
from kepo.data.readers.rows import TableFile
from kepo.data.readers.table import TableMap
from kepo.errors import ConfigError, DataError

GSM = {"question": ["How many?", "Why?"], "answer": ["So\n#### 1,000", "So\n#### 2"]}


def test_a_data_set_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(name: str, config: str | None, split: str | None) -> Any:
        asked.append((name, config, split))
        parts = DatasetDict({one: Dataset.from_dict(GSM) for one in ("train", "test")})
        return parts if split is None else parts[split]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    settings = {"data_path": "openai/gsm8k", "data_config": "main", "data_preset": "gsm8k"}
    read = load_questions(DataArguments(**settings, data_split="test"))
    assert [(question.id, question.answer) for question in read] == [("gsm8k-1", "1000"), ("gsm8k-2", "2")]
    assert asked == [("openai/gsm8k", "main", "test")]
    with pytest.raises(DataError, match="'data_split': no split was chosen; there are train, test"):
        load_questions(DataArguments(**settings))


def test_a_data_set_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"nobody/nothing: there is no such file or folder, and no data set of that na"):
        load_questions(DataArguments(data_path="nobody/nothing"))
    # What is meant as a file is not looked for on the hub.
    for path in ("nobody/rows.jsonl", "rows.jsonl", "./nobody/nothing", "/nobody/nothing", "a/b/c"):
        with pytest.raises(DataError, match=r"there is no such file or folder; check data_path"):
            load_questions(DataArguments(data_path=path))
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=r"data/set: there is no such file or folder; check data_path"):
        load_questions(DataArguments(data_path="data/set"))
    (tmp_path / "t.jsonl").write_text('{"question": "a", "answer": "b"}')
    with pytest.raises(ConfigError, match="data_config 'main': data of the format 'jsonl' has no configurations"):
        load_questions(DataArguments(data_path="t.jsonl", data_config="main"))


CSV, ROW = "question,answer\na,b\n", '{"question": "a", "answer": "b"}'


@pytest.mark.parametrize(
    ("name", "content", "data_format", "looks_like"),
    [
        ("t.json", CSV, "auto", "csv"),
        ("t.jsonl", CSV, "auto", "csv"),
        ("t.csv", CSV, "json", "csv"),
        ("t.csv", CSV, "parquet", "csv"),
        ("t.csv", "one word", "parquet", None),
        ("t.json", CSV.replace(",", "\t"), "auto", "tsv"),
        ("t.json", f"{ROW}\n{ROW}\n", "auto", "jsonl"),
        ("t.jsonl", f"[{ROW},\n {ROW}]", "auto", "json"),
        ("t.csv", f"{ROW}\n{ROW}\n", "auto", "jsonl"),
        ("t.csv", f"[{ROW}]", "auto", "json"),
        ("t.csv", "PK\x03\x04...", "auto", "xlsx"),
        ("t.jsonl", "PAR1....", "auto", "parquet"),
    ],
)
def test_a_file_of_another_kind(
    name: str, content: str, data_format: Any, looks_like: str | None, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    says = "not a Parquet file" if looks_like is None else f"is to be read as .*, but looks like {looks_like}; "
    with pytest.raises(DataError, match=says):
        load_questions(DataArguments(data_path=str(tmp_path / name), data_format=data_format))


def test_json_lines_with_a_damaged_first_line_stay_json_lines(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(f"broken, here\n{ROW}\n{ROW}\n")
    with pytest.raises(DataError, match="row 1: the line is not JSON"):
        load_questions(DataArguments(data_path=str(tmp_path / "t.jsonl")))


def test_files_of_their_kind(tmp_path: Path) -> None:
    quoted = '\ufeff"question","answer"\na,b'
    for name, content in [("a.jsonl", ROW), ("b.json", f"\ufeff\n [{ROW}]"), ("c.json", f"[{ROW}]"), ("d.csv", quoted)]:
        (tmp_path / name).write_text(content)
        assert [question.answer for question in load_questions(DataArguments(data_path=str(tmp_path / name)))] == ["b"]
    (tmp_path / "e.json").write_text(f'{{"data": [{ROW}]}}')
    with pytest.raises(DataError, match="a list of rows was expected, not dict; save the list 'data' alone"):
        load_questions(DataArguments(data_path=str(tmp_path / "e.json")))


def test_a_prepared_set_shows_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["question,answer,modality,image"]
    for number in range(4):
        Image.new("RGB", (8 + number, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        lines.append(f"What {number}?,x,CT,{number}.png")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    source = table_source([TableFile(tmp_path / "t.csv")], TableMap(), None, tmp_path / "kept")
    prepare(source, PrepareSettings(size=None, longest_side=8, validation=0), tmp_path / "made", workers=1)
    (tmp_path / "made").rename(tmp_path / "out")
    monkeypatch.chdir(tmp_path / "kept" if (tmp_path / "kept").is_dir() else "/")
    for split in load_from_disk(str(tmp_path / "out")).values():
        for row in split:
            (image,) = row["images"]
            assert max(image.size) == 8
    # Training takes the files beside it, and the images themselves where these are gone.
    read = load_questions(DataArguments(data_path=str(tmp_path / "out"), data_split="train"))
    assert all(question.images[0].parent == tmp_path / "out" / "images" for question in read)
    assert not list((tmp_path / "out").rglob("cache-*"))
    (tmp_path / "out" / "images").rename(tmp_path / "elsewhere")
    read = load_questions(DataArguments(data_path=str(tmp_path / "out" / "train")))
    assert all(max(question.images[0].size) == 8 for question in read)


def test_numbers_that_pandas_wrote_beside_a_gap(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("question,answer,size\nWhat?,3.0,2.0\nWhy?,,2.5\nWho?,-12.0,nan\n")
    source = table_source(
        [TableFile(tmp_path / "t.csv")], TableMap({"task": "size"}, {"modality": "CT"}), None, tmp_path
    )
    rows = list(source.rows)
    assert [(row.answer, row.task) for row in rows if not hasattr(row, "reason")] == [("3", "2.0"), ("-12", None)]
    assert [(row.row, row.field, row.reason) for row in rows if hasattr(row, "reason")] == [
        (3, "answer", "is missing or empty")
    ]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ("question,A,B,answer", "A, B look like options, and would not be read"),
        ("question,option_a,option_b,answer", "option_a, option_b look like options"),
        ("question,choice1,choice2,answer", "choice1, choice2 look like options"),
        ("question,choices,answer", "choices holds options in the preset scienceqa"),
        ("question,img_path,answer", "img_path looks like images"),
        ("qid,question,img_name,answer,modality,content_type,answer_type", "img_name holds images in the preset slake"),
        ("Question,Answer", "there is no column question or text; its columns are Question, Answer"),
        ("question;answer", "another delimiter is between them"),
    ],
)
def test_columns_that_would_be_overlooked(columns: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"{columns}\n{columns}\n")
    with pytest.raises(ConfigError, match=says):
        load_questions(DataArguments(data_path=str(tmp_path / "t.csv")))


def test_columns_that_are_not_read_and_not_missed(tmp_path: Path) -> None:
    for columns in ("question,answer,A", "question,answer,split_name,notes", "question,answer,options,A,B"):
        (tmp_path / "t.csv").write_text(f"{columns}\n" + ",".join("" for _ in columns.split(",")) + "\n")
        with pytest.raises(DataError, match="there is not one question in it"):
            load_questions(DataArguments(data_path=str(tmp_path / "t.csv")))


def test_images_in_the_parts_of_a_message(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for part in ({"type": "image", "image": "a.png"}, {"type": "image_url", "image_url": {"url": "a.png"}}):
        parts = [part, {"type": "text", "text": "What?"}]
        row = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "a cat"}]}
        (tmp_path / "t.jsonl").write_text(json.dumps(row))
        (question,) = load_questions(DataArguments(data_path=str(tmp_path / "t.jsonl"), data_preset="ms-swift"))
        assert (question.text, question.answer, len(question.images)) == ("What?", "a cat", 1)
    row["messages"][0]["content"] = [{"type": "image"}, {"type": "text", "text": "What?"}]
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match="is missing, but the question has a place for it"):
        load_questions(DataArguments(data_path=str(tmp_path / "t.jsonl"), data_preset="ms-swift"))
