"""Mathematical answers: which text of a completion is its final answer, and whether it is equal to the true one.

math-verify compares. It takes any number from a text that holds several, so it is only given whole expressions here.
"""

from __future__ import annotations

import importlib
import logging
import re
import threading
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kepo.errors import DataError, MissingExtraError
from kepo.rewards.answers import Completion, completion_texts, normalized
from kepo.rewards.tags import after_reasoning, find_answer
from kepo.rewards.text import is_denied

logger = logging.getLogger(__name__)

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_MATH = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$(.+?)(?<!\\)\$", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.)])-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+|(?<=\d))(?:/\d+)?%?(?![\d])")
_LONGEST = 1000  # characters of an answer; a longer text is no expression, and parsing it takes long
_CUE = re.compile(r"\b(?:is|are|equals)\b|(?<=[A-Za-z*]):(?=[\s*$])|####", re.IGNORECASE)
_LIST = re.compile(r"[\s,;.?!$]*(?:(?:and|or|maybe|perhaps|not|no|wait)\b[\s,;]*)*", re.IGNORECASE)
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mbox|operatorname)\s*\{([^{}]*)\}")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_PROSE = re.compile(r"(?<![A-Za-z])(?!(?:sqrt|sin|cos|tan|log|exp|abs|min|max|gcd|lcm|mod)\b)[A-Za-z]{3,}")
_HEDGE = re.compile(r"\b(?:and|or|not|no|maybe|perhaps|but|if|about)\b", re.IGNORECASE)
_DENIED = re.compile(r"(?<!\\)\b(?:not|no|maybe|perhaps|but|about)\b", re.IGNORECASE)
_UNITS = re.compile(r"(?<=[\w})])\s+[A-Za-z]{2,}(?:\s+[A-Za-z]{2,}){0,2}(?:\^\{?\d\}?)?$")
_BASE = re.compile(r"([0-9A-Za-z]+)_\{?(\d+)\}?")
_ROOT = re.compile("\N{SQUARE ROOT}\\s*(\\d+(?:\\.\\d+)?|[A-Za-z])(?![\\d.])")
_RAISED = re.compile("[⁺⁻⁰¹²³⁴-⁹]+")
_VULGAR = re.compile("[¼-¾⅐-⅞]")
_CLOCK = re.compile(r"(\d{1,2}(?::\d\d)?)\s*([ap])\.?\s*m\.?", re.IGNORECASE)
# What takes minutes to compute, or to parse, and is the answer to no question that was checked: towers and very large
# powers. Such an answer is compared as text.
_HUGE = re.compile(r"\^\s*\{?\s*-?\d{5,}|\^[^\^]{0,20}\^[^\^]{0,20}\^|\)\s*\^\s*\{?\d{3,}|\d{5,}\s*!")
_DEEPEST = 40  # brackets inside each other
_SIGNS = {
    "\N{SQUARE ROOT}": r"\sqrt ",
    "\N{INFINITY}": r"\infty ",
    "\N{MINUS SIGN}": "-",
    "**": "^",
    "\u00a0": " ",
    "\N{DEGREE SIGN}": r"^\circ ",
}


def math_accuracy(
    completions: Sequence[Completion],
    answer: Sequence[str],
    completion_finished: Sequence[bool] | None = None,
    reasoning_opened: Sequence[bool] | None = None,
    **columns: Any,
) -> list[float | None]:
    r"""1.0 where the final answer is mathematically equal to the true one (math-verify), else 0.0.

    The final answer is the inside of `<answer>`; without such a tag the last `\boxed{}` after the reasoning, or the
    last line after it. Reasoning that does not end has no answer. The whole answer counts: one of several guesses, a
    member of a set or a tuple in another order is incorrect.

    Args:
        completions: B completions.
        answer: B true answers: a number, LaTeX (bare, in `$...$` or `\boxed{}`), words, or GSM8K's text up to
            `#### 42`. One that cannot be read gives None; `check_math_answers` finds them.
        completion_finished: B flags, whether a completion ended by itself (`KEPOTrainer` tells it); one that was cut
            off has no last line and no answer without a closing tag. None: all did.
        reasoning_opened: B flags, whether a prompt ended with an opened `<think>` (`KEPOTrainer` tells it).
        columns: Other columns, ignored.

    Raises:
        MissingExtraError: math-verify is not installed.
    """
    package = _math_verify()
    ended = [True] * len(completions) if completion_finished is None else completion_finished
    rewards: list[float | None] = []
    texts = completion_texts(completions, reasoning_opened)
    for text, truth, end in zip(texts, answer, ended, strict=True):
        gold = _read(package, _true_answer(truth))
        if gold is None:
            rewards.append(None)
            continue
        final = _final_answer(text, end)
        given = _read(package, final) if final else None
        rewards.append(float(given is not None and _equal(package, gold, given)))
    return rewards


def check_math_answers(answers: Sequence[str]) -> None:
    """Say which true answers `math_accuracy` cannot read, so that their rows never earn it.

    Args:
        answers: The column `answer` of the data.

    Raises:
        DataError: More than half of the answers cannot be read. Fewer are logged as a warning with row and text.
        MissingExtraError: math-verify is not installed.
    """
    package = _math_verify()
    readable = {text: _read(package, _true_answer(text)) is not None for text in dict.fromkeys(answers)}
    rows = [row for row, text in enumerate(answers) if not readable[text]]
    if not rows:
        return
    shown = ", ".join(f"row {row}: {answers[row]!r}" for row in rows[:5])
    message = (
        f"math_accuracy cannot read {len(rows)} of {len(answers)} answers ({shown}{', ...' if len(rows) > 5 else ''})"
    )
    if 2 * len(rows) > len(answers):
        raise DataError(
            f"{message}. Put the final answer alone into the field 'answer', as a number or LaTeX, or use another "
            "reward."
        )
    logger.warning("%s; these rows get no such reward.", message)


@dataclass(frozen=True)
class _Answer:
    text: str  # the whole expression, without delimiters
    parsed: list[Any]  # as math-verify's `parse` returns it; empty for words
    words: str | None  # the text of an answer in words


def _true_answer(truth: Any) -> str:
    text = str(truth).rpartition("####")[2].strip()
    return _boxed(text) or text


def _final_answer(text: str, finished: bool) -> str | None:
    """The expression that a completion gives as its answer; None: it gives none."""
    answer = find_answer(text)
    if answer is not None:
        inside, closed = answer
        return _boxed(inside) or _stated(inside, whole=True) if finished or closed else None
    rest = after_reasoning(text)
    if not rest:
        return None
    boxed = _boxed(rest)
    if boxed or not finished:
        return boxed
    end = rest[-_LONGEST:]
    displayed = [
        match for match in _MATH.finditer(end) if match.end() == len(end) and "\n" in match.group()
    ]  # may be on several lines
    return _stated(displayed[0].group() if displayed else rest.splitlines()[-1], whole=False)


def _boxed(text: str) -> str | None:
    """The inside of the last box, together with the other boxes of its line, as a list."""
    inside: list[str] = []
    place = 0
    end = 0
    while box := _BOX.search(text, place):
        depth, place = 1, box.end()
        while place < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[place], 0) if text[place - 1] != "\\" else 0
            place += 1
        if depth:
            break  # cut off
        if "\n" in text[end : box.start()]:
            inside = []
        inside.append(text[box.end() : place - 1].strip())
        end = place
    return ", ".join(dict.fromkeys(inside)) or None


def _stated(text: str, whole: bool) -> str | None:
    """The expression that a sentence states; `whole`: all that it holds must be this one answer."""
    if len(text) > _LONGEST:
        return None
    *before, text = _CUE.split(_undecorated(text))
    whole = whole or bool(before)
    text = _undecorated(text)
    if not _has_prose(text):
        return text
    bare = _UNITS.sub("", text)
    if not _has_prose(bare) and not _HEDGE.search(text):
        return _undecorated(bare)
    found = list(_MATH.finditer(text)) or [match for match in _NUMBER.finditer(text) if match.group()]
    if not found:
        return text
    first = len(found) - 1
    while first and (whole or _LIST.fullmatch(text[found[first - 1].end() : found[first].start()])):
        first -= 1
    if is_denied(text, found[first].start()) or (whole and _DENIED.search(text)):
        return None
    return ", ".join(_undecorated(match.group()) for match in found[first:])


def _undecorated(text: str) -> str:
    """Without what surrounds an expression: delimiters, emphasis, a currency sign, the final stop."""
    text = text.strip().strip("*").strip().rstrip(".,;:!").strip().strip("*").strip()
    whole = _MATH.fullmatch(text)
    if whole and "$" not in (inner := next(group for group in whole.groups() if group)).replace(r"\$", ""):
        return inner.strip().rstrip(".").strip()
    return re.sub(r"(?<!\\)\$(?=-?[\d.])", "", text) if text.count("$") - text.count(r"\$") == 1 else text


def _has_prose(text: str) -> bool:
    if _MATH.search(text):
        return True  # an expression inside a text
    return _PROSE.search(_COMMAND.sub(" ", _environments_removed(_TEXT.sub(" ", text)))) is not None


def _environments_removed(text: str) -> str:
    return re.sub(r"\\(?:begin|end)\s*\{[^{}]*\}(?:\{[lcr|]*\})?", " ", text)


def _read(package: Any, text: str) -> _Answer | None:
    """None: neither mathematics nor words."""
    if len(text) > _LONGEST:
        return None
    text = " ".join(_undecorated(text).split())
    text = _ROOT.sub(r"\\sqrt{\1}", re.sub(r"^=\s*", "", text))
    text = _RAISED.sub(lambda m: "^{" + unicodedata.normalize("NFKC", m[0]) + "}", text)
    text = _VULGAR.sub(lambda m: " " + unicodedata.normalize("NFKC", m[0]).replace("\u2044", "/"), text).strip()
    for sign, latex in _SIGNS.items():
        text = text.replace(sign, latex)
    text = re.sub(r"(?<=\d)(?:\\[,!; ]|,\\!|,\s*\\!|\{,\}| )\s*(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"(?<![\d/])(\d+) (\d+)/(\d+)$", r"\1\\frac{\2}{\3}", text)  # a mixed number
    text = re.sub(r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi ", text)
    text = re.sub(r"(?<=\d)x(?=10\^)", r"\\times ", text)
    text = re.sub(r"^(-?\d+(?:\.\d+)?)[eE]([+-]?\d+)$", r"\1\\times 10^{\2}", text)
    if not text or re.search(r"\d\s+\d", text) or _depth(text) > _DEEPEST:
        return None
    plain = _TEXT.sub(r"\1", text)
    if clock := _CLOCK.fullmatch(plain.strip()):
        return _Answer(text, [], f"{clock[1]} {clock[2].lower()}m")
    if _HUGE.search(text):
        return _Answer(text, [], "".join(text.split()))
    if re.fullmatch(r"[^\W\d_][\w\s().,'&-]*", plain) and (_PROSE.search(plain) or plain.casefold() == "no"):
        return _Answer(text, [], normalized(plain))
    if not _HEDGE.search(text):
        text = _UNITS.sub("", text)
    if _has_prose(text) or _DENIED.search(text):
        return None
    base = _BASE.fullmatch(text)
    limit = _time_limit()
    config = [package.LatexExtractionConfig()]
    parsed = package.parse(f"${text}$", config, extraction_mode="first_match", parsing_timeout=limit)
    expressions = [one for one in parsed if not isinstance(one, str)]
    return _Answer(text, expressions, None) if expressions or base else None


def _depth(text: str) -> int:
    deepest = depth = 0
    for sign in text:
        depth += (sign in "({[") - (sign in ")}]")
        deepest = max(deepest, depth)
    return deepest


def _equal(package: Any, gold: _Answer, given: _Answer) -> bool:
    if gold.words is not None or given.words is not None:
        return gold.words == given.words
    true_base, base = (_BASE.fullmatch(answer.text) for answer in (gold, given))
    if base:
        if true_base:
            return true_base.groups() == base.groups()
        if base[2] != "10":
            return False
    true_kind, kind = _kind(gold), _kind(given)
    if (true_kind, kind) == ("set", "ordered") or (true_kind == "ordered" and given.text.startswith((r"\{", "{"))):
        return False
    return bool(package.verify(gold.parsed, given.parsed, allow_set_relation_comp=True, timeout_seconds=_time_limit()))


def _kind(answer: _Answer) -> str:
    """ "set", "ordered" (a tuple or an interval) or another type's name."""
    name = type(answer.parsed[0]).__name__ if answer.parsed else ""
    return {"FiniteSet": "set", "Tuple": "ordered", "Interval": "ordered"}.get(name, name)


def _time_limit() -> int | None:
    """The package's time limits are alarm signals, which only the main thread may set."""
    return 2 if threading.current_thread() is threading.main_thread() else None


def _math_verify() -> Any:
    return optional_package("math_verify", "math-verify", "math", "the reward 'math_accuracy'")


def optional_package(module: str, package: str, extra: str, purpose: str) -> Any:
    """The imported `module`.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise MissingExtraError(package, f"pip install 'kepo[{extra}]'", purpose) from error
