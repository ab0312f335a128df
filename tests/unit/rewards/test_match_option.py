"""Which option an answer means: a table of answers, most of them as language models really write them."""

from __future__ import annotations

from string import ascii_uppercase

import pytest

from kepo.errors import DataError
from kepo.rewards.options import match_option

DISEASES = ("Astigmatism", "Glaucoma", "Nystagmus", "Drusen")
TWO = ("Yes", "No")
NESTED = ("Edema", "Macular edema", "No edema", "Hepatitis B")
HEPATITIS = ("Hepatitis C", "Hepatitis A", "Hepatitis B", "Hepatitis D")
NUMBERS = ("2", "2.5", "5", "25")
ABBREVIATED = ("MR (magnetic resonance)", "CT", "X-Ray", "Non-contrast CT")
TEN = tuple(f"choice number {n}" for n in range(10))

LETTER_FORMS = [
    "B", "b", " B ", "B.", "B)", "B:", "B,", "(B)", "(b)", "[B]", "[b]", "{B}", "( B )", "b)", "b.", "(B).", "B).",
    "'B'", '"B"', "**B**", "__B__", "*B*", "`B`", "**(B)**", "**B.**", "$B$", r"\boxed{B}", r"$\boxed{B}$",
    r"\boxed{\text{B}}", "Ｂ", "（Ｂ）", "B\n", "\nB", "B) Glaucoma", "B. Glaucoma", "B: Glaucoma", "(B) Glaucoma",
    "[b] glaucoma", "B - Glaucoma", "B – glaucoma.", "B Glaucoma", "B)Glaucoma", "**B) Glaucoma**", "**B**: Glaucoma",
    "b) glaucoma", "B, glaucoma", "Glaucoma (B)", "Glaucoma, option B", "Option B", "option b", "OPTION B",
    "Option (B)", "Option: B", "option B.", "Option **B**", "Choice B", "letter B", "The answer is B",
    "the answer is b", "The answer is (B).", "the answer is: B", "The answer is option B", "Answer: B", "answer B",
    "Answer: **B**", "Answer: B) Glaucoma", "The correct answer is B.", "The correct option is B",
    "The correct choice is (b)", "I choose B", "I would pick B.", "So B.", "It is B", "It must be B.",
    "The answer would be B", "Correct option: B", "The answer is B because the pressure is high",
    "B because the pressure is high", "B, since the cup is large", "B is correct", "B is the right answer.",
    "B is the most likely", "Option B is right", "The answer is B. It is not A.",
    "The answer is option B, not option A", "B rather than A", "Not option A, option B",
    "B) because it is not drusen", "B) Glaucoma, not drusen", "The choice is B", "B instead of A",
    "answer is b, not a", "B!", "-> B", "=> B", "- B", "Answer = B", "ANSWER: B",
    "The nerve is pale.\nThe answer is B", "The nerve is pale.\nB", "B\nThe nerve is pale.",
]  # fmt: skip


@pytest.mark.parametrize("answer", LETTER_FORMS)
def test_every_way_to_name_the_letter(answer: str) -> None:
    assert match_option(answer, DISEASES) == "B"


TEXT_FORMS = [
    ("Glaucoma", "B"),
    ("glaucoma", "B"),
    ("GLAUCOMA.", "B"),
    ("  glaucoma  ", "B"),
    ("**Glaucoma**", "B"),
    ('"Glaucoma"', "B"),
    ("the answer is glaucoma", "B"),
    ("The answer is a glaucoma.", "B"),
    ("A glaucoma", "B"),
    ("It is drusen.", "D"),
    ("Drusen are seen, so this is drusen", "D"),
    ("It is not glaucoma, it is drusen", "D"),
    ("drusen rather than glaucoma", "D"),
    ("astigmatism", "A"),
    ("A) astigmatism", "A"),
    ("A astigmatism", "A"),
    ("An astigmatism is seen", "A"),
]


@pytest.mark.parametrize(("answer", "letter"), TEXT_FORMS)
def test_option_text_spelled_out(answer: str, letter: str) -> None:
    assert match_option(answer, DISEASES) == letter


NO_OPTION = [
    "", "   ", "\n", ".", "?", "I do not know", "cataract", "E", "(E)", "Option E", "The answer is F", "AB", "ABCD",
    "Band", "Bold", "Aor", "B2", "1", "42", "a lesion is seen", "A lesion is seen", "the answer is a lesion",
    "The answer is A lesion", "this is a mass", "It is a large mass", "there is a b cell", "B cells are seen",
    "the answer is B cell lymphoma", "B-cell lymphoma", "findings: a mass", "Answer: a mass", "answer a question",
    "not B", "the answer is not B", "not glaucoma", "It isn't glaucoma", "there is no glaucoma", "glaucomatous",
    "None of the above", "vitamin D deficiency", "grade C3",
]  # fmt: skip


@pytest.mark.parametrize("answer", NO_OPTION)
def test_no_option_is_named(answer: str) -> None:
    assert match_option(answer, DISEASES) is None


AMBIGUOUS = [
    "A or B", "A and B", "A, B", "A/B", "A & B", "a or b", "b or a", "(A) or (B)", "(A), (B)", "(A)(B)", "A\nB",
    "A) B)", "Option A or B", "Option A or option B", "The answer is A or B", "the answer is (A) or (B)",
    "A, B, C, D", "A) Astigmatism\nB) Glaucoma", "glaucoma or drusen", "Glaucoma and drusen", "A) Glaucoma",
    "(A) Glaucoma", "The answer is A: drusen", "B) Drusen", "The answer is A. The answer is B.",
    "Answer: A\nAnswer: C", "**A** or **B**", "A is correct. C is correct.",
]  # fmt: skip


@pytest.mark.parametrize("answer", AMBIGUOUS)
def test_several_different_options_are_no_answer(answer: str) -> None:
    assert match_option(answer, DISEASES) is None


def test_the_same_option_named_twice_is_one_answer() -> None:
    assert match_option("B. The answer is B.", DISEASES) == "B"
    assert match_option("B or b", DISEASES) == "B"


@pytest.mark.parametrize(
    ("answer", "options", "letter"),
    [
        ("no", TWO, "B"),
        ("Yes.", TWO, "A"),
        ("A", TWO, "A"),
        ("C", TWO, None),
        ("yes or no", TWO, None),
        ("edema", NESTED, "A"),
        ("macular edema", NESTED, "B"),
        ("There is no edema", NESTED, "C"),
        ("It is macular edema", NESTED, "B"),
        ("edema and macular edema", NESTED, None),
        ("hepatitis b", NESTED, "D"),
        ("The answer is hepatitis B", NESTED, "D"),
        ("Hepatitis A", HEPATITIS, "B"),
        ("The answer is hepatitis  c.", HEPATITIS, "A"),
        ("B) Hepatitis A", HEPATITIS, "B"),
        ("A) Hepatitis A", HEPATITIS, None),
        ("2", NUMBERS, "A"),
        ("2.5", NUMBERS, "B"),
        ("It is 2.5", NUMBERS, "B"),
        ("25.", NUMBERS, "D"),
        ("MR (magnetic resonance)", ABBREVIATED, "A"),
        ("mr (Magnetic  Resonance).", ABBREVIATED, "A"),
        ("CT", ABBREVIATED, "B"),
        ("a non-contrast CT", ABBREVIATED, "D"),
        ("The image is an x-ray", ABBREVIATED, "C"),
        ("J", TEN, "J"),
        ("I", TEN, "I"),
        ("(j)", TEN, "J"),
        ("I choose J", TEN, "J"),
        ("I think the answer is H", TEN, "H"),
        ("choice number 3", TEN, "D"),
        ("K", TEN, None),
    ],
)
def test_options_that_are_hard_to_tell_apart(answer: str, options: tuple[str, ...], letter: str | None) -> None:
    assert match_option(answer, options) == letter


def test_twenty_six_options() -> None:
    options = tuple(f"organ {n} of the list" for n in range(26))
    assert [match_option(f"({letter.lower()})", options) for letter in ascii_uppercase] == list(ascii_uppercase)
    assert match_option("organ 25 of the list", options) == "Z"


def test_a_letter_alone_is_read_as_the_letter_even_if_it_is_also_a_text() -> None:
    blood_groups = ("B", "A", "AB", "O")
    assert match_option("A", blood_groups) == "A"
    assert match_option("AB", blood_groups) == "C"
    assert match_option("B) A", blood_groups) == "B"


def test_two_options_with_the_same_text_are_told_apart_by_letter_only() -> None:
    options = ("cyst", "Cyst.", "tumour")
    assert match_option("cyst", options) is None
    assert match_option("B) cyst", options) == "B"


def test_regular_expression_characters_in_options_are_plain_text() -> None:
    options = ("C++ (v1.0)", "a.*b", "[x]", "\\d+")
    assert [match_option(option, options) for option in options] == ["A", "B", "C", "D"]


def test_long_text_is_read_in_reasonable_time() -> None:
    text = "the patient (a man, or a woman) has a lesion; " * 400 + "\nThe answer is C"
    assert match_option(text, DISEASES) == "C"


@pytest.mark.parametrize("options", [(), ("only one",), tuple(map(str, range(27)))])
def test_a_number_of_options_that_has_no_letters(options: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=f"2 to 26 options, not {len(options)}"):
        match_option("A", options)


SIZES = ("<5 mm", ">5 mm", "5 mm")


@pytest.mark.parametrize(
    ("answer", "options", "letter"),
    [
        ("< 5 mm", SIZES, "A"),
        ("> 5 mm", SIZES, "B"),
        ("less than 5 mm", SIZES, "A"),
        ("It is greater than 5 mm.", SIZES, "B"),
        ("5mm", SIZES, "C"),
        ("The answer is 5 mm", SIZES, "C"),
        ("≥ 5 mm", SIZES, None),
        ("about 5 mm", SIZES, None),
        ("5 cm", SIZES, None),
        ("5 mm²", SIZES, None),
        ("> 5 mm", ("5 mm", "10 mm"), None),
        ("less than 5 mm", ("5 mm", "10 mm"), None),
        ("5 or 6", ("5", "10"), None),
        ("5 cm", ("5", "10"), None),
        ("5 %", ("5", "10"), None),
        ("-5", ("5", "10"), None),
        ("− 5", ("5", "-5"), "B"),
        ("minus 5", ("5", "-5"), "B"),
        ("The answer is -5", ("5", "-5"), "B"),
        ("±5", ("5", "-5"), None),
        (".1", ("0.1", "0.01", "1"), "A"),
        (".1", ("1", "2"), None),
        ("1/2", (r"$\frac{1}{2}$", r"$\frac{1}{3}$", "$2$"), "A"),
        (r"\boxed{\frac{1}{2}}", ("1/2", "2"), "A"),
        ("½", ("1/2", "2"), "A"),
        ("1/2", ("2", "3"), None),
        ("2 / 3", ("2", "3"), None),
        (r"\sqrt{2}", (r"$\sqrt{2}$", "$2$"), "A"),
        (r"\sqrt{2}", ("$2$", "$3$"), None),
        ("10⁵", ("10⁵", "105"), "A"),
        ("10^5", ("10⁵", "105"), "A"),
        ("10^{5}", ("10⁵", "105"), "A"),
        ("10³", ("10", "100"), None),
        ("10^3", ("10", "3"), None),
        ("T2*", ("T1", "T2", "T2*"), "C"),
        ("**T2***", ("T1", "T2", "T2*"), "C"),
        ("**T2**", ("T1", "T2", "T2*"), "B"),
        ("T2*", ("T1", "T2"), None),
        ("CT angiography", ("CT angiography", "CT"), "A"),
        ("CT angiogram", ("CT angiography", "CT"), None),
        ("It is a CT angiogram", ("CT", "MRI"), None),
        ("CT with contrast", ("CT", "MRI"), None),
        ("It is a CT", ("CT", "MRI"), "A"),
        ("absence of glaucoma", DISEASES, None),
        ("glaucoma is ruled out", DISEASES, None),
        ("glaucoma or cataract", DISEASES, None),
        ("consistent with glaucoma", DISEASES, "B"),
    ],
)
def test_the_whole_answer_is_the_option(answer: str, options: tuple[str, ...], letter: str | None) -> None:
    assert match_option(answer, options) == letter


@pytest.mark.parametrize(
    "answer",
    [
        "B or maybe C", "B, maybe C", "B. C", "B? C?", "B - C", "B and also C", "B as well as C", "B or else C",
        "The answer is B or maybe C", "B; alternatively C", "B, tal vez C", "B, vielleicht C", "B, peut-être C",
        "B, talvez C", "B, could be C", '{"answer": "B or C"}', "A? No, B",
        "B, C", "A. Wait, actually the answer is B", "between B and C",
    ],
)  # fmt: skip
def test_a_hedge_or_a_correction_is_no_answer(answer: str) -> None:
    assert match_option(answer, DISEASES) is None


@pytest.mark.parametrize(
    "answer",
    [
        "Not A. B.",
        "not A but B", "not A, B", "B, not C", "A is wrong, so B", r"The answer is \boxed{B}.",
        "<|begin_of_box|>B<|end_of_box|>", "<|begin_of_box|>Glaucoma<|end_of_box|>", "Final answer: (B)",
        "**Final answer:** **B**", "**Answer:** B) Glaucoma", r"\(\boxed{\text{B}}\)", '{"answer": "B"}',
        "{'reasoning': 'A is unlikely', 'answer': 'glaucoma'}", "<b>B</b>", "probably B", "B (not C)",
    ],
)  # fmt: skip
def test_denials_and_wrappers(answer: str) -> None:
    assert match_option(answer, DISEASES) == "B"


@pytest.mark.parametrize(
    ("answer", "options", "letter"),
    [
        ("Na+", ("Na⁺", "Ca²⁺", "Na"), "A"),
        ("Ca^{2+}", ("Na⁺", "Ca²⁺", "Ca"), "B"),
        ("Ca⁺", ("Na⁺", "Ca²⁺", "Ca"), None),
        ("2–3", ("2", "2-3", "3"), "B"),
        ("2 - 3", ("2", "2-3", "3"), "B"),
        ("2 to 3", ("2", "2-3", "3"), None),
        (r"5\%", ("5%", "5", "50%"), "A"),
        ("&lt;5", ("<5", "≤5", "5"), "A"),
        ("CO<sub>2</sub>", ("CO", "CO2", "O2"), "B"),
        ("10<sup>5</sup>", ("105", "10⁵", "10"), "B"),
        ("37°C", ("37 °C", "37 °F", "37"), "A"),
    ],
)
def test_one_value_in_several_spellings(answer: str, options: tuple[str, ...], letter: str | None) -> None:
    assert match_option(answer, options) == letter
