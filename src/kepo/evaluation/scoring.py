"""What one completion scores: the answer read from it, whether it is correct, and the measures of its reasoning."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kepo.errors import ConfigError
from kepo.evaluation.asking import OrderedQuestion
from kepo.evaluation.reasoning import is_consistent, reasoning_text, statements
from kepo.evaluation.settings import Completion, EvaluationSettings
from kepo.rewards import answer_format, extract_answer, get_rewards, predicted_letter, think_format
from kepo.rewards.answers import completion_text
from kepo.rewards.tags import after_reasoning, reasoning_span
from kepo.types import Conversation, Question

if TYPE_CHECKING:
    from kepo.teachers.local import LocalTeacher

_FORMATS = {"think": think_format, "answer": answer_format}


def score_completion(ordered: OrderedQuestion, completion: Completion, settings: EvaluationSettings) -> dict[str, Any]:
    """The columns of a record that follow from a question and one completion of it; see `docs/evaluation.md`."""
    question, text = ordered.question, completion_text(completion.text, completion.reasoning_opened)
    predicted = _predicted(question, text, settings)
    facts, level = question.metadata.get("facts"), question.metadata.get("level")
    stated, true = statements(reasoning_text(text), facts if isinstance(facts, dict) else {})
    return {
        "id": question.id,
        "modality": question.modality,
        "task": question.task,
        "level": level if isinstance(level, int) else None,
        "permutation": ordered.permutation,
        "completion": completion.text,
        "answer": question.answer,
        "options": list(question.options),
        "predicted": predicted,
        "correct": _is_correct(question, completion, predicted, settings),
        "tokens": completion.tokens,
        "finished": completion.finished,
        "formatted": _is_formatted(completion, predicted, settings),
        "consistent": is_consistent(text, question.options, strict=settings.prompt_style != "plain"),
        "statements": stated,
        "true_statements": true,
        "images": [str(image) for image in question.images if isinstance(image, str | Path)],
        "metadata": _metadata(question),
    }


def _metadata(question: Question) -> str:
    return json.dumps(dict(question.metadata), ensure_ascii=False)


def _predicted(question: Question, text: str, settings: EvaluationSettings) -> str | None:
    """The letter or text answered with; the bare question does not ask for tags, so none are needed."""
    if question.options:
        return predicted_letter(text, question.options, strict=settings.prompt_style != "plain")
    return extract_answer(text) or after_reasoning(text) or None


def _is_correct(
    question: Question, completion: Completion, predicted: str | None, settings: EvaluationSettings
) -> bool:
    if question.options and settings.reward == "choice_accuracy":
        return predicted == question.answer
    columns = {
        "prompts": [question.text],
        "completion_finished": [completion.finished],
        **_opened(completion),
        "id": [question.id],
        "question": [question.text],
        "options": [list(question.options)],
        "answer": [question.answer],
        "solution": [question.answer_text],
        "modality": [question.modality],
        "task": [question.task],
        "metadata": [_metadata(question)],
        "prompt_style": [settings.prompt_style],
    }
    [function] = get_rewards([settings.reward])
    [value] = function(completions=[completion.text], **columns)
    return value is not None and value >= 1.0


def _opened(completion: Completion) -> dict[str, Any]:
    return {} if completion.reasoning_opened is None else {"reasoning_opened": [completion.reasoning_opened]}


def _is_formatted(completion: Completion, predicted: str | None, settings: EvaluationSettings) -> bool:
    check = _FORMATS.get(settings.prompt_style)
    if check is None:
        return predicted is not None
    return check([completion.text], **_opened(completion))[0] == 1.0


def reasoning_logps(teacher: LocalTeacher, pairs: Sequence[tuple[Conversation, str]]) -> list[float | None]:
    """Mean log-probability under the teacher of the reasoning's tokens, in nats; None where there is no reasoning.

    The sampled tokens are not kept, so each completion is encoded whole by the teacher's own tokenizer; the tokens that
    begin inside the reasoning count.

    Args:
        teacher: Sees the original prompt, images included.
        pairs: (prompt, completion).

    Raises:
        ConfigError: the teacher's tokenizer cannot say where a token begins.
    """
    from kepo.models.encoding import tokenizer_of
    from kepo.teachers.base import ScoreRequest

    tokenizer = tokenizer_of(teacher.processor)
    if not tokenizer.is_fast:
        raise ConfigError(f"the teacher's tokenizer ({type(tokenizer).__name__}) is a slow one; use its fast version")
    requests: dict[int, tuple[ScoreRequest, list[int]]] = {}
    for row, (prompt, completion) in enumerate(pairs):
        start, end = reasoning_span(completion)
        encoded = tokenizer(completion, add_special_tokens=False, return_offsets_mapping=True)
        inside = [place for place, (first, _) in enumerate(encoded["offset_mapping"]) if start <= first < end]
        if inside and completion[start:end].strip():
            requests[row] = ScoreRequest(prompt, tuple(encoded["input_ids"])), inside
    scores = teacher.score([request for request, _ in requests.values()])
    means: list[float | None] = [None] * len(pairs)
    for (row, (_, inside)), score in zip(requests.items(), scores, strict=True):
        assert score.token_logps is not None  # they were asked for
        means[row] = float(score.token_logps[inside].float().mean())
    return means
