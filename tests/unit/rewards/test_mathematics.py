"""The reward for mathematical answers: every form of the correct answer earns 1, whatever is near it 0."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from kepo.errors import DataError
from kepo.rewards import check_math_answers, math_accuracy

pytest.importorskip("math_verify")

# As the columns of MATH and GSM8K have them: bare LaTeX, words, numbers.
GOLDS = [
    *("72", "-2", "10,000", "1,234.50", ".35", r"\$18.90", r"10\%", "7"),
    *(r"\frac{1}{2}", r"\frac 59", r"3\frac{1}{2}", r"2\sqrt{3}", "2^{10}", r"1.25 \times 10^4", "6 - 5i", r"\infty"),
    *(r"11,\! 111,\! 111,\! 100", r"90^\circ", r"5.4 \text{ cents}", r"15\mbox{ cm}^2", "4210_5"),
    *(r"\text{Evelyn}", "Evelyn", r"\text{east}", r"\text{(C)}", "C", r"\text{June 20}"),
    *("p - q", "x^3+3x-6", "y = 2x + 3", "x=5", r"x \in [-2,7]", "[2,5)", r"(-\infty,2)\cup(3,\infty)"),
    *(r"\left( 3, \frac{\pi}{2} \right)", "(6,31,-1)", "1,-2", "3, 5, 7", r"\{1,2\}", r"1 \pm \sqrt{19}"),
    r"\begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix}",
]


def reward(completion: str, gold: str, **columns: object) -> float | None:
    return math_accuracy([[{"role": "assistant", "content": completion}]], [gold], task=["x"], **columns)[0]


@pytest.mark.parametrize("gold", GOLDS)
def test_every_form_of_the_correct_answer(gold: str) -> None:
    forms = [
        f"<answer>{gold}</answer>",
        f"<answer>${gold}$</answer>",
        f"<answer>\\({gold}\\)</answer>",
        f"<think>1 or 9?</think><answer>\\boxed{{{gold}}}</answer>",
        f"<think>1 or 9?</think>So it is $\\boxed{{{gold}}}$.",
        f"First 1, then 9.\nThe final answer is ${gold}$.",
        f"First 1, then 9.\n**Answer:** ${gold}$",
        f"First 1, then 9.\n{gold}",
    ]
    assert [form for form in forms if reward(form, gold) != 1.0] == []
    golds = [f"${gold}$", f"\\boxed{{{gold}}}", f"$\\boxed{{{gold}}}$"]
    assert [form for form in golds if reward(forms[0], form) != 1.0] == []


@pytest.mark.parametrize("gold", GOLDS)
def test_what_is_not_the_answer(gold: str) -> None:
    others = [
        *("", "<answer>no idea</answer>", "<answer>17</answer>", "<answer>2</answer>", "\\boxed{17}"),
        *(f"<think>{gold}", f"<think>Maybe {gold}? Or 17? Or {gold}", f"<think>\\boxed{{{gold}}}", f"$\\boxed{{{gold}"),
        *(f"<answer>{gold}, 99</answer>", f"<answer>99 or {gold}</answer>", f"<answer>not {gold}</answer>"),
        *(f"\\boxed{{{gold}}}\n\\boxed{{17}}", f"$\\boxed{{99}}$ or $\\boxed{{{gold}}}$", f"{gold}\n17"),
    ]
    assert [other for other in others if reward(other, gold) != 0.0] == []


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("3/4", "0.75", 1.0),
        ("x^2+1", "$1+x^2$", 1.0),
        ("1024", "2^{10}", 1.0),
        ("10", "10^{5}", 0.0),
        (r"3\sqrt{7}", r"3\sqrt{2}", 0.0),
        ("3√2", r"3\sqrt{2}", 1.0),
        ("42 apples", "42", 1.0),
        ("42 apples and 3 pears", "3", 0.0),
        ("$1,234", "1234", 1.0),
        ("1 234", "1234", 1.0),
        ("3 1/2", "3.5", 1.0),
        ("42 43", "85", 0.0),
        ("(3, pi/2)", r"\left( 3, \frac{\pi}{2} \right)", 1.0),
        ("(3, pi/3)", r"\left( 3, \frac{\pi}{2} \right)", 0.0),
        ("90°", r"90^\circ", 1.0),
        ("1e3", "1000", 1.0),
        ("3x10^8", r"3 \times 10^8", 1.0),
        ("5 cm^2", r"5\text{ cm}^2", 1.0),
        ("No", r"\text{No}", 1.0),
        ("yes or no", r"\text{No}", 0.0),
        ("-5", "5", 0.0),
        ("4210_{5}", "4210_5", 1.0),
        ("4210", "4210_5", 1.0),
        ("4210_6", "4210_5", 0.0),
        ("4210_5", "4210", 0.0),
        ("Evelyn Smith", r"\text{Evelyn}", 0.0),
        ("B", r"\text{(C)}", 0.0),
        ("40, 41 or 42", "42", 0.0),
        ("{41, 42}", "42", 0.0),
        ("1", r"\{1,2\}", 0.0),
        (r"\{2,1\}", r"\{1,2\}", 1.0),
        ("1 and 2", r"\{1,2\}", 1.0),
        ("(1,2)", r"\{1,2\}", 0.0),
        ("(2,1)", "(1,2)", 0.0),
        ("2, 1", "(1,2)", 0.0),
        (r"\{1,2\}", "(1,2)", 0.0),
        (r"(\frac{\pi}{2}, 3)", r"(3, \frac{\pi}{2})", 0.0),
        ("[1,2]", "(1,2)", 0.0),
        (r"x \le 3", r"(-\infty, 3]", 1.0),
        ("x < 3", r"(-\infty, 3]", 0.0),
        ("[-2,7]", r"x \in [-2,7]", 1.0),
        (r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", 1.0),
        (r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", 0.0),
        ("72", "48 + 24 = 72, so 72.\n#### 72", 1.0),
        ("48", "48 + 24 = 72, so 72.\n#### 72", 0.0),
        ("12", "", None),
        ("12", "[1,2", None),
    ],
)
def test_values(answer: str, gold: str, expected: float | None) -> None:
    assert reward(f"<answer>{answer}</answer>", gold) == expected


@pytest.mark.parametrize(
    ("line", "gold", "expected"),
    [
        ("2 + 3 = 5", "5", 1.0),
        ("The sum is 2 + 3 = 5.", "5", 1.0),
        ("She makes 9 * 2 = $18 every day.", "18", 1.0),
        ("In 5 days, she makes $90.", "90", 1.0),
        ("#### 72", "72", 1.0),
        ("\\[\n\\frac12\n\\]", "0.5", 1.0),
        ("$$\nx = \\frac12\n$$", "0.5", 1.0),
        ("We get $x=2$, so the area is $3\\sqrt{2}$ square units.", "3\\sqrt{2}", 1.0),
        ("Maybe 40? Or 41? Or 42", "42", 0.0),
    ],
)
def test_the_last_line_of_a_finished_completion(line: str, gold: str, expected: float) -> None:
    for text in (line, f"<think>1, 2, 3</think>\n1\n{line}\n", f"1, 2, 3</think>\n{line}"):
        assert reward(text, gold, completion_finished=[True]) == expected
        assert reward(text, gold, completion_finished=[False]) == 0.0
    assert reward(f"\\boxed{{{gold}}} because of", gold, completion_finished=[False]) == 1.0


def test_a_cut_answer_is_none() -> None:
    for text, rewards in {
        "<answer>12": [1.0, 0.0],
        "<answer>12</answer>": [1.0, 1.0],
        "12</think>": [0.0, 0.0],
    }.items():
        assert [reward(text, "12", completion_finished=[end]) for end in (True, False)] == rewards


def test_outside_the_main_thread() -> None:
    rewards: list[float | None] = []
    thread = threading.Thread(target=lambda: rewards.extend(math_accuracy(["<answer>1/2</answer>"], ["0.5"])))
    thread.start()
    thread.join()
    assert rewards == [1.0]


def test_answers_that_cannot_be_read_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="kepo"):
        check_math_answers(GOLDS)
        assert not caplog.records
        check_math_answers([*GOLDS, "[1,2", ""])
    said = caplog.records[0].getMessage()
    assert f"2 of {len(GOLDS) + 2} answers" in said
    assert f"row {len(GOLDS)}: '[1,2', row {len(GOLDS) + 1}: ''" in said
    with pytest.raises(DataError, match=r"2 of 3 answers \(row 1: '\[1,2', row 2: ''\)"):
        check_math_answers(["1", "[1,2", ""])


def test_the_trainer_reads_the_answers_of_its_data_first() -> None:
    from datasets import Dataset

    from kepo.rewards import exact_match
    from kepo.trainer.probe.data import check_rewarded

    data = Dataset.from_dict({"answer": ["1", "[1,2", "[3,4"]})
    check_rewarded([exact_match], ["exact_match"], data, "train_dataset")
    with pytest.raises(DataError, match="row 1"):
        check_rewarded([math_accuracy], ["math_accuracy"], data, "train_dataset")


@pytest.mark.parametrize(
    ("gold", "given", "reward"),
    [
        (r"\sqrt{51}", "√51", 1.0),
        (r"\sqrt{51}", "√5", 0.0),
        (r"\text{6:30 p.m.}", "6:30 PM", 1.0),
        (r"\text{6:30 p.m.}", "6:30 a.m.", 0.0),
        ("36", "= 36", 1.0),
        (r"\frac{3}{4}", "¾", 1.0),
        ("x^4", "x⁴", 1.0),
        ("x^4", "x4", 0.0),
        ("9^{9^{9^9}}", "9^{9^{9^9}}", 1.0),
    ],
)
def test_signs_in_place_of_latex(gold: str, given: str, reward: float) -> None:
    assert math_accuracy([f"<answer>{given}</answer>"], [gold]) == [reward]


@pytest.mark.parametrize(
    "answer", ["9^{9^{9^{9}}}", "2^{1000000000}", "(x+1)^{1000}", "(" * 400 + "1" + ")" * 400, "1000000!"]
)
def test_an_answer_that_takes_long_to_compute_costs_nothing(answer: str) -> None:
    start = time.perf_counter()
    assert math_accuracy([f"<answer>{answer}</answer>"], ["36"]) == [0.0]
    assert time.perf_counter() - start < 1
