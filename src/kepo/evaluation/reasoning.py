"""What can be measured on a completion's reasoning without a model, and the summary of an evaluation's records.

Reasoning is what stands inside `<think>`. Two things are measured: whether it ends with the option that is answered
(rationale-answer consistency), and whether the facts it states are true (factual accuracy, where the question's
`metadata["facts"]` says what is true).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from kepo.rewards import predicted_letter
from kepo.rewards.options import last_mentioned
from kepo.rewards.tags import reasoning_span
from kepo.rewards.text import folded
from kepo.types import option_letters

if TYPE_CHECKING:
    import pyarrow as pa

# A full stop or comma inside a number separates nothing.
_SEPARATOR = re.compile(r"[;\n]|(?<!\d)[.,]|[.,](?!\d)")


@dataclass(frozen=True, slots=True)
class ReasoningSummary:
    """Reasoning measures of one evaluation; each is None where no record has it. Shares are 0..1.

    All but `option_order_robustness` are means over the records in the data's own option order.
    """

    format_rate: float | None  # completions in the form that the prompt asks for
    consistency: float | None  # of completions whose reasoning names an option: answers with the last one named
    factual_accuracy: float | None  # true statements / statements, over all completions together
    all_true: float | None  # of completions with a statement: every statement is true
    correct_but_false: float | None  # of correct completions: state something false
    teacher_logp: float | None  # mean over completions of the mean log-probability per reasoning token, in nats
    # Share of (question, other option order) that choose the option text chosen in the data's own order; no readable
    # answer equals no other.
    option_order_robustness: float | None
    tokens: float | None  # mean completion tokens
    finished: float | None  # completions that ended by themselves, before the token limit


def reasoning_text(completion: str) -> str:
    """The reasoning of a completion (see `kepo.rewards.tags.reasoning_span`), trimmed; empty where there is none."""
    start, end = reasoning_span(completion)
    return completion[start:end].strip()


def is_consistent(completion: str, options: Sequence[str], *, strict: bool = True) -> bool | None:
    """Whether the option answered is the last one that the reasoning names by its text.

    A mention right after "not", "rather than" and the like names nothing. Options of one letter are not looked for, and
    a number with another sign or comparator is another value. None when there are no options, no option is named, or
    there is no readable answer; `strict` as for `kepo.rewards.predicted_letter`.
    """
    if len(options) < 2:
        return None
    letter = predicted_letter(completion, options, strict)
    named = last_mentioned(reasoning_text(completion), options)
    return None if letter is None or not named else letter in named


def statements(reasoning: str, facts: Mapping[str, Any]) -> tuple[int, int]:
    """How many facts a reasoning states, and how many of these statements are true.

    A statement is `name value`, `name: value`, `name = value` or `name is value`, set apart by `;`, `,`, `.` or a line
    break, for a name in `facts` (name -> true value); "and" or "the" may stand before it. Every statement counts, a
    repeated one too. Case and blanks do not count.
    """
    if not facts:
        return 0, 0
    pattern, truths = _statement_pattern(tuple((name, str(value)) for name, value in facts.items()))
    found = [match for part in _SEPARATOR.split(reasoning) if (match := pattern.fullmatch(part.strip()))]
    return len(found), sum(folded(match["value"]) == truths[folded(match["name"])] for match in found)


@lru_cache(maxsize=4096)
def _statement_pattern(facts: tuple[tuple[str, str], ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    truths = {folded(name): folded(value) for name, value in facts}
    names = "|".join(r"\s+".join(map(re.escape, name.split())) for name in sorted(truths, key=len, reverse=True))
    source = rf"(?:and\s+|the\s+)*(?P<name>{names})(?:\s*[:=]\s*|\s+is\s+|\s+)(?P<value>\S.*)"
    return re.compile(source, re.IGNORECASE | re.DOTALL), truths


def summarize_reasoning(table: pa.Table) -> ReasoningSummary:
    """The reasoning measures of an evaluation's records, see `kepo.runs.evaluations`."""
    columns = ["permutation", "correct", "formatted", "consistent", "statements", "true_statements", "teacher_logp"]
    rows = table.select([*columns, "tokens", "finished"]).to_pylist()
    own = [row for row in rows if row["permutation"] == 0]
    stated = [row for row in own if row["statements"]]
    made = sum(row["statements"] for row in stated)
    return ReasoningSummary(
        format_rate=_mean([row["formatted"] for row in own]),
        consistency=_mean([row["consistent"] for row in own]),
        factual_accuracy=sum(row["true_statements"] for row in stated) / made if made else None,
        all_true=_mean([row["true_statements"] == row["statements"] for row in stated]),
        correct_but_false=_mean(
            [row["true_statements"] < row["statements"] for row in own if row["correct"] and stated]
        ),
        teacher_logp=_mean([row["teacher_logp"] for row in own]),
        option_order_robustness=_option_order_robustness(table),
        tokens=_mean([row["tokens"] for row in own]),
        finished=_mean([row["finished"] for row in own]),
    )


def _option_order_robustness(table: pa.Table) -> float | None:
    rows = table.select(["id", "permutation", "sample", "predicted", "options"]).to_pylist()
    chosen = {(row["id"], row["sample"]): _chosen_text(row) for row in rows if row["permutation"] == 0}
    pairs = [
        (_chosen_text(row), chosen[row["id"], row["sample"]])
        for row in rows
        if row["permutation"] > 0 and (row["id"], row["sample"]) in chosen
    ]
    return _mean([first is not None and first == second for first, second in pairs])


def _chosen_text(row: Mapping[str, Any]) -> str | None:
    letters = option_letters(row["options"])
    return row["options"][letters.index(row["predicted"])] if row["predicted"] in letters else None


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are not None; None when there is none."""
    present = [float(value) for value in values if value is not None]
    return sum(present) / len(present) if present else None
