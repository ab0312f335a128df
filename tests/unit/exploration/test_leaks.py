"""A table of hints that give the answer away, and of hints that only look like it."""

from __future__ import annotations

import time

import pytest

from kepo.exploration.leaks import audit, strip_leaks

OPTIONS = ("Cyst", "Malignant melanoma", "Crohn's disease", "X-ray")

NAMES_THE_LETTER = [
    ("B", "The answer is B"),
    ("B", "the answer is b."),
    ("B", "The correct answer should therefore be B, I think"),
    ("B", "The right answer would be option B"),
    ("B", "Answer: B"),
    ("B", "ANSWER = B"),
    ("B", "final answer → b"),
    ("B", "Answer B."),
    ("B", "the answer is: **B**"),
    ("B", "option (b)"),
    ("B", "Option B shows the rim"),
    ("B", "OPTION B"),
    ("B", "option B's border"),
    ("B", "the correct letter: B"),
    ("C", "options: a, b and c"),
    ("B", "weigh option A against B"),
    ("B", "**B**"),
    ("B", "__B__"),
    ("B", "`b`"),
    ("B", 'It must be "B"'),
    ("B", r"\boxed{B}"),
    ("B", r"so it is \boxed{\text{B}}"),
    ("B", "<answer>B</answer>"),
    ("B", "B) has the rim"),
    ("B", "It is b)"),
    ("B", "(B)"),
    ("B", "Consider [B] first"),
    ("B", "choose B"),
    ("B", "I would select B here"),
    ("C", "go with c"),
    ("B", "It's B."),
    ("B", "It is B because the rim is thick"),
    ("B", "This points to B"),
    ("B", "The rim is consistent with B."),
    ("C", "It lies between B and C"),
    ("C", "Compare A and C"),
    ("B", "So B fits best"),
    ("B", "Given the rim, B is right"),
    ("B", "Given the rim, B."),
    ("B", "b is correct"),
    ("B", "Look at the rim: B"),
    ("B", "The rim is thick.\nB"),
    ("B", "The rim is thick. B"),
    ("B", "B - because of the rim"),
    ("B", "Thus, B."),
    ("B", "B"),
    ("B", " b. "),
    ("B", "Ｂ is right"),  # full width
    ("A", "The answer is A"),
    ("A", "the answer is a."),
    ("A", "The answer is A because the rim is thin"),
    ("A", "Option A shows a thin rim"),
    ("A", "option a"),
    ("A", "Pick a."),
    ("A", "A."),
    ("A", "A is correct"),
    ("B", "The second option describes it"),
    ("B", "Option 2 describes it"),
    ("D", "Weigh the last choice"),
    ("B", "Rule out A, C and D"),
    ("B", "The answer is neither A nor C. Nor is it option D."),
]

NAMES_NO_LETTER = [
    "A lesion with a thick rim",
    "Answer: A lesion with a rim has to be excluded first",
    "the answer is a matter of contrast",
    "which option a radiologist would choose",
    "choose a plane that shows the rim",
    "A given lesion may be a rather small one. A not uncommon finding is a halo.",
    "Is a mass seen? It is a question of size, and a halo is a sign.",
    "I would look at the rim; I think I can see it",
    "Vitamin B deficiency",
    "a lack of vitamin B.",
    "hepatitis B",
    "hepatitis B is a viral disease",
    "Think of (vitamin B) and of (type A)",
    "Kerley B lines",
    "Look for group B streptococcus, E. coli and C. difficile",
    "the B-scan shows, in B-mode, a C-shaped or D-shaped lesion",
    "use e.g. the rim, i.e. the border",
    "the nodule(s)",
    "Look at the border and its colour",
    "Abdomen, Brain, Chest, Dermis",
    "the T2 signal at b-value 800",
]


@pytest.mark.parametrize(("answer", "hint"), NAMES_THE_LETTER)
def test_a_named_letter_is_a_leak(answer: str, hint: str) -> None:
    assert audit(hint, answer, OPTIONS) == ("letter",)


@pytest.mark.parametrize("answer", ["A", "B", "C", "D"])
@pytest.mark.parametrize("hint", NAMES_NO_LETTER)
def test_an_ordinary_word_is_no_letter(answer: str, hint: str) -> None:
    assert audit(hint, answer, OPTIONS) == ()


@pytest.mark.parametrize("answer", ["A", "C"])
def test_the_letter_of_another_option_is_no_leak(answer: str) -> None:
    assert audit("Do not choose B.", answer, OPTIONS) == ()


CONTAINS_THE_TEXT = [
    ("A", "It looks like a cyst"),
    ("A", "CYST!"),
    ("A", "Cysts are round"),
    ("B", "a malignant-melanoma"),
    ("B", "a malignant\nmelanoma"),
    ("B", "No sign of malignant melanoma"),
    ("C", "crohns disease"),
    ("C", "Crohn’s disease"),
    ("D", "an x ray"),
    ("D", "an XRAY"),
    ("D", "(x-ray)"),
]

DOES_NOT_CONTAIN_THE_TEXT = [
    ("A", "cystic or cystitis"),
    ("B", "a melanoma that is malignant"),
    ("B", "malignant"),
    ("B", "a premalignant melanoma"),
    ("C", "a disease"),
]


@pytest.mark.parametrize(("answer", "hint"), CONTAINS_THE_TEXT)
def test_the_text_of_the_right_option_is_a_leak(answer: str, hint: str) -> None:
    assert audit(hint, answer, OPTIONS) == ("option",)


@pytest.mark.parametrize(("answer", "hint"), DOES_NOT_CONTAIN_THE_TEXT)
def test_other_words_are_not_the_text_of_the_right_option(answer: str, hint: str) -> None:
    assert audit(hint, answer, OPTIONS) == ()


def test_both_leaks_in_one_hint() -> None:
    assert audit("The answer is B) malignant melanoma.", "B", OPTIONS) == ("letter", "option")


OPEN_ANSWERS = [
    ("42", "The sum is 42.", True),
    ("42", "It is 42cm wide", False),
    ("42", "There are 142 or 420 of them", False),
    ("42", "It is 42.5", False),
    ("42", "It is 4.42", False),
    ("42", "It is 42.0", True),
    ("42.0", "It is 42", True),
    ("3.5", "about 3.5 mm", True),
    ("3.5", "about 3 or 5 mm", False),
    ("1200", "1,200 of them", True),
    ("1,200", "1200 of them", True),
    ("Ménière", "meniere", True),
    (r"\frac{1}{2}", r"it is $\frac{1}{2}$", True),
    (r"\frac{1}{2}", r"it is $\frac{1}{3}$", False),
    ("+", "a + b", True),
    ("+", "a - b", False),
    ("yes", "The answer is yes.", True),
    ("Yes", "Yes, because of the rim", True),
    ("no", "There is no rim, so look at the core", False),
    ("no", "Answer: no", True),
    ("True", "Is the true lumen visible?", False),
    ("", "anything", False),
]


@pytest.mark.parametrize(("answer", "hint", "leaks"), OPEN_ANSWERS)
def test_open_answers(answer: str, hint: str, leaks: bool) -> None:
    assert audit(hint, answer) == (("option",) if leaks else ())


def test_a_letter_whose_options_stand_in_the_question_is_looked_for_as_a_letter() -> None:
    assert audit("The answer is A.", "A") == ("letter",)
    assert audit("A lesion with a rim", "A") == ()


def test_the_answer_may_be_given_as_the_text_of_an_option() -> None:
    assert audit("choose B", "malignant melanoma", OPTIONS) == ("letter",)
    assert audit("a cyst", "cyst", OPTIONS) == ("option",)
    assert audit("a polyp", "polyp", OPTIONS) == ("option",)


def test_letters_in_front_of_the_option_texts_do_not_hide_them() -> None:
    assert audit("a polyp", "B", ("A) cyst", "B) polyp")) == ("option",)
    assert audit("a polyp", "B", ("(A) cyst", "(B) polyp")) == ("option",)


@pytest.mark.parametrize(
    ("hint", "rest"),
    [
        ("Look at the rim. The answer is B. Mind the size, 2.5 mm.", "Look at the rim. Mind the size, 2.5 mm."),
        (
            "1. Look at the rim\n2. It is a malignant melanoma\n3. Mind the size",
            "1. Look at the rim\n3. Mind the size",
        ),
        ("Look at the {rim}\\n. Choose B!", "Look at the {rim}\\n."),
        ("The answer is B", ""),
        ("**B**. B!", ""),
        ("Not A. Look closer. Not C. Not D.", ""),  # only together do the sentences leave B over
        ("Look at the rim.", "Look at the rim."),
    ],
)
def test_strip_takes_out_the_sentences_that_leak(hint: str, rest: str) -> None:
    stripped = strip_leaks(hint, "B", OPTIONS)
    assert stripped == rest
    assert audit(stripped, "B", OPTIONS) == ()


@pytest.mark.parametrize(
    "unit", ["\n", "( ", "((", "a, ", "A, B or ", "- \n", "the answer is ", "option (\"'", "\n*\n", "1,000"]
)
def test_a_teacher_that_went_astray_costs_no_time(unit: str) -> None:
    text = (unit * 10_000)[:10_000]
    start = time.process_time()
    strip_leaks(text, "B", OPTIONS)
    assert time.process_time() - start < 2.0
