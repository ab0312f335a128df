"""Prompts: the one place where a question becomes messages, for training and for evaluation alike.

Everything is built as messages. Nothing is edited by replacing text inside a finished prompt and no template is filled
with `str.format`, so braces, quotes and tags inside a question or a hint pass through untouched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, cast, get_args

from kepo.types import Conversation, Message, Prompt, Question, option_letters

PromptStyle: TypeAlias = Literal["think", "answer", "plain"]
"""`think`: reasoning in `<think>`, result in `<answer>`. `answer`: `<answer>` only. `plain`: the bare question."""

PROMPT_STYLES: tuple[str, ...] = get_args(PromptStyle)

_INSTRUCTIONS: dict[tuple[str, bool], str] = {
    ("think", True): (
        "Reason step by step inside <think> </think>, then give the letter of the right option inside "
        "<answer> </answer>."
    ),
    ("think", False): "Reason step by step inside <think> </think>, then give the result inside <answer> </answer>.",
    ("answer", True): "Give only the letter of the right option inside <answer> </answer>.",
    ("answer", False): "Give only the result inside <answer> </answer>.",
}

# Three strengths of hint, weakest first (the levels of Scaf-GRPO, arXiv 2510.19807).
HINT_LEVELS: tuple[str, ...] = (
    "Name the concept or the feature that decides the question, without applying it.",
    "Lay out the plan: what to look at, in which order, and how to weigh it, without drawing the conclusion.",
    "Walk through the reasoning up to the last step, and leave the conclusion to the student.",
)


def question_text(question: Question) -> str:
    """The question followed by its options, one per line, as `A) text`."""
    lines = [question.text]
    lines += [f"{letter}) {text}" for letter, text in zip(question.letters, question.options, strict=True)]
    return "\n".join(lines)


def build_prompt(question: Question, style: PromptStyle = "think") -> Conversation:
    """The conversation a policy is asked `question` with; its images travel beside it, one placeholder each.

    TRL (and the evaluation) put the images of the row in front of the first user message, so the text alone is the
    content here.

    Raises:
        ValueError: `style` is not one of `PROMPT_STYLES`.
    """
    if style not in PROMPT_STYLES:
        raise ValueError(f"prompt style {style!r} is unknown; use one of {', '.join(PROMPT_STYLES)}")
    text = question_text(question)
    if style != "plain":
        text = f"{text}\n{_INSTRUCTIONS[style, bool(question.options)]}"
    return [{"role": "user", "content": text}]


def style_of(prompt: Prompt) -> PromptStyle | None:
    """The style that a prompt asks for in the words of `build_prompt`; None where it has none of them.

    A prompt of the style "plain" has none of them either.
    """
    users = [] if isinstance(prompt, str) else [message for message in prompt if message["role"] == "user"]
    text = prompt if isinstance(prompt, str) else message_text(users[-1]) if users else ""
    style, _ = _split_instruction(text)
    return style


def question_in(text: str, options: Sequence[str] = ()) -> str:
    """The question alone in a prompt in the form of `build_prompt`; a text of another form as it is.

    Args:
        text: Of the prompt.
        options: Option texts in order; empty for an open question.
    """
    _, text = _split_instruction(text)
    lines = [f"{letter}) {option}" for letter, option in zip(option_letters(options), options, strict=True)]
    return text.removesuffix("\n" + "\n".join(lines)) if lines else text


def _split_instruction(text: str) -> tuple[PromptStyle | None, str]:
    """The style whose instruction ends `text`, and what stands in front of it; (None, `text`) where none does."""
    text = text.rstrip()
    for (style, _), instruction in _INSTRUCTIONS.items():
        if text.endswith(instruction):
            return cast("PromptStyle", style), text.removesuffix(instruction).rstrip()
    return None, text


def hint_request(prompt: Prompt, answer: str, options: Sequence[str] = (), level: int = 1) -> Conversation:
    """What the teacher is asked: image, question and ground truth in, one `<hint>` out.

    Args:
        prompt: The student's original prompt, images included.
        answer: Ground truth: the option's letter, or free text.
        options: Option texts in order; empty for an open question.
        level: Index into `HINT_LEVELS`.

    Raises:
        ValueError: `level` is outside `HINT_LEVELS`.
    """
    if not 0 <= level < len(HINT_LEVELS):
        raise ValueError(f"hint level {level} is outside 0..{len(HINT_LEVELS) - 1}")
    letters = option_letters(options)
    shown = answer
    forbidden = "the answer itself"
    if options and answer in letters:
        shown = f"{answer}) {options[letters.index(answer)]}"
        forbidden = "the letter or the text of any option"
    instruction = (
        "A student cannot solve the task above. Write a short hint that helps the student to find the answer alone. "
        f"{HINT_LEVELS[level]} Do not state {forbidden}. "
        "Write the hint inside <hint> </hint> and nothing else."
    )
    return _with_text(prompt, f"The right answer is: {shown}", instruction)


def hint_request_again(request: Conversation, leaked: str) -> Conversation:
    """`request` after an answer that leaked: a greedy teacher, asked the same again, would only repeat itself.

    Args:
        request: What `hint_request` made; its last message is the teacher's task.
        leaked: The hint that gave the answer away.
    """
    complaint = (
        "This hint gives the answer away. Write another one that states neither the answer nor its letter, inside "
        "<hint> </hint> and nothing else."
    )
    last = request[-1]
    if last["role"] != "user":
        return request

    def content(text: str) -> Any:
        return text if isinstance(last["content"], str) else [{"type": "text", "text": text}]

    return [
        *request,
        {"role": "assistant", "content": content(f"<hint>{leaked}</hint>")},
        {"role": "user", "content": content(complaint)},
    ]


def hinted_prompt(prompt: Prompt, hint: str) -> Prompt:
    """A copy of `prompt` with `hint` added to its last user message, and the request not to mention it."""
    silently = "Use the hint silently: reason as if you had found it yourself and do not mention that there was a hint."
    addition = f"Hint: {hint}\n{silently}"
    if isinstance(prompt, str):
        return f"{prompt}\n\n{addition}\n\n"
    return _with_text(prompt, addition)


def _with_text(prompt: Prompt, *paragraphs: str) -> Conversation:
    """A copy of the conversation with `paragraphs` at the end of its last user message."""
    addition = "\n\n".join(paragraphs)
    if isinstance(prompt, str):
        return [{"role": "user", "content": f"{prompt}\n\n{addition}"}]
    users = [index for index, message in enumerate(prompt) if message["role"] == "user"]
    if not users:
        return [*prompt, {"role": "user", "content": addition}]
    last = users[-1]
    return [*prompt[:last], _extend(prompt[last], addition), *prompt[last + 1 :]]


def _extend(message: Message, addition: str) -> Message:
    content: Any = message["content"]
    if isinstance(content, str):
        return {**message, "content": f"{content}\n\n{addition}"}
    return {**message, "content": [*content, {"type": "text", "text": f"\n\n{addition}"}]}


def prompt_images(prompt: Prompt) -> list[Any]:
    """The images of a prompt, in their order."""
    if isinstance(prompt, str):
        return []
    parts = [part for message in prompt if isinstance(message["content"], list) for part in message["content"]]
    return [part["image"] for part in parts if part["type"] == "image"]


def prompt_text(prompt: Prompt) -> str:
    """The prompt as readable text, for logs: `role: text`, images as `[image]`."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message['role']}: {message_text(message)}" for message in prompt)


def message_text(message: Message) -> str:
    """The text of one message, images as `[image]`."""
    content: Any = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part["text"] if part["type"] == "text" else f"[{part['type']}]" for part in content)
