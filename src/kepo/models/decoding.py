"""From token ids to the text that rewards, evaluation and hints are read from; which prompts open `<think>`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kepo.rewards.tags import is_read, opens_reasoning
from kepo.types import Conversation, Prompt


def decode(tokenizer: Any, ids: Sequence[Sequence[int]]) -> list[str]:
    """The texts of token ids without special tokens, but with the tags that are read, special tokens or not.

    Some vocabularies hold `<think>` or `<answer>` as special tokens, which `skip_special_tokens` would drop: an answer
    without its tags cannot be found.

    Args:
        tokenizer: Of the model that wrote the ids.
        ids: B sequences of token ids, of any length.
    """
    tags = special_tags(tokenizer)
    if tags:
        dropped = {token for token, text in _special(tokenizer).items() if not is_read(text)}
        ids = [[token for token in map(int, row) if token not in dropped] for row in ids]
    return list(tokenizer.batch_decode(ids, skip_special_tokens=not tags))


def special_tags(tokenizer: Any) -> list[str]:
    """The tags that are read and are special tokens of the vocabulary."""
    return [text for text in _special(tokenizer).values() if is_read(text)]


def _special(tokenizer: Any) -> dict[int, str]:
    added = {token: entry.content for token, entry in tokenizer.added_tokens_decoder.items() if entry.special}
    return {**dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)), **added}


def reasoning_opened(
    processor: Any, prompts: Sequence[Prompt], chat_template_kwargs: Mapping[str, Any] | None = None, **fields: Any
) -> list[bool]:
    """Whether each prompt, as the chat template writes it, ends with an opened `<think>`.

    The templates of DeepSeek-R1 and Qwen3-Thinking end so; a completion then begins inside the reasoning.

    Args:
        processor: The processor, or tokenizer, that renders the prompts.
        prompts: B prompts; plain text is looked at as it is, and so is a last message of the assistant, which the
            completion continues.
        chat_template_kwargs: Variables of the chat template.
        fields: Other arguments of `apply_chat_template`, such as another template.
    """
    return [
        opens_reasoning(_end_of(processor, prompt, {**(chat_template_kwargs or {}), **fields})) for prompt in prompts
    ]


def _end_of(processor: Any, prompt: Prompt, variables: Mapping[str, Any]) -> str:
    if isinstance(prompt, str):
        return prompt
    if not prompt:
        return ""
    last = prompt[-1]
    if last["role"] == "assistant":
        return _text_of(last["content"])
    if processor.chat_template is None and "chat_template" not in variables:
        return ""  # the prompts are written by the user's own code
    rendered: str = processor.apply_chat_template(
        _without_images(prompt, hasattr(processor, "image_processor")),
        add_generation_prompt=True,
        tokenize=False,
        **variables,
    )
    return rendered


def _without_images(prompt: Conversation, as_parts: bool) -> Conversation:
    """The last user's turn as text, in the form the template expects; what stands before decides nothing here."""
    shown = [{**message, "content": _text_of(message["content"])} for message in prompt]
    if as_parts:
        return [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in shown]
    return shown


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content or ())
