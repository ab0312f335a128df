"""The perfect and the incorrect completion of a question, encoded, decoded and rewarded as a rollout is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kepo.errors import ConfigError, DataError, KepoError
from kepo.rewards.functions import REWARDS
from kepo.trainer.adapter import TRLAdapter
from kepo.trainer.generation_batch import Completions, completion_of
from kepo.trainer.probe.completions import FORMS, forms_to_try, incorrect_answer, true_answer, write
from kepo.trainer.probe.prompts import first_line
from kepo.trainer.probe.records import RewardCheck, Rows, Scope
from kepo.trainer.rows import row_answer
from kepo.types import Prompt, Sample

# What reward functions are seen to raise on values that they do not expect.
_FAILURES = (TypeError, KeyError, ValueError, AttributeError, IndexError, ArithmeticError)
_MAY_MISS = ("math_accuracy", "reasoning_gym_score")  # some true answers of a data set may be none that they can read
_SHOWN = 3  # rows that reward functions of others are called with


@dataclass(frozen=True)
class Asked:
    """Rows of the data set, and how they are rewarded."""

    trainer: TRLAdapter
    rows: Rows
    numbers: Sequence[int]  # of the rows
    data: Sequence[Mapping[str, Any]]  # the rows
    prompts: Sequence[Prompt]  # theirs, with images
    opened: bool  # whether the chat template ends prompts with <think>

    def select(self, places: Sequence[int]) -> Asked:
        """The rows at these places alone."""
        return replace(
            self,
            numbers=[self.numbers[place] for place in places],
            data=[self.data[place] for place in places],
            prompts=[self.prompts[place] for place in places],
        )

    def of_each_kind(self, most: int) -> Asked:
        """The first row, and those whose columns hold values of other types (such as None); `most` rows."""
        kinds: dict[tuple[str, ...], int] = {}
        for place, row in enumerate(self.data):
            kinds.setdefault(tuple(type(value).__name__ for value in row.values()), place)
        return self.select(sorted(kinds.values())[:most])

    def reward(self, index: int, texts: Sequence[str | None], *, cut: bool = False) -> list[float | None]:
        """What the reward function `index` gives for one text per row, None for no text or where it does not apply.

        `cut`: to the longest completion, as rollouts are.
        """
        some = [place for place, text in enumerate(texts) if text is not None]
        values: list[float | None] = [None] * len(texts)
        if some:
            for place, value in zip(some, self._call(index, some, [str(texts[p]) for p in some], cut), strict=True):
                values[place] = None if value != value else value
        return values

    def _call(self, index: int, places: Sequence[int], texts: Sequence[str], cut: bool) -> list[float]:
        ids = [self.encoded(text, cut=cut) for text in texts]
        decoded = self.trainer.decode_completions(ids)
        prompts = [self.prompts[place] for place in places]
        samples = [Sample(tuple(row), text) for row, text in zip(ids, decoded, strict=True)]
        completions = [completion_of(prompt, sample) for prompt, sample in zip(prompts, samples, strict=True)]
        asked = Completions([self.data[place] for place in places], prompts, completions, ids)
        try:
            return [reward.value for reward in self.trainer.call_reward(index, asked)]
        except KepoError:
            raise
        except _FAILURES as error:
            if len(places) > 1:  # find the row
                for place, text in zip(places, texts, strict=True):
                    self._call(index, [place], [text], cut)
            name = self.trainer.reward_func_names[index]
            raise DataError(
                f"The reward function {name!r} fails on {self.rows.where(self.numbers[places[0]])}: "
                f"{type(error).__name__}: {first_line(error)}. Correct the row's columns "
                f"({', '.join(self.data[places[0]])}), or the function."
            ) from error

    def encoded(self, text: str, *, cut: bool = False) -> list[int]:
        """The token ids of a completion, with its end token."""
        ids: list[int] = self.trainer.tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = [*ids, self.trainer.eos_token_ids[0]]
        return ids[: self.trainer.args.max_completion_length] if cut else ids


@dataclass(frozen=True)
class Rewarded:
    """What the rewards made of the rows."""

    completion: str | None  # of the first row, decoded
    incorrect: str | None
    rewards: tuple[RewardCheck, ...]  # of the first row
    rows: int  # that were rewarded
    notes: tuple[str, ...]


def check_rewards(asked: Asked, correctness: int, threshold: float, style: str | None, scope: Scope) -> Rewarded:
    """Reward perfect and incorrect completions.

    Args:
        asked: At least one row.
        correctness: Index of the reward function that says what is correct.
        threshold: Lowest reward of a correct completion.
        style: The prompt style; None: unknown.
        scope: Whether reward functions that are not of this package are called too.

    Raises:
        ConfigError: A perfect completion does not fit max_completion_length, or is not read as it was written.
        DataError: A reward function of this package does not pay a true answer, or pays an incorrect one; or a reward
            function fails on a row.
    """
    functions = asked.trainer.reward_funcs
    called = [i for i, function in enumerate(functions) if _is_called(function, scope)]
    if correctness not in called:
        return Rewarded(None, None, (), 0, ())
    ours = functions[correctness] in REWARDS.values()
    asked = asked if ours else asked.of_each_kind(_SHOWN)  # functions of others may be slow, or cost money
    answers = [true_answer(row) for row in asked.data]
    wrong_answers = [incorrect_answer(row) for row in asked.data]
    if not any(answers):
        return Rewarded(None, None, (), 0, (_no_answer(asked.trainer.reward_func_names[correctness]),))
    form, values = _best_form(asked, correctness, threshold, answers, forms_to_try(style, ours))
    perfect, wrong = _texts(asked, form, answers), _texts(asked, form, wrong_answers)
    wrong_values = asked.reward(correctness, wrong)
    notes: list[str] = []
    if ours:
        notes += _check_earned(asked, correctness, threshold, perfect, values)
        _check_not_earned(asked, correctness, threshold, wrong, wrong_values)
        _check_length(asked, correctness, threshold, [_texts(asked, one, answers) for one in FORMS])
    else:
        notes += _said_of_own(asked.trainer.reward_func_names[correctness], threshold, form, style, values[0])
        notes += _said_of_incorrect(asked.trainer.reward_func_names[correctness], threshold, wrong[0], wrong_values[0])
    checks, unpaid = _others(asked, called, correctness, (perfect, wrong), (values[0], wrong_values[0]))
    # Of prompts in the user's own words nobody knows which form they ask for.
    more = [] if style is None else unpaid
    first = [None if text is None else _read(asked, text) for text in (perfect[0], wrong[0])]
    counted = sum(value is not None for value in values)
    return Rewarded(first[0], first[1], checks, counted, (*notes, *more))


def _is_called(function: Any, scope: Scope) -> bool:
    if isinstance(function, str) or hasattr(function, "forward"):
        return False  # a reward model reads completions that are worth reading
    return scope.own_rewards or function in REWARDS.values()


def _texts(asked: Asked, form: str, answers: Sequence[str | None]) -> list[str | None]:
    return [None if answer is None else write(form, answer, asked.opened) for answer in answers]


def _read(asked: Asked, text: str) -> str:
    """`text` as a reward function gets it."""
    return asked.trainer.decode_completions([asked.encoded(text)])[0]


def _best_form(
    asked: Asked, index: int, threshold: float, answers: Sequence[str | None], forms: Sequence[str]
) -> tuple[str, list[float | None]]:
    """The first form in which all answers earn the reward, else the one in which most do; and the rewards."""
    best: tuple[int, str, list[float | None]] | None = None
    for form in forms:
        values = asked.reward(index, _texts(asked, form, answers))
        earned = sum(value is not None and value >= threshold for value in values)
        # Where no form is paid, the one that most prompts ask for is shown.
        if best is None or earned > best[0] or (earned == best[0] == 0 and form == "answer"):
            best = earned, form, values
        if earned == sum(value is not None for value in values) > 0:
            break
    assert best is not None
    return best[1], best[2]


def _check_earned(
    asked: Asked, index: int, threshold: float, perfect: Sequence[str | None], values: Sequence[float | None]
) -> list[str]:
    """A true answer, written as the prompt asks, earns the reward."""
    name = asked.trainer.reward_func_names[index]
    failed = [place for place, value in enumerate(values) if value is not None and value < threshold]
    if not failed:
        return []
    place = failed[0]
    text = str(perfect[place])
    read = _read(asked, text)
    gone = [tag for tag in ("<think>", "</think>", "<answer>", "</answer>") if tag in text and tag not in read]
    if gone:
        raise ConfigError(
            f"The tokenizer drops {', '.join(gone)} when a completion is decoded, because it has them as special "
            f"tokens, so {name} could never be earned: {text!r} is read as {read!r}. Add the tags to the tokenizer as "
            "ordinary tokens (special=False), or use prompt_style: plain."
        )
    where = asked.rows.where(asked.numbers[place])
    answer = row_answer(asked.data[place])
    message = f"{name} gives a perfect completion {values[place]:g} instead of {threshold:g}"
    detail = f"{where}, answer {answer!r}, completion {read!r}"
    if name in _MAY_MISS and 2 * len(failed) <= len(values):
        return [
            f"{message} in {len(failed)} of {len(values)} questions, which can never be answered correctly ({detail})."
        ]
    raise DataError(
        f"{message} ({detail}), so that nothing could be learned from it. Correct the answer, or use a reward that "
        "reads this form (reward_funcs, prompt_style)."
    )


def _check_not_earned(
    asked: Asked, index: int, threshold: float, wrong: Sequence[str | None], values: Sequence[float | None]
) -> None:
    """An incorrect answer does not earn the reward."""
    name = asked.trainer.reward_func_names[index]
    for place, value in enumerate(values):
        if value is not None and value >= threshold:
            raise DataError(
                f"{name} gives an incorrect completion {value:g} ({asked.rows.where(asked.numbers[place])}, answer "
                f"{true_answer(asked.data[place])!r}, completion {wrong[place]!r}). Correct the row's answer and "
                "options, or use another reward."
            )


def _check_length(asked: Asked, index: int, threshold: float, written: Sequence[Sequence[str | None]]) -> None:
    """The shortest perfect completion is not cut off before its answer.

    `written`: the true answers in every form, because a policy may leave out the reasoning that it was asked for.
    """
    longest = asked.trainer.args.max_completion_length
    if longest is None:
        return
    paid: list[str] = []
    for texts in written:
        values = asked.reward(index, texts)
        earned = [text if _earns(value, threshold) else None for text, value in zip(texts, values, strict=True)]
        paid += [text for text in earned if text is not None]
        fits = any(text is not None and len(asked.encoded(text)) <= longest for text in earned)
        if fits or any(_earns(value, threshold) for value in asked.reward(index, earned, cut=True)):
            return
    if paid:
        shortest = min(paid, key=lambda text: len(asked.encoded(text)))
        raise ConfigError(
            f"max_completion_length is {longest}, but the shortest perfect completion takes "
            f"{len(asked.encoded(shortest))} tokens ({shortest!r}), so no rollout could be correct. Raise "
            "max_completion_length."
        )


def _earns(value: float | None, threshold: float) -> bool:
    return value is not None and value >= threshold


def _no_answer(name: str) -> str:
    return (
        "The data has neither 'answer' nor 'solution', so no perfect completion can be made and whether "
        f"{name} pays correct answers was not checked."
    )


def _said_of_own(name: str, threshold: float, form: str, style: str | None, value: float | None) -> list[str]:
    """What is said of a correctness reward that is not of this package: nobody knows what it wants to read."""
    if value is not None and value >= threshold:
        if style is None or form == style:
            return []
        return [
            f"{name} pays an answer in the form {write(form, 'ANSWER')!r}, not in that of prompt_style {style!r} "
            f"({write(style, 'ANSWER')!r}). Say in the prompt what it wants to read, or use another reward."
        ]
    given = "does not apply to it" if value is None else f"gives {value:g}"
    return [
        f"No completion that {name} pays in full could be made from the true answer (it {given}), so whether it pays "
        "correct answers was not checked. It is a function of your own, which may want to read something else."
    ]


def _said_of_incorrect(name: str, threshold: float, text: str | None, value: float | None) -> list[str]:
    if value is None or value < threshold:
        return []
    return [
        f"{name} gives {value:g} to {text!r} too, whose answer is incorrect; a group then has nothing to learn from."
    ]


def _others(
    asked: Asked,
    called: Sequence[int],
    correctness: int,
    texts: tuple[Sequence[str | None], Sequence[str | None]],
    known: tuple[float | None, float | None],
) -> tuple[tuple[RewardCheck, ...], list[str]]:
    """All rewards of the first row, and a note on those of this package that a perfect completion does not earn."""
    first = asked.select([0])
    checks, notes = [], []
    for index, name in enumerate(asked.trainer.reward_func_names):
        perfect, incorrect = known
        if index != correctness:
            asks = index in called
            perfect, incorrect = (first.reward(index, side[:1])[0] if asks else None for side in texts)
        checks.append(RewardCheck(name, perfect, incorrect, index == correctness))
        ours = asked.trainer.reward_funcs[index] in REWARDS.values()
        if ours and index != correctness and perfect == 0.0:
            notes.append(
                f"{name} gives 0 to a perfect completion: the prompt does not ask for that form (prompt_style)."
            )
    return tuple(checks), notes
