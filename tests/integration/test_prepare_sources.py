"""`kepo prepare` for MedMNIST, VQA-RAD, SLAKE and tables: from files in their layouts to folders that load."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from kepo.cli.main import app
from kepo.data import DataArguments, check_images, load_questions
from kepo.data.readers.medmnist import medmnist_sets
from kepo.errors import ConfigError, DataError
from kepo.types import Question
from tests.medmnist_files import COUNTS, archive, arrays


def prepare(*arguments: Any) -> str:
    """Runs the command and returns what it printed; errors come through as they are."""
    result = CliRunner().invoke(app, ["prepare", *map(str, arguments), "--workers", "1"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def loaded(folder: Path, split: str) -> list[Question]:
    """The questions of a split as a training run reads them, their images checked."""
    questions = load_questions(DataArguments(data_path=str(folder), data_split=split))
    check_images(questions)
    return questions


def card(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "card.json").read_text(encoding="utf-8"))


def pixels(image: Any) -> Any:
    return np.array((Image.open(image) if isinstance(image, str | Path) else image).convert("RGB"))


def test_medmnist(tmp_path: Path) -> None:
    files = [archive(tmp_path, "bloodmnist"), archive(tmp_path, "retinamnist", "retinamnist_64.npz")]
    arguments = ["medmnist", "--npz", files[0], "--npz", files[1], "--out", tmp_path / "out", "--longest-side", 28]
    prepare(*arguments)
    counts = card(tmp_path / "out")
    assert counts["rows"] == {"total": 44, "usable": 44, "unusable": 0, "left_out": 0}
    assert counts["licenses"] == {"BloodMNIST": "CC BY 4.0", "RetinaMNIST": "CC BY 4.0"}
    for split, stem in (("train", "train"), ("validation", "val"), ("test", "test")):
        questions = loaded(tmp_path / "out", split)
        assert len(questions) == 2 * COUNTS[stem] == counts["splits"][split]["questions"]
        assert {q.modality for q in questions} == {"Microscopy", "Fundus"}
        blood = [q for q in questions if q.id.startswith("bloodmnist")]
        held = arrays("bloodmnist")
        # Nothing was resized, so every picture is still the one of its label.
        for question, image, label in zip(blood, held[f"{stem}_images"], held[f"{stem}_labels"], strict=True):
            np.testing.assert_array_equal(pixels(question.images[0]), image)
            assert question.answer_text == medmnist_sets()["bloodmnist"]["labels"][label[0]]
    assert "Nothing to do" in prepare(*arguments)
    with pytest.raises(ConfigError, match="max_options was 4, is now 3"):
        prepare(*arguments, "--options", 3)
    assert not list(tmp_path.glob("*.unpacked")) + list(tmp_path.glob(".*.unpacked"))


def test_a_damaged_archive_costs_no_work_done_on_the_others(tmp_path: Path) -> None:
    files = [archive(tmp_path, "bloodmnist"), archive(tmp_path, "breastmnist")]
    whole = files[1].read_bytes()
    files[1].write_bytes(whole[: len(whole) // 2])
    arguments = ["medmnist", "--npz", files[0], "--npz", files[1], "--out", tmp_path / "out", "--longest-side", 28]
    with pytest.raises(DataError, match=r"breastmnist\.npz: not a whole \.npz archive"):
        prepare(*arguments)
    assert not (tmp_path / "out").exists()
    unpacked = tmp_path / ".out.unpacked"
    first = {file: file.stat().st_mtime_ns for file in unpacked.iterdir()}
    assert len(first) == 6
    files[1].write_bytes(whole)
    prepare(*arguments, "--unpack-to", unpacked)
    assert {file: file.stat().st_mtime_ns for file in first} == first
    assert card(tmp_path / "out")["rows"]["usable"] == 44


def rad_folder(folder: Path) -> Path:
    """8 images with 3 questions each; one question of every second image is for the test, and one row is broken."""
    (folder / "VQA_RAD Image Folder").mkdir(parents=True)
    rows = []
    for image in range(8):
        Image.new("RGB", (40, 30), (image * 30, 9, 90)).save(folder / "VQA_RAD Image Folder" / f"synpic{image}.jpg")
        for number in range(3):
            closed = number < 2
            rows.append(
                {
                    "qid": str(3 * image + number),
                    "phrase_type": "test_freeform" if number == 0 and image % 2 else "freeform",
                    "image_name": f"synpic{image}.jpg",
                    "image_organ": ("HEAD", "CHEST", "ABD")[image % 3],
                    "question": f"Is there something ({number})?" if closed else "What is there?",
                    "question_type": "PRES",
                    "answer": ("Yes", "no", "a mass")[number],
                    "answer_type": "CLOSED" if closed else "OPEN",
                }
            )
    rows.append({**rows[0], "qid": "99", "image_name": "missing.jpg"})
    rows.append({**rows[0], "qid": "98", "image_name": "../../../etc/passwd"})
    (folder / "VQA_RAD Dataset Public.json").write_text(json.dumps(rows))
    return folder


def test_vqa_rad(tmp_path: Path) -> None:
    root, out = rad_folder(tmp_path / "rad"), tmp_path / "out"
    prepare("vqa-rad", "--root", root, "--out", out, "--size", 32, "--validation", 0, "--no-image-disjoint")
    assert card(out)["rows"] == {"total": 26, "usable": 24, "unusable": 2, "left_out": 0}
    train, test = loaded(out, "train"), loaded(out, "test")
    assert (len(train), len(test)) == (20, 4)
    assert Counter(q.options for q in train) == {("Yes", "No"): 12, (): 8}
    assert {pixels(q.images[0]).shape for q in train} == {(32, 32, 3)}
    reasons = [json.loads(line)["reason"] for line in (out / "unusable.jsonl").read_text().splitlines()]
    assert sorted(reasons) == ["does not exist", "lies outside the image root"]
    # By default no image is in two splits: the training questions about test images are left out, and listed.
    prepare("vqa-rad", "--root", root, "--out", tmp_path / "disjoint", "--validation", 0, "--closed-only")
    rows = card(tmp_path / "disjoint")["rows"]
    assert rows == {"total": 26, "usable": 16, "unusable": 10, "left_out": 4}
    assert {q.options for q in loaded(tmp_path / "disjoint", "train")} == {("Yes", "No")}


def test_slake(tmp_path: Path) -> None:
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "validate": [], "test": []}
    for image in range(6):
        folder = tmp_path / "slake" / "imgs" / f"xmlab{image}"
        folder.mkdir(parents=True)
        Image.new("L", (20, 20), 20 + image * 40).save(folder / "source.jpg")
        for language in ("en", "zh"):
            rows[("train", "train", "train", "train", "validate", "test")[image]].append(
                {
                    "img_id": image,
                    "img_name": f"xmlab{image}/source.jpg",
                    "question": "Is this a liver?" if language == "en" else "这是肝脏吗？",
                    "answer": "Yes" if image % 2 else "No",
                    "q_lang": language,
                    "location": "Abdomen",
                    "modality": ("MRI", "CT", "X-Ray")[image % 3],
                    "answer_type": "CLOSED",
                    "base_type": "vqa",
                    "content_type": "Organ",
                    "triple": ["vhead", "_", "_"],
                    "qid": 2 * image + (language == "zh"),
                }
            )
    for name, part in rows.items():
        (tmp_path / "slake" / f"{name}.json").write_text(json.dumps(part))
    out = tmp_path / "out"
    prepare("slake", "--root", tmp_path / "slake", "--out", out, "--language", "en", "--size", 16)
    assert card(out)["rows"] == {"total": 12, "usable": 6, "unusable": 6, "left_out": 0}
    assert [len(loaded(out, split)) for split in ("train", "validation", "test")] == [4, 1, 1]
    assert card(out)["licenses"] == {"SLAKE": "CC BY 4.0"}


def test_a_table_with_foreign_column_names(tmp_path: Path) -> None:
    lines = ["Frage;Bild;A;B;Antwort;Fach"]
    for number in range(10):
        Image.new("RGB", (30, 20), (number * 25, 40, 9)).save(tmp_path / f"{number}.png")
        lines.append(f"Was zeigt Bild {number}?;{number}.png;Niere;Müll;{number % 2};Sono")
    lines += ["Und das?;fehlt.png;Niere;Müll;0;Sono", "Und das?;1.png;Niere;Müll;7;Sono", "zu kurz;1.png"]
    (tmp_path / "fragen.csv").write_text("\n".join(lines), encoding="cp1252")
    columns = {
        "question": "Frage",
        "image": "Bild",
        "option_A": "A",
        "option_B": "B",
        "answer": "Antwort",
        "task": "Fach",
    }
    mapped = [part for field, column in columns.items() for part in ("--column", f"{field}={column}")]
    table = ["table", tmp_path / "fragen.csv", *mapped, "--set", "modality=ultrasound", "--answer", "index"]
    out = tmp_path / "out"
    prepare(*table, "--delimiter", ";", "--encoding", "cp1252", "--licence", "CC0 1.0", "--out", out, "--validation", 2)
    assert card(out)["rows"] == {"total": 13, "usable": 10, "unusable": 3, "left_out": 0}
    assert card(out)["licenses"] == {"fragen": "CC0 1.0"}
    questions = [q for split in ("train", "validation", "test") for q in loaded(out, split)]
    assert all(q.answer_text == ("Müll" if int(q.text[-2]) % 2 else "Niere") for q in questions)
    assert {(q.modality, q.task) for q in questions} == {("Ultrasound", "Sono")}
    assert len(questions) == 8 + 2
    with pytest.raises(ConfigError, match=r"'Bilder' .*its columns are Frage, Bild, A, B, Antwort, Fach"):
        prepare(*table, "--column", "id=Bilder", "--delimiter", ";", "--encoding", "cp1252", "--out", out)
    with pytest.raises(ConfigError, match="--column 'question' is not of the form"):
        prepare("table", tmp_path / "fragen.csv", "--column", "question", "--out", out)


def test_rows_of_another_trainer_by_a_preset(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    def row(number: int) -> dict[str, Any]:
        buffer = io.BytesIO()
        Image.new("RGB", (30, 20), (number * 20, 40, 9)).save(buffer, format="PNG")
        return {
            "data_source": "atlas",
            "prompt": [{"role": "user", "content": f"Which organ is in image {number}? A)Liver, B)Heart"}],
            "images": [{"bytes": buffer.getvalue(), "path": None}],
            "reward_model": {"style": "rule", "ground_truth": "AB"[number % 2]},
        }

    files = [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    pyarrow.parquet.write_table(pa.Table.from_pylist([row(number) for number in range(6)]), files[0])
    broken = {**row(0), "reward_model": {"style": "rule", "ground_truth": "C"}}
    pyarrow.parquet.write_table(pa.Table.from_pylist([*(row(number) for number in range(6, 12)), broken]), files[1])
    out = tmp_path / "out"
    prepare("table", *files, "--preset", "verl", "--set", "modality=CT", "--out", out, "--size", 16)
    assert card(out)["rows"] == {"total": 13, "usable": 12, "unusable": 1, "left_out": 0}
    (bad,) = [json.loads(line) for line in (out / "unusable.jsonl").read_text().splitlines()]
    assert (bad["source"], bad["row"], bad["field"]) == ("two.parquet", 7, "reward_model.ground_truth")
    questions = [q for split in ("train", "validation", "test") for q in loaded(out, split)]
    assert len(questions) == 12
    assert {q.options for q in questions} == {("Liver", "Heart")}
    assert all(q.answer == "AB"[int(q.text.rstrip("?").split()[-1]) % 2] for q in questions)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.parquet", "out", "two.parquet"]
    # The same rows straight in training.
    direct = load_questions(DataArguments(data_path=str(files[0]), data_preset="verl"))
    assert {q.id: q.answer for q in direct} == {q.id: q.answer for q in questions if q.id.startswith("one")}


def test_a_table_of_real_images(mini_omnimedvqa: Path, tmp_path: Path) -> None:
    file = mini_omnimedvqa / "QA_information" / "Open-access" / "Chest CT Scan.json"
    columns = {"id": "question_id", "answer": "gt_answer", "image": "image_path", "modality": "modality_type"}
    mapped = [part for field, column in columns.items() for part in ("--column", f"{field}={column}")]
    out = tmp_path / "out"
    prepare("table", file, *mapped, "--answer", "text", "--image-root", mini_omnimedvqa, "--out", out, "--size", 32)
    rows = json.loads(file.read_text())
    assert card(out)["rows"]["usable"] == len(rows)
    given = {row["question_id"]: row["gt_answer"].strip().rstrip(".").lower() for row in rows}
    questions = [q for split in ("train", "validation", "test") for q in loaded(out, split)]
    assert {q.id: q.answer_text.rstrip(".").lower() for q in questions} == given
    assert {q.modality for q in questions} == {"CT"}
    assert {q.metadata["dataset"] for q in questions} == {"Chest CT Scan"}
