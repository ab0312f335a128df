"""`kepo hints` as a user meets it: writing, going on, showing, diffing, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from kepo.cli import hints_plan
from kepo.cli.hints import app
from kepo.errors import ConfigError, DataError
from kepo.exploration.bank import HintBank
from kepo.teachers.scripted import ScriptedTeacher
from tests.http_server import completion, serving
from tests.tiny_models import build_text_model

HINTS = ["<hint>Look at the rim.</hint>", "<hint>It is B.</hint>", "<hint>[red]Count[/red] the \x1b[31mlobes.</hint>"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with four questions of two modalities, whose answer is B."""
    rows = [
        {"id": f"q{i}", "question": f"What is {i}?", "options": ["x", "y", "z"], "answer": "B",
         "modality": ("MRI", "CT")[i % 2]}
        for i in range(4)
    ]  # fmt: skip
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> ScriptedTeacher:
    """A scripted teacher in place of the model that would be loaded; it has the name that is asked for."""
    scripted = ScriptedTeacher(HINTS)

    def load(settings: Any, *_: Any) -> ScriptedTeacher:
        scripted.name = settings.teacher_model_name_or_path
        return scripted

    monkeypatch.setattr(hints_plan, "_load_teacher", load)
    return scripted


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def _write(*arguments: str) -> Result:
    return _run("questions.jsonl", "--teacher", "big", *arguments)


def test_a_bank_is_written_audited_and_sorted(project: Path, teacher: ScriptedTeacher) -> None:
    result = _write("--per-question", "2", "--out", "bank.jsonl")
    assert result.exit_code == 0
    assert "4 questions: 24 hints to be written to bank.jsonl" in result.output
    lines = [json.loads(line) for line in (project / "bank.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["question"], line["level"], line["index"]) for line in lines] == [
        (f"q{i}", level, index) for i in range(4) for level in range(3) for index in range(2)
    ]
    assert {line["teacher"] for line in lines} == {"big"}
    # The three answers come in turn, so a third of the 24 hints leaks.
    assert sum(bool(line["leaks"]) for line in lines) == 8
    rows = {
        cells[0].strip(): cells[1:] for line in result.output.splitlines() if len(cells := line.split("│")[1:-1]) > 4
    }
    assert [cell.strip() for cell in rows["hints"]] == ["8", "8", "8", "24"]
    assert rows["naming the letter"][-1].strip() == "8"
    assert rows["usable: with a text, no leak"][-1].strip() == "16"


def test_the_same_command_has_nothing_to_do_and_loads_no_teacher(
    project: Path, teacher: ScriptedTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write("--levels", "2")
    before = (project / "hints.jsonl").read_bytes()

    def refuse(*_: Any) -> None:
        raise AssertionError("the teacher was loaded")

    monkeypatch.setattr(hints_plan, "_load_teacher", refuse)
    result = _write("--levels", "2")
    assert "hints.jsonl already has all hints of these 4 questions." in result.output
    assert (project / "hints.jsonl").read_bytes() == before


def test_only_what_is_missing_is_added(project: Path, teacher: ScriptedTeacher) -> None:
    _write("--levels", "1", "--modality", "MRI")
    assert sum(teacher.hint_calls) == 2
    result = _write("--levels", "1")
    assert "4 questions: 2 hints to be written" in result.output
    assert sum(teacher.hint_calls) == 4


def test_two_banks_with_the_same_hints_are_the_same_file(project: Path, teacher: ScriptedTeacher) -> None:
    _write("--out", "a.jsonl", "--levels", "1", "--batch-size", "1")
    teacher.hint_conversations.clear()
    _write("--out", "b.jsonl", "--levels", "1", "--batch-size", "4")
    assert (project / "a.jsonl").read_bytes() == (project / "b.jsonl").read_bytes()


def test_how_the_questions_are_shown_decides_whether_they_are_found(project: Path, teacher: ScriptedTeacher) -> None:
    _write("--levels", "1")
    assert "4 hints to be written" in _write("--levels", "1", "--prompt-style", "answer").output
    assert len(HintBank.open("hints.jsonl")) == 8


def test_limit_draws_questions(project: Path, teacher: ScriptedTeacher) -> None:
    assert "2 questions: 2 hints" in _write("--levels", "1", "--limit", "2").output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["questions.jsonl"], "No teacher is named"),
        (["questions.jsonl", "--teacher", "big", "--levels", "4"], "levels is 4; give 1 to 3"),
        (["questions.jsonl", "--teacher", "big", "--per-question", "2", "--temperature", "0"], "greedy hints are all"),
        (["questions.jsonl", "--teacher", "big", "--leak-policy", "never"], "hint_leak_policy is 'never'"),
        (["--teacher", "big"], "There are no questions"),
        (["questions.jsonl", "--teacher", "big", "--prompt-style", "poem"], "prompt_style 'poem'"),
        (["questions.jsonl", "--teacher", "big", "--out", "."], r"hint bank \. cannot be opened"),
    ],
)
def test_what_cannot_work_is_refused_before_a_teacher_is_loaded(
    arguments: list[str], words: str, project: Path, teacher: ScriptedTeacher
) -> None:
    with pytest.raises((ConfigError, DataError), match=words):
        _run(*arguments)
    assert teacher.hint_calls == []


def test_empty_answers_are_counted_and_asked_for_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = ScriptedTeacher(["", "<hint>Look.</hint>"])
    silent.name = "big"
    monkeypatch.setattr(hints_plan, "_load_teacher", lambda *_: silent)
    first = _write("--levels", "1").output
    assert "2 hints are missing: their answers were empty. The same command asks again." in first
    assert "2 hints to be written" in _write("--levels", "1").output


def test_a_served_teacher_writes_the_hints(project: Path) -> None:
    with serving() as server:
        server.reply = lambda number, body: completion(f"<hint>way {number}</hint>")
        result = _run("questions.jsonl", "--teacher", "big", "--teacher-url", server.url, "--levels", "1")
        assert result.exit_code == 0
        assert [body["model"] for body in server.bodies if body] == ["big"] * 4
    assert {hint.teacher for hint in HintBank.open("hints.jsonl").hints} == {"big"}


def test_a_model_writes_the_hints_the_same_ones_for_one_seed(project: Path) -> None:
    build_text_model(project / "model", "llama")
    for name in ("a", "b"):
        _run("questions.jsonl", "--teacher", "model", "--levels", "1", "--per-question", "2", "--max-new-tokens", "5",
             "--out", name, "--seed", "7")  # fmt: skip
    hints = HintBank.open("a").hints
    assert len(hints) == 8
    assert (project / "a").read_bytes() == (project / "b").read_bytes()
    assert any(first.raw != second.raw for first, second in zip(hints[::2], hints[1::2], strict=True))


def test_a_recipe_says_what_training_asks(project: Path, teacher: ScriptedTeacher) -> None:
    (project / "recipe.yaml").write_text(
        "model_name_or_path: student\nteacher_model_name_or_path: big\ndata_path: questions.jsonl\n"
        "prompt_style: answer\nnum_train: 3\noption_shuffles: 1\nhint_bank: banks/mine.jsonl\noutput_dir: run\n"
        "hint_leak_policy: ask_again\nhint_retries: 1\n"
    )
    result = _run("--from-recipe", "recipe.yaml", "--levels", "1")
    bank = HintBank.open("banks/mine.jsonl")
    questions = {hint.question for hint in bank.hints}
    # Three questions and their copies with shuffled options, of which some may be in the old order.
    assert len({question.removesuffix("~1") for question in questions}) == 3
    assert f"{len(questions)} questions" in result.output
    assert all(
        "inside <answer>" in c[0]["content"] and "think" not in c[0]["content"] for c in teacher.hint_conversations
    )
    assert len(teacher.hint_calls) >= 2, "a third of the answers leaks and is asked for again"


def test_a_recipe_without_hints_is_refused(project: Path, teacher: ScriptedTeacher) -> None:
    (project / "recipe.yaml").write_text(
        "method: sft\nmodel_name_or_path: student\ndata_path: questions.jsonl\noutput_dir: run\n"
    )
    with pytest.raises(ConfigError, match="method 'sft', which uses no hints"):
        _run("--from-recipe", "recipe.yaml", "--teacher", "big")


# --- showing ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def bank(project: Path, teacher: ScriptedTeacher) -> Path:
    _write("--per-question", "3")
    return project / "hints.jsonl"


def test_show_begins_with_a_summary_and_shows_hints_as_text(bank: Path) -> None:
    output = _run("show", str(bank), "--question", "q1", "--level", "0").output
    assert output.index("words, median") < output.index("Look at the rim.")
    assert "level 0: Name the concept" in output
    assert "[red]Count[/red] the \\x1b[31mlobes." in output
    assert "\x1b" not in output
    assert "It is B.  [leaks: letter]  (big, 3 words)" in output
    assert "q0" not in output
    assert "level 1" not in output


def test_show_only_leaks_and_only_so_many(bank: Path) -> None:
    output = _run("show", str(bank), "--leaks", "--limit", "5").output
    assert output.count("[leaks: letter") == 5
    assert "Look at the rim." not in output
    assert "7 more; --limit 0 shows all." in output


def test_show_refuses_what_is_not_there(bank: Path) -> None:
    with pytest.raises(ConfigError, match="no hint bank"):
        _run("show", "nothing.jsonl")
    with pytest.raises(DataError, match="none of its 36 hints"):
        _run("show", str(bank), "--question", "q99")


# --- stopped ----------------------------------------------------------------------------------------------------------

# The command in a process of its own, with a teacher that takes its time.
SLOW_COMMAND = """
import sys, time
from kepo.cli import hints_plan
from kepo.teachers.scripted import ScriptedTeacher
class Slow(ScriptedTeacher):
    def write_hints(self, conversations):
        print("batch", flush=True)
        time.sleep(1.0)
        return super().write_hints(conversations)
teacher = Slow("<hint>Look.</hint>")
teacher.name = "big"
hints_plan._load_teacher = lambda *_: teacher
from kepo.cli.main import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_command_goes_on_where_it_was(project: Path, kill: int) -> None:
    command = [sys.executable, "-c", SLOW_COMMAND, "hints", "questions.jsonl", "--teacher", "big", "--levels", "3",
               "--batch-size", "2"]  # fmt: skip
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
        # Whoever runs the tests in the background may have Ctrl-C ignored in all that is started.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    wait_for: Callable[[], str] = process.stdout.readline
    batches = 0
    while batches < 2:
        line = wait_for()
        assert line, "the command ended before it was stopped"
        batches += "batch" in line
    process.send_signal(kill)
    rest = process.stdout.read()
    process.wait(timeout=30)
    kept = len(HintBank.open("hints.jsonl"))
    assert 2 <= kept < 12
    if kill == signal.SIGINT:
        assert process.returncode != 0
        assert "keeps what was written; the same command goes on" in rest
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"})
    assert f"{12 - kept} hints to be written" in done.stdout
    assert len(HintBank.open("hints.jsonl")) == 12
