"""Rows in the layouts of published data sets and other trainers, for training and for `kepo prepare table --preset`."""

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

from kepo.data import DataArguments, load_questions
from kepo.data.readers.cells import value_at
from kepo.data.readers.presets import load_preset
from kepo.data.readers.questions import table_source
from kepo.data.readers.rows import TableFile
from kepo.data.readers.table import TableMap
from kepo.data.sources import Unusable
from kepo.errors import ConfigError, DataError
from kepo.types import Question
from tests.unit.data.test_published import RAD, SLAKE

IN_TAGS = "<think>It beats.</think> <answer> B </answer>"


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 5), (9, 90, 200)).save(buffer, format="PNG")
    return buffer.getvalue()


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


STORED = {"bytes": png(), "path": "a.png"}
PMC = {
    "Figure_path": "a.png",
    "Question": "Which organ?",
    "Answer": "Heart",
    "Choice A": " A: Liver ",
    "Choice B": "B:Heart",
    "Choice C": " C: Lung",
    "Choice D": "D:Kidney",
    "Answer_label": "B",
}
PMC_2 = {key: "B" if key == "Answer" else value for key, value in PMC.items() if key != "Answer_label"}
VERL = {
    "data_source": "atlas",
    "prompt": [turn("system", "Be brief."), turn("user", "Which organ? A)Liver, B)Heart")],
    "images": [STORED],
    "ability": "anatomy",
    "reward_model": {"style": "rule", "ground_truth": "B"},
    "extra_info": {"split": "train", "index": 0},
}
SWIFT = {"messages": [turn("user", "Which organ?"), turn("assistant", "Heart")], "images": ["a.png"]}
SWIFT_GRPO = {"messages": [turn("user", "Which organ? A)Liver, B)Heart")], "images": ["a.png"], "solution": IN_TAGS}

# name, file, row, (text, options, answer as text, modality, task)
ROWS: list[tuple[str, str, dict[str, Any], tuple[Any, ...]]] = [
    (
        "vqa-rad",
        "trainset.json",
        {**RAD, "image_name": "a.png"},
        ("Are regions of the brain infarcted?", ("Yes", "No"), "Yes", "CT or MRI", "Presence"),
    ),
    (
        "slake",
        "train.json",
        {**SLAKE, "img_name": "a.png"},
        ("Does the picture contain a liver?", ("Yes", "No"), "Yes", "MRI", "Organ"),
    ),
    (
        "pathvqa",
        "train-00000-of-00007.parquet",
        {"image": STORED, "question": "is it benign?", "answer": "no"},
        ("is it benign?", ("Yes", "No"), "No", "Microscopy", None),
    ),
    (
        "pathvqa",
        "train.parquet",
        {"image": STORED, "question": "what is it?", "answer": "a cyst"},
        ("what is it?", (), "a cyst", "Microscopy", None),
    ),
    ("pmc-vqa", "train.csv", PMC, ("Which organ?", ("Liver", "Heart", "Lung", "Kidney"), "Heart", "mixed", None)),
    ("pmc-vqa", "train_2.csv", PMC_2, ("Which organ?", ("Liver", "Heart", "Lung", "Kidney"), "Heart", "mixed", None)),
    (
        "r1-v",
        "rows.jsonl",
        {"image": "a.png", "problem": "Which organ? A)Liver, B)Heart", "solution": IN_TAGS},
        ("Which organ?", ("Liver", "Heart"), "Heart", None, None),
    ),
    (
        "r1-v",
        "rows.jsonl",
        {"image": "a.png", "problem": "How many?", "solution": "<answer> 3 </answer>"},
        ("How many?", (), "3", None, None),
    ),
    (
        "easyr1",
        "rows.parquet",
        {"images": [STORED], "problem": "Find x.", "answer": "7"},
        ("Find x.", (), "7", None, None),
    ),
    ("verl", "rows.parquet", VERL, ("Which organ?", ("Liver", "Heart"), "Heart", None, "anatomy")),
    ("ms-swift", "rows.jsonl", SWIFT, ("Which organ?", (), "Heart", None, None)),
    ("ms-swift", "rows.jsonl", SWIFT_GRPO, ("Which organ?", ("Liver", "Heart"), "Heart", None, None)),
]


def write(folder: Path, name: str, *rows: dict[str, Any]) -> Path:
    (folder / "a.png").write_bytes(png())
    file = folder / name
    if file.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(list(rows)), file)
    elif file.suffix == ".json":
        file.write_text(json.dumps(rows))
    elif file.suffix == ".jsonl":
        file.write_text("\n".join(map(json.dumps, rows)))
    else:
        with file.open("w", newline="") as out:
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return file


@pytest.mark.parametrize(("name", "file", "row", "expected"), ROWS)
def test_the_same_preset_reads_rows_in_training_and_in_prepare(
    name: str, file: str, row: dict[str, Any], expected: tuple[Any, ...], tmp_path: Path
) -> None:
    path = write(tmp_path, file, row)
    (trained,) = load_questions(DataArguments(data_path=str(path), data_preset=name))
    said = TableMap() if expected[3] else TableMap(constants={"modality": "CT"})
    layout = load_preset(name)
    source = table_source([TableFile(path)], said.over(layout.map), None, tmp_path / "kept", license=layout.license)
    (prepared,) = source.rows
    assert isinstance(prepared, Question)
    for question, modality in ((trained, expected[3]), (prepared, expected[3] or "CT")):
        shown = (question.text, question.options, question.answer_text, question.modality, question.task)
        assert shown == (*expected[:3], modality, expected[4])
        (image,) = question.images
        opened = Image.open(image) if isinstance(image, Path) else image
        assert opened.size == (6, 5)
    assert prepared.metadata["file"] == file
    assert source.split_given == ("train" in file)
    assert prepared.metadata.get("split") == ("train" if "train" in file else None)


def test_a_row_of_a_preset_that_cannot_be_used_is_named_by_its_column(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.parquet", VERL, {**VERL, "reward_model": {"style": "rule", "ground_truth": "C"}})
    where = r"rows\.parquet, row 2, field 'reward_model\.ground_truth': 'C' is not among the options"
    with pytest.raises(DataError, match=where):
        load_questions(DataArguments(data_path=str(path), data_preset="verl"))
    said = TableMap(constants={"modality": "CT"}).over(load_preset("verl").map)
    _, bad = table_source([TableFile(path)], said, None, tmp_path / "kept").rows
    assert isinstance(bad, Unusable)
    assert (bad.field, bad.value) == ("reward_model.ground_truth", "C")


def test_a_preset_that_does_not_fit_says_which_columns_there_are(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.jsonl", SWIFT)
    with pytest.raises(
        ConfigError, match=r"has no column 'problem' \(for question\); its columns are messages, images"
    ):
        load_questions(DataArguments(data_path=str(path), data_preset="r1-v"))
    with pytest.raises(ConfigError, match="not said where modality stands"):
        table_source([TableFile(path)], load_preset("ms-swift").map, None, tmp_path / "kept")


def test_what_is_said_beside_a_preset_goes_over_it(tmp_path: Path) -> None:
    path = write(tmp_path, "train.csv", {**PMC, "Frage": "Was?"})
    said = TableMap({"question": "Frage"}, {"modality": "ct scan", "dataset": "mine"}, "text", None)
    said = TableMap({**said.columns, "answer": "Answer"}, said.constants, said.answer)
    (question,) = table_source([TableFile(path)], said.over(load_preset("pmc-vqa").map), None, tmp_path / "kept").rows
    assert isinstance(question, Question)
    assert (question.text, question.modality, question.answer) == ("Was?", "CT", "B")
    assert question.metadata["dataset"] == "mine"


def test_several_tables_are_one_data_set_with_their_splits(tmp_path: Path) -> None:
    tables = [TableFile(write(tmp_path, name, PMC)) for name in ("train.csv", "test_2.csv")]
    source = table_source(tables, load_preset("pmc-vqa").map, None, tmp_path / "kept")
    rows = list(source.rows)
    assert [row.metadata["split"] for row in rows if isinstance(row, Question)] == ["train", "test"]
    assert source.split_given
    again = list(table_source([tables[0], tables[0]], load_preset("pmc-vqa").map, None, tmp_path / "kept").rows)
    assert [type(row) for row in again] == [Question, Unusable]


def test_paths_into_records_and_lists() -> None:
    record = {"a.b": 1, "a": {"b": 2, "c": [{"d": 3}, {"role": "user", "d": 4}, {"role": "user", "d": 5}]}}
    paths = ("a.b", "a.c.0.d", "a.c.-2.d", "a.c.user.d", "a.c.7.d", "a.c.tool.d", "a.x.y", "z")
    assert [value_at(record, path) for path in paths] == [1, 3, 4, 5, None, None, None, None]


def test_training_reads_a_saved_data_set_by_a_preset(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_list([VERL]).save_to_disk(str(tmp_path / "saved"))
    (question,) = load_questions(DataArguments(data_path=str(tmp_path / "saved"), data_preset="verl"))
    assert (question.answer_text, question.metadata) == ("Heart", {"dataset": "atlas"})


def test_training_reads_csv_in_the_columns_of_the_schema(tmp_path: Path) -> None:
    row = {"id": "007", "text": "What?", "options": '["one", "two"]', "answer": "two", "image": "a.png"}
    path = write(tmp_path, "set.tsv", row)
    path.write_text(path.read_text().replace(",", "\t").replace('\t ""two', ', ""two'))
    (question,) = load_questions(DataArguments(data_path=str(path)))
    assert (question.id, question.options, question.answer) == ("007", ("one", "two"), "B")
    assert question.images == (tmp_path / "a.png",)
