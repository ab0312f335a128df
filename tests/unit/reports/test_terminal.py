"""A run in the terminal: hostile text stays text, tables fit, and nothing depends on colour."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from kepo.reports.inspection import RolloutGroup
from kepo.reports.terminal import (
    groups_table,
    header,
    legend,
    number,
    print_group,
    sparkline,
    steps_table,
    visible,
)
from kepo.runs import Run
from tests.rollout_runs import NAN, kepo_step, rollout

SGR = re.compile(r"\x1b\[[0-9;]*m")
# Colours, a cleared screen, a window title, a hyperlink, the one-byte introducer, a bell, a backspace, a turned
# direction, a separator that ends lines, a zero-width space, rich's own markup and emoji.
HOSTILE = (
    "\x1b[31mRED\x1b[0m \x1b[2J \x1b]0;title\x07 \x1b]8;;http://x\x1b\\link \x9b1m \x00\x08\x7f \u202eevil \u2028 "
    "\u200bx \r [bold]b[/bold] [/nothing] :warning: {0} " + "w" * 300
)


def _console(width: int = 80, colour: bool = False, encoding: str = "utf-8") -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace", newline="\n")
    return Console(
        file=file, width=width, markup=False, emoji=False, highlight=False,
        force_terminal=colour, color_system="truecolor" if colour else None,
    )  # fmt: skip


def _text(console: Console) -> str:
    file: Any = console.file
    file.flush()
    return str(file.buffer.getvalue().decode(file.encoding))


def _group(rows: Sequence[dict[str, Any]], step: int = 3, place: int = 1, of: int = 1) -> RolloutGroup:
    records = [
        {**row, "rollout": i, "correct": None if row["reward"] != row["reward"] else row["reward"] >= 1}
        for i, row in enumerate(rows, start=1)
    ]
    return RolloutGroup(step, place, of, tuple(records))


def _groups() -> list[RolloutGroup]:
    rows = kepo_step(3)
    return [_group(rows[4 * g : 4 * g + 4], place=g + 1, of=3) for g in range(3)]


def _hostile_group() -> RolloutGroup:
    fields = dict.fromkeys(
        ("prompt", "completion", "hint", "modality", "task", "answer", "exploration_failure"), HOSTILE
    )
    rows = [
        rollout(3, row, HOSTILE, 1.0, **fields, hints_tried=[HOSTILE], injected=row == 0, attempts=1, attempt=1)
        for row in range(4)
    ]
    return _group([{**row, f"reward/{HOSTILE[:24]}": 1.0} for row in rows])


def _step(step: int, **values: float | None) -> dict[str, Any]:
    keys = ("reward", "correct", "all_failed_groups", "rescued_groups", "injected", "gate_open", "loss", "grad_norm")
    return {"step": step, **dict.fromkeys(keys), **values}


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain {x} [bold]", "plain {x} [bold]"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x00\x07\x08\r\x7f", "\\x00\\x07\\x08\\r\\x7f"),
        ("\x9b2J", "\\x9b2J"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("\u2028\u2029\u200b\ufeff", "\\u2028\\u2029\\u200b\\ufeff"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("a\nb\tc", "a\nb\tc"),
        ("肺 é 👨\u200d👩 می\u200cخواهم", "肺 é 👨\u200d👩 می\u200cخواهم"),
    ],
)
def test_what_a_terminal_would_act_on_is_made_visible(raw: str, shown: str) -> None:
    assert visible(raw) == shown


def test_one_line_is_one_line() -> None:
    assert visible("a\nb\tc", one_line=True) == "a\\nb\\tc"


def test_no_control_character_is_left() -> None:
    everything = "".join(map(chr, [*range(0x300), *range(0x2000, 0x2100), *range(0xFFF0, 0x10000)]))
    unprintable = {c for c in visible(everything) if not c.isprintable()}
    # Spaces of other widths and places of Unicode that nothing is assigned to do nothing.
    assert {c for c in unprintable if unicodedata.category(c) not in ("Zs", "Cn")} == set("\n\t\u200c\u200d")


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("colour", [False, True])
def test_hostile_text_neither_colours_nor_breaks_the_terminal(width: int, colour: bool) -> None:
    console, group = _console(width, colour), _hostile_group()
    console.print(
        header(Run(Path(HOSTILE), {"status": HOSTILE, "error": HOSTILE, "device": HOSTILE, "steps": HOSTILE}))
    )
    console.print(groups_table([group], console))
    print_group(console, group, group.records)
    assert colour or "\x1b" not in _text(console)
    text = SGR.sub("", _text(console))
    assert not [c for c in text if c in "\x1b\x9b\x07\x00\x08\x7f\r\u202e\u2028\u200b"]
    assert "\\x1b[31mRED\\x1b[0m" in text
    assert "[bold]b[/bold] [/nothing] :warning: {0}" in text.replace("\n", "").replace("    ", "")
    assert max(cell_len(line) for line in text.splitlines()) <= width


def test_colours_of_the_model_are_not_among_ours() -> None:
    console, group = _console(colour=True), _hostile_group()
    print_group(console, group, group.records)
    harmless = _console(colour=True)
    clean = RolloutGroup(3, 1, 1, tuple({**r, "completion": "x"} for r in group.records))
    print_group(harmless, clean, clean.records)
    assert set(SGR.findall(_text(console))) == set(SGR.findall(_text(harmless)))


def test_without_colour_there_is_no_escape_sequence_and_every_verdict_is_a_word() -> None:
    console = _console()
    for group in _groups():
        print_group(console, group, group.records)
    text = _text(console)
    assert "\x1b" not in text
    for words in ("✓ correct", "✗ incorrect", "gate closed", "gate open for 50% of tokens", "◆ injected, attempt 3"):
        assert words in text


@pytest.mark.parametrize("width", [80, 120])
def test_a_table_of_steps_fits(width: int) -> None:
    steps = [
        _step(
            s, reward=-1234.5678 * s, correct=1.0, all_failed_groups=1.0, rescued_groups=1.0, injected=1.0,
            gate_open=1.0, loss=-1.2345e-9, grad_norm=NAN,
        )
        for s in range(99990, 100021)
    ]  # fmt: skip
    console = _console(width)
    console.print(steps_table(steps, 20, console))
    lines = [line for line in _text(console).splitlines() if line.strip()]
    assert max(map(cell_len, lines)) <= width
    assert len(lines) == 1 + 1 + 20 + 1 + 1  # head, rule, the last 20 steps, rule, courses
    assert "100020" in lines[-3]
    assert "-1.23e-09" in lines[-3], "a cell was cut"


def test_columns_without_any_value_are_left_out() -> None:
    console = _console()
    console.print(steps_table([_step(1, loss=0.5), _step(2, loss=0.25, grad_norm=3.0)], 0, console))
    head, _, first, second, *_ = [line.split() for line in _text(console).splitlines() if line.strip()]
    assert head == ["step", "loss", "grad"]
    assert first == ["1", "0.5", "-"]
    assert second == ["2", "0.25", "3"]


def test_one_step_has_no_course() -> None:
    console = _console()
    console.print(steps_table([_step(1, loss=0.5)], 20, console))
    assert "all" not in _text(console)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("size", [4, 16])
def test_a_table_of_groups_fits_and_loses_no_reward(width: int, size: int) -> None:
    long = {"modality": "Optical Coherence Tomography", "task": "Anatomy Identification"}
    rows = [
        rollout(
            1, row, "x" * 60, 1.0, **long, group_all_failed=True, attempts=10, exploration_failure="no correct sample"
        )
        for row in range(size)
    ]
    console = _console(width)
    console.print(groups_table([_group(rows, place=120, of=120)], console))
    text = _text(console)
    assert max(map(cell_len, text.splitlines())) <= width
    assert text.count("✓1.5") == size
    for word in ("120", "failed", "correct", "sample", "10"):
        assert word in text


def test_groups_as_cells() -> None:
    console = _console(120)
    console.print(groups_table(_groups(), console))
    lines = [line.split() for line in _text(console).splitlines() if line.strip()]
    assert lines[2] == ["1", "q1", "MRI", "Disease", "Diagnosis", "✗0.5", "✓1.5", "✗0.5", "✓1.5"]
    assert lines[3][5:] == ["◆✓1.5", "✗0.5", "✗0.5", "✗0.5", "all", "1", "3"]
    assert lines[4][5:] == ["✗0.5", "✗0.5", "✗0.5", "✗0.5", "all", "no", "hint", "0"]


def test_without_exploration_its_columns_are_left_out() -> None:
    console = _console()
    console.print(groups_table(_groups()[:1], console))
    head = next(line for line in _text(console).splitlines() if line.strip())
    assert head.split() == ["#", "question", "modality", "task", "rewards"]


def test_a_reward_that_does_not_apply_is_no_failure() -> None:
    console = _console()
    group = _group([rollout(1, 0, "q", NAN, reward=NAN)])
    console.print(groups_table([group], console))
    print_group(console, group, group.records)
    text = _text(console)
    assert "?n/a" in text
    assert "? unknown" in text
    assert "choice_accuracy n/a, think_format 0.5" in text


def test_a_group_in_full() -> None:
    console, group = _console(200), _groups()[1]
    print_group(console, group, group.records[:1])
    lines = [line.strip() for line in _text(console).splitlines()]
    assert lines[1] == "step 3, group 2 of 3: q2"
    assert lines[2] == "MRI, Disease Diagnosis, all failed before exploration, explored in 3 attempts, 1 injected"
    assert lines[3:5] == ["images", "/data/images/q2.png"]
    assert lines[5:11] == ["prompt", "user: [image] What does q2 show?", "A) cyst", "B) tumour", "true answer", "A"]
    assert lines[11:13] == ["teacher's hint 1", "Look at the rim."]
    assert lines[14] == (
        "rollout 1 of 4  ✓ correct  reward 1.5 (choice_accuracy 1, think_format 0.5)  advantage +1.5  "
        "gate open for 50% of tokens  37 tokens  ◆ injected, attempt 3"
    )
    assert lines[15:17] == ["sampled under the hint (level 1)", "Look at the rim."]
    assert "rollout 2" not in _text(console)


def test_a_rollout_trained_under_another_prompt_shows_it() -> None:
    rows = kepo_step(1)[4:8]
    rows[0] |= {"prompt": "user: q2?\n\nHint: Look at the rim."}
    console, group = _console(), _group(rows)
    print_group(console, group, group.records)
    text = _text(console)
    assert text.index("What does q2 show?") < text.index("trained under the prompt") < text.index("Hint: Look at")
    assert text.count("trained under the prompt") == 1


@pytest.mark.parametrize("answer", [None, ""])
def test_a_question_without_answer(answer: str | None) -> None:
    console, group = _console(), _group([rollout(1, 0, "q", 1.0, answer=answer, modality=None, task=None)])
    print_group(console, group, group.records)
    assert ("none" in _text(console)) == (answer is None)


def test_a_terminal_that_knows_ascii_only_gets_ascii() -> None:
    console, group = _console(encoding="ascii"), _groups()[1]
    console.print(steps_table([_step(s, loss=float(s)) for s in range(1, 9)], 0, console))
    console.print(groups_table([group], console))
    console.print(legend(console))
    text = _text(console)
    assert text.isascii()
    assert "\\u" not in text
    assert "*+1.5 -0.5 -0.5 -0.5" in text


def test_a_course_by_hand() -> None:
    assert sparkline([0.0, 0.5, 1.0], 3, bars="abc") == "abc"
    assert sparkline([0.0, 0.5, 1.0], 3, low=0.0, high=2.0, bars="abc") == "aab"  # levels 0, 0.5 (to even), 1
    assert sparkline([0.0, 2.0, 4.0, 6.0], 2, bars="abcd") == "ad"  # means 1 and 5
    assert sparkline([1.0, None, NAN, float("inf"), 3.0], 5, bars="abc") == "a   c"
    assert sparkline([-5.0, 5.0], 2, low=0.0, high=1.0, bars="abc") == "ac"  # outside the bounds: held at them


def test_a_course_without_change_or_without_values() -> None:
    assert sparkline([2.0, 2.0], 2, bars="abc") == "bb"
    assert sparkline([], 5) == ""
    assert sparkline([None, NAN], 5) == ""


def test_a_course_is_never_wider_than_asked() -> None:
    assert [len(sparkline(list(map(float, range(n))), 7)) for n in (1, 6, 7, 8, 1000)] == [1, 6, 7, 7, 7]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0.0, "0"), (0.12345, "0.123"), (1234.5, "1234"), (3e-8, "3e-08"), (2.5e7, "2.5e+07"), (NAN, "nan")],
)
def test_numbers_are_short(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_the_header_of_a_finished_run() -> None:
    manifest = {
        "status": "finished", "steps": 30, "device": "cpu, float32", "seed": 0, "config": {"run": {"arm": "kepo"}},
        "started": "2026-01-02T03:04:05+00:00", "ended": "2026-01-02T03:12:05+00:00",
    }  # fmt: skip
    first, second = header(Run(Path("runs/a"), manifest)).plain.splitlines()
    assert first == "kepo  finished  runs/a"
    assert second == "30 steps, cpu, float32, seed 0, 2026-01-02 03:04 UTC, 8 min"


def test_the_header_of_a_run_that_may_still_run() -> None:
    text = header(Run(Path("runs/a"), {"status": "running", "started": "2026-01-02T03:04:05+00:00"})).plain
    assert text == "a  running (or killed before it could say so)  runs/a\n2026-01-02 03:04 UTC"


def test_the_header_of_a_run_that_failed_says_why() -> None:
    assert header(Run(Path("a"), {"status": "failed", "error": "ValueError('x')"})).plain.endswith("ValueError('x')")


def test_the_header_of_a_manifest_with_odd_times() -> None:
    assert "yesterday to today" in header(Run(Path("a"), {"started": "yesterday", "ended": "today"})).plain
