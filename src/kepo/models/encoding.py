"""From prompts and the student's token ids to the tensors of one forward pass, with the teacher's own processor.

Prompts are padded on the left and completions on the right, so that all completions of a batch start in one column.
Completion ids are appended as they are: decoding and tokenizing them again could give other tokens.

Legend: B rows, P padded prompt length, T padded completion length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from kepo.errors import TeacherError
from kepo.prompts import prompt_images, prompt_text
from kepo.types import Conversation, Message, Prompt

# Fields with one entry per token; the completion's entries say "plain text".
_TOKEN_TYPE_FIELDS = ("token_type_ids", "mm_token_type_ids")

# A rough exchange rate, only used to put rows of similar length into one micro-batch.
_CHARACTERS_PER_TOKEN = 4


def load_processor(name: str, processor: Any = None, trust_remote_code: bool = False) -> Any:
    """The processor (of a text model: the tokenizer) at `name`, or `processor` where one is given, ready for padding.

    Raises:
        TeacherError: there is none at `name`.
    """
    from transformers import AutoProcessor

    if processor is None and not name:
        raise TeacherError("The teacher was passed as a model that was not loaded from a folder; pass processor= too.")
    if processor is None:
        try:
            processor = AutoProcessor.from_pretrained(name, trust_remote_code=trust_remote_code, padding_side="left")
        except (OSError, ValueError, ImportError) as error:
            raise TeacherError(
                f"The teacher's processor could not be loaded from {name}: {error} Save its processor or tokenizer "
                "there, or pass processor=."
            ) from error
    tokenizer = tokenizer_of(processor)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # padding is masked, so its token does not matter
    return processor


def encode(
    processor: Any,
    prompts: Sequence[Prompt],
    completions: Sequence[Sequence[int]] | None,
    device: torch.device | str,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Tensors for `model(**inputs)`: prompts left-padded, completions right-padded, multimodal fields included.

    Args:
        processor: A Hugging Face processor, or a tokenizer for a text model.
        prompts: B >= 1 prompts, either all conversations or all plain text.
        completions: One sequence of T_i >= 1 token ids per prompt; None to encode the prompts alone.
        device: Where the tensors go.
        chat_template_kwargs: Variables of the chat template, such as `{"enable_thinking": False}`.

    Returns:
        `input_ids` and `attention_mask` (B, P + T), and what the processor adds for images. The states that predict
        completion tokens 0..T-1 stand in columns P-1..P+T-2.

    Raises:
        TeacherError: a conversation without chat template, images for a text model, or both kinds of prompts at once.
    """
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    conversations = [prompt for prompt in prompts if not isinstance(prompt, str)]
    if texts and conversations:
        raise TeacherError(
            f"{len(texts)} of {len(prompts)} prompts are plain text, the others are conversations; use one kind."
        )
    if texts:
        rendered = processor(text=texts, padding=True, padding_side="left", return_tensors="pt")
    else:
        rendered = _render(processor, conversations, chat_template_kwargs)
    fields = dict(rendered)
    if not sees_images(processor):
        fields = {name: fields[name] for name in ("input_ids", "attention_mask")}
    if completions is not None:
        append_completions(fields, completions, tokenizer_of(processor).pad_token_id)
    return {name: value.to(device) if torch.is_tensor(value) else value for name, value in fields.items()}


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer inside a processor; a tokenizer is its own."""
    return processor.tokenizer if hasattr(processor, "tokenizer") else processor


def sees_images(processor: Any) -> bool:
    """Whether `processor` belongs to a vision-language model."""
    return hasattr(processor, "image_processor")


def micro_batches(
    prompts: Sequence[Prompt],
    lengths: Sequence[int],
    batch_size: int,
    with_images: bool,
    groups: Sequence[int] | None = None,
) -> list[list[int]]:
    """The rows with images, or those without, in lists of at most `batch_size` rows or groups of similar length.

    Args:
        prompts: B prompts.
        lengths: Completion tokens of each row.
        batch_size: Largest list, >= 1.
        with_images: Which rows to take; the two kinds never share a forward pass.
        groups: (B) which rows belong together, and stay so unless they are more than `batch_size`; None: none do.
    """
    members: dict[int, list[int]] = {}
    for row, prompt in enumerate(prompts):
        if bool(prompt_images(prompt)) is with_images:
            members.setdefault(row if groups is None else groups[row], []).append(row)

    def length(group: list[int]) -> int:
        return sum(lengths[row] for row in group) + len(prompt_text(prompts[group[0]])) // _CHARACTERS_PER_TOKEN

    batches: list[list[int]] = []
    for group in sorted(members.values(), key=length):
        for start in range(0, len(group), batch_size):
            part = group[start : start + batch_size]
            if not batches or len(batches[-1]) + len(part) > batch_size:
                batches.append([])
            batches[-1] += part
    return batches


def filler_prompt(with_images: bool) -> Prompt:
    """The least prompt that runs the same modules of a model as a real one."""
    if not with_images:
        return "."
    from PIL import Image

    parts = [{"type": "image", "image": Image.new("RGB", (64, 64))}, {"type": "text", "text": "."}]
    return [{"role": "user", "content": parts}]


def check_chat_template(processor: Any) -> None:
    """Refuse, with a `TeacherError`, a processor without chat template, which cannot render a conversation."""
    if getattr(processor, "chat_template", None) or tokenizer_of(processor).chat_template:
        return
    raise TeacherError(
        f"The teacher's processor ({type(processor).__name__}) has no chat template, so it cannot render a "
        "conversation. Use an instruction-tuned teacher, save a chat_template.jinja in its folder, or, for a teacher "
        "that only scores, use plain-text prompts."
    )


def _render(
    processor: Any, conversations: Sequence[Conversation], chat_template_kwargs: Mapping[str, Any] | None
) -> Mapping[str, Any]:
    check_chat_template(processor)
    multimodal = sees_images(processor)
    as_expected = _as_parts if multimodal else _as_text
    # Processors and tokenizers take the settings of their own call under different names.
    padding: dict[str, Any] = {"padding": True, "tokenizer_kwargs": {"padding_side": "left"}}
    if multimodal:
        padding = {"processor_kwargs": {"padding": True, "padding_side": "left"}}
    rendered: Mapping[str, Any] = processor.apply_chat_template(
        [[as_expected(message) for message in conversation] for conversation in conversations],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        **padding,
        **(chat_template_kwargs or {}),
    )
    return rendered


def _as_parts(message: Message) -> Message:
    """Multimodal templates loop over parts; columnar data gives every part every key, with None where it is absent."""
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": [{"type": "text", "text": content}]}
    parts = [{key: value for key, value in part.items() if value is not None} for part in content]
    return {**message, "content": parts}


def _as_text(message: Message) -> Message:
    """Templates of text models join strings."""
    content = message["content"]
    if isinstance(content, str):
        return message
    other = [part["type"] for part in content if part["type"] != "text"]
    if other:
        raise TeacherError(
            f"A prompt holds a part of type {other[0]!r}, but the teacher is a text model. Use a vision-language "
            "model as teacher, or data without images."
        )
    return {**message, "content": "".join(part["text"] for part in content)}


def replace_prompts(fields: dict[str, Any], prompts: Sequence[Sequence[int]], pad_id: int) -> None:
    """Put other token ids in the place of the prompts in `fields`, in place; the images stay.

    Args:
        fields: Of `encode` without completions, or empty.
        prompts: B sequences of token ids.
        pad_id: Fills them up on the left.
    """
    kinds = {name: _kinds_of_tokens(fields["input_ids"], fields[name]) for name in _TOKEN_TYPE_FIELDS if name in fields}
    longest = max(len(ids) for ids in prompts)
    fields["input_ids"] = torch.tensor([[*[pad_id] * (longest - len(ids)), *ids] for ids in prompts])  # (B, P)
    fields["attention_mask"] = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts])  # (B, P)
    for name, kind_of in kinds.items():
        fields[name] = torch.tensor([[kind_of.get(token, 0) for token in row] for row in fields["input_ids"].tolist()])


def _kinds_of_tokens(ids: torch.Tensor, types: torch.Tensor) -> dict[int, int]:
    """The type of each token that is not plain text: of those that stand for images."""
    special = types > 0
    return dict(zip(ids[special].tolist(), types[special].tolist(), strict=True))


def append_completions(fields: dict[str, Any], completions: Sequence[Sequence[int]], pad_id: int) -> None:
    """Append `completions` to the prompts in `fields`, in place."""
    longest = max(len(ids) for ids in completions)
    padded = torch.tensor([[*ids, *[pad_id] * (longest - len(ids))] for ids in completions])  # (B, T)
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in completions])  # (B, T)
    fields["input_ids"] = torch.cat([fields["input_ids"], padded], dim=1)
    fields["attention_mask"] = torch.cat([fields["attention_mask"], mask], dim=1)
    for name in _TOKEN_TYPE_FIELDS:
        if name in fields:
            fields[name] = torch.cat([fields[name], fields[name].new_zeros(padded.shape)], dim=1)
