"""The reward functions, called as TRL calls them: parallel lists, more columns than they need."""

from __future__ import annotations

import pytest

from kepo.data import to_dataset
from kepo.errors import ConfigError, DataError
from kepo.evaluation.asking import OrderedQuestion
from kepo.evaluation.scoring import score_completion
from kepo.evaluation.settings import Completion, EvaluationSettings
from kepo.rewards import answer_format, choice_accuracy, exact_match, get_rewards, predicted_letter, think_format
from kepo.rewards.functions import REWARDS
from kepo.types import Question

OPTIONS = ["Cyst", "Tumour", "Stone", "Normal"]


def as_messages(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize("wrap", [str, as_messages])
def test_choice_accuracy(wrap) -> None:
    texts = [
        "<think>x</think><answer>B</answer>",
        "<answer>(b) Tumour</answer>",
        "<answer>tumour.</answer>",
        "<answer>A</answer>",
        "<answer>A or B</answer>",
        "B",
        "",
    ]
    n = len(texts)
    rewards = choice_accuracy(
        completions=[wrap(text) for text in texts],
        answer=["B"] * n,
        options=[OPTIONS] * n,
        prompts=["?"] * n,
        question=["?"] * n,
        completion_ids=[[1]] * n,
        trainer_state=None,
    )
    assert rewards == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert all(type(reward) is float for reward in rewards)


def test_choice_accuracy_reads_each_row_with_its_own_options() -> None:
    rewards = choice_accuracy(["<answer>no</answer>"] * 3, ["B", "A", "no"], [["yes", "no"], ["no", "yes"], []])
    assert rewards == [1.0, 1.0, 1.0]


def test_plain_rows_are_read_without_tags_as_in_evaluation() -> None:
    question = Question(id="q", text="?", answer="B", options=tuple(OPTIONS))
    texts = ["The answer is B", "B", "<answer>B</answer>", "B or C", "A"]
    plain = {name: list(values) * 5 for name, values in to_dataset([question], "plain").to_dict().items()}
    tagged = {name: list(values) * 5 for name, values in to_dataset([question], "answer").to_dict().items()}
    settings = EvaluationSettings(prompt_style="plain")
    scored = [score_completion(OrderedQuestion(question, 0), Completion(text, 3, True), settings) for text in texts]
    assert choice_accuracy(texts, **plain) == [float(one["correct"]) for one in scored] == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert choice_accuracy(texts, **tagged) == [0.0, 0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("empty", [[], None])
def test_choice_accuracy_without_options_is_exact_match(empty: list[str] | None) -> None:
    completions = ["<answer>Left Lung.</answer>", "<answer>right lung</answer>"]
    assert choice_accuracy(completions, ["left lung"] * 2, [empty] * 2) == [1.0, 0.0]


def test_choice_accuracy_refuses_an_answer_that_is_not_a_letter() -> None:
    with pytest.raises(
        DataError, match=r"row 1 of the batch, field 'answer': 'Tumour' is not the letter .* \(A, B, C, D"
    ):
        choice_accuracy(["x", "x"], ["B", "Tumour"], [OPTIONS, OPTIONS])


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        choice_accuracy(["x", "x"], ["B"], [OPTIONS, OPTIONS])


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("<answer>left lung</answer>", 1.0),
        ("<answer> Left  Lung. </answer>", 1.0),
        ("<think>right</think><answer>left lung</answer>", 1.0),
        ("left lung", 1.0),
        ("<think>right</think> left lung", 1.0),
        ("It is the left lung", 0.0),
        ("<answer>the left lung</answer>", 0.0),
        ("<answer></answer>", 0.0),
        ("", 0.0),
    ],
)
def test_exact_match(completion: str, reward: float) -> None:
    assert exact_match([completion], ["left lung"], options=[[]]) == [reward]


def test_an_empty_completion_does_not_match_an_empty_answer() -> None:
    assert exact_match([""], [""]) == [0.0]


GOOD_THINK = "<think>because</think><answer>B</answer>"


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        (GOOD_THINK, 1.0),
        ("\n<think>\nbecause\nof this\n</think>\n\n<answer>\nB\n</answer>\n", 1.0),
        ("<think>because</think><answer>no option at all</answer>", 1.0),
        ("<think>a < b</think><answer>B</answer>", 1.0),
        ("<answer>B</answer>", 0.0),
        ("<think>because</think>", 0.0),
        ("<think>because</think>B", 0.0),
        ("<think></think><answer>B</answer>", 0.0),
        ("<think> \n</think><answer>B</answer>", 0.0),
        ("<think>because</think><answer> </answer>", 0.0),
        ("<answer>B</answer><think>because</think>", 0.0),
        ("well, " + GOOD_THINK, 0.0),
        (GOOD_THINK + " done", 0.0),
        ("<think>because</think> so <answer>B</answer>", 0.0),
        (GOOD_THINK + GOOD_THINK, 0.0),
        ("<think>a</think><think>b</think><answer>B</answer>", 0.0),
        ("<think>a</think><answer>A</answer><answer>B</answer>", 0.0),
        ("<think><answer>A</answer></think><answer>B</answer>", 0.0),
        ("<think>a<think>b</think><answer>B</answer>", 0.0),
        ("<think>because</think><answer>B", 0.0),
        ("<think>because<answer>B</answer>", 0.0),
        ("<THINK>because</THINK><answer>B</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_think_format(completion: str, reward: float) -> None:
    assert think_format([completion, as_messages(completion)], answer=["B", "B"]) == [reward, reward]


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("<answer>B</answer>", 1.0),
        (" <answer>\nB\n</answer>\n", 1.0),
        ("<answer></answer>", 0.0),
        ("<answer> </answer>", 0.0),
        ("<answer>B", 0.0),
        ("B", 0.0),
        ("so <answer>B</answer>", 0.0),
        ("<answer>B</answer>.", 0.0),
        ("<answer>A</answer><answer>B</answer>", 0.0),
        ("<answer><think>x</think>B</answer>", 0.0),
        (GOOD_THINK, 0.0),
        ("", 0.0),
    ],
)
def test_answer_format(completion: str, reward: float) -> None:
    assert answer_format([completion], answer=["B"]) == [reward]


def test_registry_names_are_the_names_trl_logs() -> None:
    assert list(REWARDS) == [
        "choice_accuracy",
        "exact_match",
        "think_format",
        "answer_format",
        "math_accuracy",
        "reasoning_gym_score",
    ]
    assert all(name == function.__name__ for name, function in REWARDS.items())
    with pytest.raises(TypeError):
        REWARDS["mine"] = think_format  # type: ignore[index]


def test_get_rewards_keeps_the_order_and_imports_what_is_dotted() -> None:
    functions = get_rewards(["think_format", "choice_accuracy", "kepo.rewards.functions:exact_match"])
    assert functions == [think_format, choice_accuracy, exact_match]
    assert get_rewards([]) == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "think_fromat",
            r"reward 'think_fromat' is unknown \(did you mean 'think_format'\?\); use one of choice_accuracy,",
        ),
        ("zzz", r"reward 'zzz' is unknown; use one of .* or 'file.py:function'"),
        ("no_such_module_here:f", "there is no module 'no_such_module_here'"),
        (":f", "write it as 'package.module:function' or 'file.py:function'"),
        ("kepo.rewards:no_such", "'no_such' does not exist in kepo.rewards; "),
        ("kepo.rewards.functions:_THINK_TAGS", "'_THINK_TAGS' in kepo.rewards.functions is not a function"),
    ],
)
def test_get_rewards_says_what_is_wrong(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        get_rewards([name])


def test_true_answers_may_stand_in_tags() -> None:
    options = ["cat", "dog"]
    assert choice_accuracy(["<answer>3</answer>", "4"], ["<answer> 3 </answer>"] * 2, [[], None]) == [1.0, 0.0]
    assert choice_accuracy(["<answer>B</answer>", "<answer>A</answer>"], ["<answer>B</answer>"] * 2, [options] * 2) == [
        1.0,
        0.0,
    ]


def test_a_tag_that_was_cut_off_names_no_option() -> None:
    whole = "<think>It is A or B, so B</think>\n<answer>B</answer>"
    paid = [end for end in range(len(whole)) if predicted_letter(whole[:end], ["cat", "dog"], strict=False)]
    assert paid[:1] == [whole.index("B</answer>") + 1]
    for cut in ("so\n<|b", "so\n\\b", "so\n</a"):
        assert predicted_letter(cut, ["cat", "dog"], strict=False) is None
    assert predicted_letter('```json\n{"answer": "B"}\n```', ["cat", "dog"], strict=False) == "B"
