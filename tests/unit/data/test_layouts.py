"""Five rows of every layout that people have: question, options, answer and image, by preset and told by columns."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from kepo.data import DataArguments, load_questions
from kepo.data.readers.layouts import fitting_presets, preset_entries
from kepo.data.readers.presets import load_preset
from kepo.data.readers.questions import table_source
from kepo.data.readers.rows import TableFile
from kepo.data.readers.table import TableMap
from kepo.errors import ConfigError, DataError
from kepo.types import Question

LETTERS = "ABCD"
ORGANS = ("Liver", "Heart", "Lung", "Kidney")
Row = dict[str, Any]


def png(number: int = 0, side: int = 40) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side + number, side), (9, 90, 200)).save(buffer, format="PNG")
    return buffer.getvalue()


def stored(number: int) -> dict[str, Any]:
    return {"bytes": png(number), "path": f"{number}.png"}


def turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def inline(number: int) -> str:
    return f"Which organ, {number}? A)Liver, B)Heart, C)Lung, D)Kidney"


def conversation(number: int) -> list[dict[str, str]]:
    lines = "\n".join(f"{letter}. {organ}" for letter, organ in zip(LETTERS, ORGANS, strict=True))
    asks = "Answer with the option's letter from the given choices directly."
    asked = f"<image>\nWhich organ, {number}?\n{lines}\n{asks}"
    return [{"from": "human", "value": asked}, {"from": "gpt", "value": LETTERS[number % 4]}]


def letter(number: int) -> str:
    return LETTERS[number % 4]


def organ(number: int) -> str:
    return ORGANS[number % 4]


# preset -> (file, a row of it, its options; None: an open question with the number as its answer)
SAMPLES: dict[str, tuple[str, Callable[[int], Row], tuple[str, ...] | None]] = {
    "omnimedvqa": (
        "rows.json",
        lambda n: {
            "question_id": f"q{n}", "question": f"Which organ, {n}?", "gt_answer": organ(n), "image_path": f"{n}.png",
            "modality_type": "CT(Computed Tomography)", "question_type": "Anatomy", "dataset": "X",
            **{f"option_{one}": text for one, text in zip(LETTERS, ORGANS, strict=True)},
        },
        ORGANS,
    ),
    "vqa-rad": (
        "trainset.json",
        lambda n: {
            "qid": n, "question": f"Which organ, {n}?", "answer": ["Yes", "no"][n % 2], "answer_type": "CLOSED",
            "image_name": f"{n}.png", "image_organ": "CHEST", "question_type": "PRES", "phrase_type": "freeform",
        },
        ("Yes", "No"),
    ),
    "slake": (
        "train.json",
        lambda n: {
            "qid": n, "question": f"Which organ, {n}?", "answer": str(n), "answer_type": "OPEN", "img_name": f"{n}.png",
            "modality": "CT", "content_type": "Organ", "q_lang": "zh",
        },
        None,
    ),
    "pathvqa": (
        "train.parquet",
        lambda n: {"image": stored(n), "question": f"Which organ, {n}?", "answer": ["yes", "no"][n % 2]},
        ("Yes", "No"),
    ),
    "pmc-vqa": (
        "train.csv",
        lambda n: {
            "Figure_path": f"{n}.png", "Question": f"Which organ, {n}?", "Answer": organ(n), "Answer_label": letter(n),
            **{f"Choice {one}": f" {one}:{text} " for one, text in zip(LETTERS, ORGANS, strict=True)},
        },
        ORGANS,
    ),
    "mmmu": (
        "validation.parquet",
        lambda n: {
            "id": f"validation_Art_{n}", "question": f"<image 1> Which organ, {n}?", "options": str(list(ORGANS)),
            "answer": letter(n), "image_1": stored(n), "image_2": None, "question_type": "multiple-choice",
            "subfield": "Anatomy", "img_type": "['Photo']", "topic_difficulty": "Easy", "explanation": "",
        },
        ORGANS,
    ),
    "scienceqa": (
        "train.parquet",
        lambda n: {
            "image": stored(n), "question": f"Which organ, {n}?", "choices": list(ORGANS), "answer": n % 4, "hint": "",
            "task": "closed choice", "grade": "grade2", "subject": "s", "topic": "biology", "category": "c",
            "skill": "k", "lecture": "", "solution": "",
        },
        ORGANS,
    ),
    "medmcqa": (
        "train.jsonl",
        lambda n: {
            "id": f"q{n}", "question": f"Which organ, {n}?", "opa": "Liver", "opb": "Heart", "opc": "Lung",
            "opd": "Kidney", "cop": n % 4, "choice_type": "single", "exp": "", "subject_name": "Anatomy",
            "topic_name": None,
        },
        ORGANS,
    ),
    "gsm8k": ("train.jsonl", lambda n: {"question": f"Which organ, {n}?", "answer": f"2+2=<<2+2=4>>4\n#### {n}"}, None),
    "math": (
        "train.jsonl",
        lambda n: {
            "problem": f"Which organ, {n}?", "level": "Level 1", "type": "Algebra",
            "solution": rf"Not $\boxed{{9}}$, but $\boxed{{{n}}}$.",
        },
        None,
    ),
    "math-500": (
        "test.jsonl",
        lambda n: {
            "problem": f"Which organ, {n}?", "solution": rf"So $\boxed{{{n}}}$.", "answer": str(n),
            "subject": "Algebra", "level": 1, "unique_id": f"test/algebra/{n}.json",
        },
        None,
    ),
    "vlmevalkit": (
        "rows.tsv",
        lambda n: {
            "index": n, "question": f"Which organ, {n}?", "hint": "nan", **dict(zip(LETTERS, ORGANS, strict=True)),
            "answer": letter(n), "category": "Anatomy", "image": base64.b64encode(png(n)).decode(), "split": "dev",
        },
        ORGANS,
    ),
    "r1-v": (
        "rows.jsonl",
        lambda n: {"image": f"{n}.png", "problem": inline(n), "solution": f"<answer> {letter(n)} </answer>"},
        ORGANS,
    ),
    "med-r1": (
        "rows.json",
        lambda n: {"image": f"{n}.png", "problem": inline(n), "solution": f"<answer> {letter(n)} </answer>"},
        ORGANS,
    ),
    "easyr1": (
        "rows.parquet",
        lambda n: {"images": [stored(n)], "problem": f"<image>Which organ, {n}?", "answer": str(n)},
        None,
    ),
    "verl": (
        "rows.parquet",
        lambda n: {
            "data_source": "atlas", "prompt": [turn("user", f"<image>{inline(n)}")], "images": [stored(n)],
            "ability": "anatomy", "reward_model": {"style": "rule", "ground_truth": letter(n)},
        },
        ORGANS,
    ),
    "ms-swift": (
        "rows.jsonl",
        lambda n: {
            "messages": [turn("user", f"<image>Which organ, {n}?"), turn("assistant", str(n))], "images": [f"{n}.png"]
        },
        None,
    ),
    "llava": (
        "rows.json",
        lambda n: {"id": f"q{n}", "image": f"{n}.png", "conversations": conversation(n)},
        ORGANS,
    ),
    "trl": (
        "rows.jsonl",
        lambda n: {
            "prompt": [turn("user", f"Which organ, {n}?")], "images": [f"{n}.png"], "solution": str(n)
        },
        None,
    ),
}  # fmt: skip
WITHOUT_IMAGES = ("medmcqa", "gsm8k", "math", "math-500")
OWN_COLUMNS = ("pathvqa", "gsm8k")  # they read without a preset what they read with one, but for the answers


def write(folder: Path, name: str, rows: list[Row]) -> Path:
    for number in range(len(rows)):
        (folder / f"{number}.png").write_bytes(png(number))
    file = folder / name
    if file.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), file)
    elif file.suffix == ".json":
        file.write_text(json.dumps(rows), encoding="utf-8")
    elif file.suffix == ".jsonl":
        file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    else:
        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, list(rows[0]), delimiter="\t" if file.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return file


def test_there_is_a_sample_of_every_preset() -> None:
    assert set(SAMPLES) == set(preset_entries())


@pytest.mark.parametrize("name", SAMPLES)
def test_five_rows(name: str, tmp_path: Path) -> None:
    file, row, options = SAMPLES[name]
    path = write(tmp_path, file, [row(number) for number in range(5)])
    trained = load_questions(DataArguments(data_path=str(path), data_preset=name))
    said = TableMap()
    if trained[0].modality is None:
        said = TableMap(constants={"modality": "CT"})
    prepared = list(table_source([TableFile(path)], said.over(load_preset(name).map), None, tmp_path / "kept").rows)
    for questions in (trained, prepared):
        assert len(questions) == 5
        for number, question in enumerate(questions):
            assert isinstance(question, Question), question
            answer = str(number) if options is None else options[number % len(options)]
            assert (question.text, question.options) == (f"Which organ, {number}?", options or ())
            assert question.answer_text == answer
            if name in WITHOUT_IMAGES:
                assert question.images == ()
                continue
            (image,) = question.images
            opened = Image.open(image) if isinstance(image, Path) else image
            assert opened.size == (40 + number, 40)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_layout_is_told_by_its_columns(name: str, tmp_path: Path) -> None:
    file, row, _ = SAMPLES[name]
    path = write(tmp_path, file, [row(number) for number in range(4)])
    fits = fitting_presets(TableFile(path).columns())
    assert name in fits[:2] or name in OWN_COLUMNS
    if name in (*OWN_COLUMNS, "trl"):
        assert len(load_questions(DataArguments(data_path=str(path)))) == 4
        return
    with pytest.raises(ConfigError, match=r"data_preset: ") as caught:
        load_questions(DataArguments(data_path=str(path)))
    assert fits[0] in str(caught.value)
    assert "column" in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "first"),
    [
        (["id", "question", "choices", "answer", "image"], "scienceqa"),
        (["problem", "solution", "image"], "r1-v"),
        (["prompt", "reward_model", "data_source", "images"], "verl"),
        (["Frage", "Antwort"], None),
        ([], None),
    ],
)
def test_fitting_presets(columns: list[str], first: str | None) -> None:
    fits = fitting_presets(columns)
    assert fits[:1] == ([] if first is None else [first])


def test_a_preset_of_another_name_is_guessed() -> None:
    with pytest.raises(ConfigError, match=r"there is no preset 'scienceQA'; .*did you mean scienceqa\?"):
        DataArguments(data_preset="scienceQA")


def of(folder: Path, *rows: Row, name: str = "rows.jsonl", **settings: Any) -> list[Question]:
    return load_questions(DataArguments(data_path=str(write(folder, name, list(rows))), **settings))


MCQA = SAMPLES["medmcqa"][1]


@pytest.mark.parametrize(
    ("cops", "settings", "answers"),
    [
        ((0, 2), {}, "AC"),
        ((4, 2), {}, "DB"),
        ((1, 2), {"data_answer": "index"}, "BC"),
        ((1, 2), {"data_answer": "index_from_1"}, "AB"),
    ],
)
def test_an_index_from_0_or_from_1(cops: tuple[int, ...], settings: Row, answers: str, tmp_path: Path) -> None:
    rows = [{**MCQA(number), "cop": cop} for number, cop in enumerate(cops)]
    read = of(tmp_path, *rows, data_preset="medmcqa", **settings)
    assert "".join(question.answer for question in read) == answers


def test_an_index_that_could_be_either_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"column 'cop': holds neither a 0 nor .* \(answer: index, or index_from_1\)"):
        of(tmp_path, {**MCQA(0), "cop": 1}, {**MCQA(1), "cop": 2}, data_preset="medmcqa")


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("gsm8k", {"answer": "It is 7."}, "field 'answer': has no ####"),
        ("math", {"solution": "It is 7."}, r"field 'solution': has no \\boxed"),
        ("math", {"solution": r"It is \boxed{7."}, "never closed"),
        ("mmmu", {"options": "__import__('os').system('true')"}, "field 'options': one text that is no JSON list"),
        ("mmmu", {"answer": "?"}, "field 'answer': '\\?' is not among the options"),
        ("llava", {"conversations": conversation(0) * 2}, "2 questions in one conversation"),
        ("ms-swift", {"images": []}, "'images': is missing, but the question has a place for it"),
        ("vlmevalkit", {"image": "9"}, "9 is the index of another row, which does not come before it"),
        ("vlmevalkit", {"image": "no image, but a text " * 9}, "is no base64 text of an image"),
        ("r1-v", {"solution": "<answer> E </answer>"}, "'E' is not among the options"),
    ],
)
def test_rows_of_a_preset_that_cannot_be_used(name: str, changes: Row, says: str, tmp_path: Path) -> None:
    file, row, _ = SAMPLES[name]
    with pytest.raises(DataError, match=says):
        of(tmp_path, {**row(0), **changes}, name=file, data_preset=name)


def test_what_stands_beside_the_question(tmp_path: Path) -> None:
    hinted = {**SAMPLES["scienceqa"][1](1), "hint": "A text to refer to."}
    (question,) = of(tmp_path, hinted, name="rows.parquet", data_preset="scienceqa")
    assert question.text == "A text to refer to.\nWhich organ, 1?"
    tsv = SAMPLES["vlmevalkit"][1]
    first, second = of(tmp_path, tsv(0), {**tsv(1), "image": "0"}, name="rows.tsv", data_preset="vlmevalkit")
    assert first.images == second.images
    mmmu = SAMPLES["mmmu"][1]
    several = {**mmmu(0), "image_2": stored(1), "question": "Which of <image 1> and <image 2>?", "options": "[]"}
    (question,) = of(
        tmp_path, {**several, "answer": "['24/7', '3.43']"}, name="rows.parquet", data_preset="mmmu"
    )  # several accepted answers
    assert (question.text, question.options, question.answer) == ("Which of image 1 and image 2?", (), "24/7")
    assert len(question.images) == 2
    boxed = {"problem": "?", "solution": r"\boxed{1}, then \boxed{\frac{1}{\sqrt{2}}}", "type": "x"}
    assert of(tmp_path, boxed, data_preset="math")[0].answer == r"\frac{1}{\sqrt{2}}"
    assert of(tmp_path, {"question": "?", "answer": "#### 1,234"}, data_preset="gsm8k")[0].answer == "1234"


def test_rows_of_trl_are_taken_as_they_are(tmp_path: Path) -> None:
    parts = [{"type": "image"}, {"type": "text", "text": "Which organ?"}]
    rows = [
        {"prompt": "Which organ?", "answer": "Heart", "image": "0.png"},
        {"prompt": [turn("system", "Be brief."), turn("user", "Which organ?")], "answer": "Heart", "image": "1.png"},
        {"prompt": [turn("user", parts)], "answer": "Heart", "image": "2.png"},
    ]
    read = of(tmp_path, *rows)
    assert [question.text for question in read] == ["Which organ?", "Be brief.\nWhich organ?", "Which organ?"]
    assert {(question.answer, len(question.images)) for question in read} == {("Heart", 1)}


def test_columns_and_answers_said_in_a_recipe(tmp_path: Path) -> None:
    row = {"Frage": "Wie viele?", "Wahl": ["1", "2", "3"], "Antwort": 1}
    columns = {"question": "Frage", "options": "Wahl", "answer": "Antwort"}
    for answer, text in (("index", "2"), ("index_from_1", "1"), ("text", "1")):
        (question,) = of(tmp_path, row, data_columns=columns, data_answer=answer)
        assert (question.text, question.answer_text) == ("Wie viele?", text)
    with pytest.raises(DataError, match="may be the index of another"):
        of(tmp_path, row, data_columns=json.dumps(columns))
    with pytest.raises(ConfigError, match=r"no column 'Fragen' \(for question\); its columns are Frage, Wahl"):
        of(tmp_path, row, data_columns={**columns, "question": "Fragen"})
    with pytest.raises(ConfigError, match="answer 'number' is unknown"):
        DataArguments(data_answer="number")
    with pytest.raises(ConfigError, match="no field 'frage'"):
        DataArguments(data_columns={"frage": "Frage"})
