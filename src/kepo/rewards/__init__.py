"""Rewards: reading an answer out of a completion, and functions in TRL's form that score it."""

from kepo.rewards.answers import extract_answer, predicted_letter
from kepo.rewards.functions import answer_format, choice_accuracy, exact_match, get_rewards, think_format
from kepo.rewards.mathematics import check_math_answers, math_accuracy
from kepo.rewards.options import match_option
from kepo.rewards.verifiers import reasoning_gym_score

__all__ = [
    "answer_format",
    "check_math_answers",
    "choice_accuracy",
    "exact_match",
    "extract_answer",
    "get_rewards",
    "match_option",
    "math_accuracy",
    "predicted_letter",
    "reasoning_gym_score",
    "think_format",
]
