"""The paper's table and figure, from runs whose numbers a hand can compute."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from kepo.errors import DataError
from kepo.reports.load import load_study
from kepo.reports.markup import escape_latex
from kepo.reports.paper import MEAN, MEAN_OUT, paper_tables, write_paper
from kepo.runs.evaluations import to_table
from tests.unit.reports.study import answer_record, write_run

ORDER = ("MRI", "CT", "X-Ray", "Ultrasound", "Dermoscopy", "Fundus", "OCT", "Microscopy")
FOUR = dict.fromkeys(ORDER, 4)


def _evaluation(
    folder: Path, name: str, right: Mapping[str, int], of: Mapping[str, int], source: str = "MRI", **more: object
) -> None:
    """An evaluation with the first `right[m]` of `of[m]` questions of each modality right."""
    records = [
        answer_record(f"{modality}-{place}", place < right.get(modality, 0), modality)
        for modality, count in of.items()
        for place in range(count)
    ]
    (folder / "evaluation").mkdir(parents=True, exist_ok=True)
    pq.write_table(to_table(records), folder / "evaluation" / f"{name}.parquet")
    described = {"name": name, "in_domain": [source], "generation": {"temperature": 0.0}, **more}
    (folder / "evaluation" / f"{name}.json").write_text(json.dumps(described))


def _run(
    root: Path,
    arm: str,
    replicate: str,
    right: Mapping[str, int],
    of: Mapping[str, int] = FOUR,
    source: str = "MRI",
    *,
    trained: bool = True,
) -> Path:
    name = f"{source}-{arm}-{replicate.replace('/', '-')}"
    run = write_run(root / "runs" / name, root, arm, replicate, 1, trained=trained)
    chosen = {"chosen": {"step": 20, "chosen_by": "validation", "accuracy": 0.5}} if trained else {}
    _evaluation(run, "test", right, of, source, **chosen)
    return run


def _checkpoints(run: Path, inside: list[int], outside: list[int], of: Mapping[str, int] = FOUR) -> None:
    for place, (ours, theirs) in enumerate(zip(inside, outside, strict=True), start=1):
        folder = run / f"checkpoint-{10 * place}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text("{}")
        _evaluation(folder, "validation", {"MRI": ours, "CT": theirs}, {"MRI": of["MRI"], "CT": 4})


def test_means_weigh_every_modality_alike(tmp_path: Path) -> None:
    of = {**FOUR, "CT": 8}
    _run(tmp_path, "kepo", "m/seed-1", {"MRI": 4, "CT": 4}, of)  # MRI 1, CT 1/2, six others 0
    _run(tmp_path, "kepo", "m/seed-2", {"MRI": 2, "CT": 2}, of)  # MRI 1/2, CT 1/4
    [table] = paper_tables(load_study([tmp_path]), per_modality=4)
    assert table.modalities == ORDER
    [row] = table.rows
    assert row.cells["MRI"].estimate == pytest.approx(0.75)
    assert row.cells["CT"].estimate == pytest.approx(0.375)
    assert row.cells[MEAN].estimate == pytest.approx((0.75 + 0.375) / 8)
    assert row.cells[MEAN_OUT].estimate == pytest.approx(0.375 / 7)
    assert row.cells["MRI"].low <= 0.75 <= row.cells["MRI"].high <= 1
    assert row.cells["MRI"].low < row.cells["MRI"].high
    assert "The protocol has 4 questions of each modality; here there are: CT 8." in table.notes


def test_a_modality_that_is_missing_is_said(tmp_path: Path) -> None:
    _run(tmp_path, "kepo", "m/seed-1", {"MRI": 3}, {"MRI": 4, "CT": 4})
    [table] = paper_tables(load_study([tmp_path]))
    assert table.modalities == ("MRI", "CT")
    assert any("protocol has 300" in note and "MRI 4, CT 4, X-Ray 0" in note for note in table.notes)
    assert any(note.startswith("One seed, so its interval covers questions only") for note in table.notes)


def test_every_training_modality_has_its_table_and_every_model_its_row(tmp_path: Path) -> None:
    for source in ("CT", "MRI"):
        for model in ("small", "large"):
            _run(tmp_path, "kepo", f"{model}/seed-1", {source: 4}, source=source)
    _run(tmp_path, "zero-shot", "small", {"MRI": 1}, trained=False)
    tables = paper_tables(load_study([tmp_path]))
    assert [table.source for table in tables] == ["MRI", "CT"]
    assert [(row.arm.name, row.model) for row in tables[0].rows] == [
        ("kepo", "large"),
        ("kepo", "small"),
        ("zero-shot", "small"),
    ]
    assert tables[1].rows[0].cells[MEAN_OUT].estimate == 0  # CT is in domain there
    assert tables[1].out_of_domain == tuple(name for name in ORDER if name != "CT")


def test_what_was_not_chosen_on_validation_is_said(tmp_path: Path) -> None:
    run = _run(tmp_path, "kepo", "m/seed-1", {})
    _evaluation(run, "test", {}, FOUR)
    [table] = paper_tables(load_study([tmp_path]), per_modality=4)
    assert any("without a choice of checkpoint" in note for note in table.notes)


def test_the_files_hold_the_same_numbers(tmp_path: Path) -> None:
    for seed, right in ((1, 4), (2, 2)):
        run = _run(tmp_path, "kepo", f"m/seed-{seed}", {"MRI": right, "CT": 1})
        _checkpoints(run, [1, right], [1, 2])
    _run(tmp_path, "zero-shot", "m", {"MRI": 1}, trained=False)
    (tmp_path / "study.json").write_text(
        json.dumps({"title": "50 % & more", "arms": {"kepo": {"label": "KEPO, τ_1 = 1"}, "zero-shot": {"order": -1}}})
    )
    out = tmp_path / "paper"
    output = write_paper([tmp_path], out, per_modality=4)
    assert {file.name for file in output.files} == {
        *("table.md", "table.tex", "table.csv", "runs.csv", "checkpoints-MRI.png", "checkpoints-MRI.svg")
    }
    markdown = (out / "table.md").read_text()
    assert (
        "| arm | runs | step | MRI | CT | X-Ray | US | Derm | Fundus | OCT | Micro | mean 8 | mean OOD 7 |" in markdown
    )
    assert "| KEPO, τ\\_1 = 1 | 2 | 20 (the end) | 75.0" in markdown
    [kepo] = [row for row in csv.DictReader((out / "table.csv").read_text().splitlines()) if row["arm"] == "kepo"]
    assert (kepo["trained on"], kepo["MRI"], kepo["CT"], kepo["runs"]) == ("MRI", "0.750000", "0.250000", "2")
    assert float(kepo["mean"]) == pytest.approx(1 / 8, abs=1e-6)
    runs = list(csv.DictReader((out / "runs.csv").read_text().splitlines()))
    assert [(row["arm"], row["step"], row["MRI"]) for row in runs] == [
        ("zero-shot", "", "0.250000"),
        ("kepo", "20", "1.000000"),
        ("kepo", "20", "0.500000"),
    ]
    tex = (out / "table.tex").read_text()
    assert r"KEPO, $\tau$\_1 = 1 & 20 (the end) & 75.0 {\scriptsize [" in tex
    assert r"50 \% \& more" in tex
    assert tex.count(r"\\") == 3  # heading and two rows
    assert Image.open(out / "checkpoints-MRI.png").size[0] > 1000
    assert output.notes == tuple(dict.fromkeys(output.notes))


def test_without_checkpoints_there_is_a_table_and_a_sentence_for_the_figure(tmp_path: Path) -> None:
    _run(tmp_path, "kepo", "m/seed-1", {"MRI": 1})
    output = write_paper([tmp_path], tmp_path / "paper")
    assert len(output.files) == 4
    assert "No checkpoint of MRI has an evaluation 'validation': no figure." in output.notes
    with pytest.raises(DataError, match="No run has an evaluation named 'other'"):
        write_paper([tmp_path], tmp_path / "paper", evaluation="other")


def test_latex_prints_a_text_as_it_is() -> None:
    assert escape_latex("a_b & 5% of {x} \\ ~^") == (
        r"a\_b \& 5\% of \{x\} \textbackslash{} \textasciitilde{}\textasciicircum{}"
    )
