"""Which rollouts are shown, what is counted over all of them, and how they reach the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kepo.errors import DataError
from kepo.reports.browser import as_json, browser_data
from kepo.reports.images import Thumbnails
from kepo.reports.load import load_study
from kepo.reports.rollouts import CORRECT, INCORRECT, INJECTED, RolloutData, read_rollout_data
from kepo.reports.study import Study
from tests.rollout_runs import NAN, SCHEMA, rollout
from tests.unit.reports.study import HOSTILE, write_run, write_training_data


def study_with(folder: Path, rows: list[dict[str, Any]], **data: Any) -> Study:
    """One run with these rollouts in one step, trained on `data/train.jsonl`."""
    write_training_data(folder, count=4)
    run = write_run(folder / "runs" / "a", folder, "kepo", "s/1", 1)
    (run / "rollouts").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), run / "rollouts" / "step-000001.parquet")
    return load_study([folder])


def read(folder: Path, rows: list[dict[str, Any]], most: int = 400) -> tuple[Study, RolloutData]:
    study = study_with(folder, rows)
    return study, read_rollout_data(study, most)


def card_of(folder: Path, row: dict[str, Any]) -> dict[str, Any]:
    study, found = read(folder, [row])
    return browser_data(study, found.shown, Thumbnails())["cards"][0]


def test_truth_is_counted_apart_for_injected_right_and_wrong_rollouts(tmp_path: Path) -> None:
    true, half = "<think>size large; border ragged</think>", "<think>size small; border ragged</think>"
    facts = {"metadata": json.dumps({"facts": {"size": "large", "border": "ragged"}})}
    rows = [
        rollout(1, 0, "train-0", 1.0, completion=half, injected=True, attempt=1, **facts),
        rollout(1, 1, "train-0", 1.0, completion=true, **facts),
        rollout(1, 2, "train-1", 0.0, completion=half, **facts),
        rollout(1, 3, "train-1", 0.0, completion="<think>nothing</think>", **facts),
        rollout(1, 4, "without facts", 1.0, completion=true),
    ]
    truth = read(tmp_path, rows)[1].truth
    counted = {kind: (t.rollouts, t.stating, t.statements, t.true, t.all_true) for (_, kind), t in truth.items()}
    assert counted == {INJECTED: (1, 1, 2, 1, 0), CORRECT: (1, 1, 2, 2, 1), INCORRECT: (2, 1, 2, 1, 0)}


def test_rare_rollouts_are_among_the_few_that_are_shown(tmp_path: Path) -> None:
    rows = [rollout(1, row, "train-0", 0.0) for row in range(200)]
    rows[77] |= {"injected": True, "attempt": 1}
    rows[99] |= {"modality": "CT"}
    rows[150] |= {"gate": 0.5}
    _, found = read(tmp_path, rows, most=5)
    assert found.total == 200
    assert len(found.shown) == 5
    assert {77, 99, 150} <= {one.row["row"] for one in found.shown}


def test_the_choice_is_the_same_every_time(tmp_path: Path) -> None:
    study = study_with(tmp_path, [rollout(1, row, "train-0", row % 2) for row in range(100)])
    first, second = ([one.row["row"] for one in read_rollout_data(study, 10).shown] for _ in range(2))
    assert first == second


def test_a_damaged_log_is_named(tmp_path: Path) -> None:
    study = study_with(tmp_path, [rollout(1, 0, "train-0", 1.0)])
    (study.runs[0].run.folder / "rollouts" / "step-000002.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"step-000002\.parquet cannot be read"):
        read_rollout_data(study, 10)


def test_a_log_of_an_older_version_is_said_and_the_prompt_is_shown(tmp_path: Path) -> None:
    missing = dict.fromkeys(("question", "options", "images", "metadata"))
    study, found = read(tmp_path, [rollout(1, 0, "train-0", 1.0, **missing)])
    assert "1 of 1 rollout logs" in found.problems[0]
    card = browser_data(study, found.shown, Thumbnails())["cards"][0]
    assert "What does train-0 show?" in card["question"]
    assert card["images"] == [None]


def test_a_study_that_was_moved_finds_its_images(tmp_path: Path) -> None:
    image = str(tmp_path / "old" / "data" / "images" / "0.png")
    study_with(tmp_path / "old", [rollout(1, 0, "train-0", 1.0, images=[image])])
    (tmp_path / "old").rename(tmp_path / "new")
    study = load_study([tmp_path / "new"])
    assert browser_data(study, read_rollout_data(study, 10).shown, Thumbnails())["cards"][0]["images"] == [0]


def test_a_card_has_question_options_image_and_the_parts_of_the_completion(tmp_path: Path) -> None:
    completion, image = "well <think> round </think><answer>A</answer>", str(tmp_path / "data" / "images" / "0.png")
    card = card_of(tmp_path, rollout(1, 0, "train-0", 1.0, completion=completion, images=[image]))
    assert (card["question"], card["options"]) == ("What does train-0 show?", ["cyst", "tumour"])
    assert card["images"] == [0]
    assert (card["before"], card["reasoning"], card["after"]) == (
        "well <think>",
        " round ",
        "</think><answer>A</answer>",
    )
    assert card["rewards"] == [["choice_accuracy", 1.0], ["think_format", 0.5]]


def test_a_missing_image_is_no_error(tmp_path: Path) -> None:
    assert card_of(tmp_path, rollout(1, 0, "train-3", 1.0))["images"] == [None]


def test_a_reward_that_does_not_apply_is_null(tmp_path: Path) -> None:
    card = card_of(tmp_path, rollout(1, 0, "train-0", NAN))
    assert card["rewards"][0] == ["choice_accuracy", None]
    assert card["correct"] is None


def test_control_characters_become_visible_and_long_texts_are_cut(tmp_path: Path) -> None:
    card = card_of(tmp_path, rollout(1, 0, "train-0", 1.0, hint="a\x00b\x1b[31m\u202e", completion="x" * 9000))
    assert card["hint"] == "a\\x00b\\x1b[31m\\u202e"
    assert card["after"].endswith("… (5,000 more characters)")


def test_json_cannot_leave_its_script_element() -> None:
    text = as_json({"texts": list(HOSTILE)})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"texts": list(HOSTILE)}
