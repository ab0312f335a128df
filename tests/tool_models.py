"""A tiny student whose chat template knows reasoning and tools, and a script of what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.tiny_models import EOS, build_text_model, build_tokenizer

_TEMPLATE = (
    "{{- bos_token -}}"
    "{%- if tools -%}<|system|>{%- for tool in tools -%}{{- tool.function.name -}}{%- endfor -%}{{- eos_token -}}"
    "{%- endif -%}"
    "{%- for message in messages -%}{{- '<|' + message['role'] + '|>' -}}"
    "{%- if message.reasoning_content -%}<think>{{- message.reasoning_content -}}</think>{%- endif -%}"
    "{{- message['content'] -}}"
    "{%- for call in message.tool_calls or [] -%}"
    "<tool_call>{{- {'name': call.function.name, 'arguments': call.function.arguments} | tojson -}}</tool_call>"
    "{%- endfor -%}{{- eos_token -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
_RESPONSE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|assistant|>",
    "fields": {
        "reasoning_content": {"open": "<think>", "close": "</think>", "content": "text"},
        "tool_calls": {
            "open": "<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close": EOS, "content": "text"},
    },
}


def build_tool_model(folder: Path) -> str:
    """A random llama whose tokenizer parses reasoning and tool calls out of what it says."""
    tokenizer = build_tokenizer(chat_template=_TEMPLATE)
    tokenizer.response_template = _RESPONSE
    return str(build_text_model(folder, tokenizer=tokenizer))


def says(trainer: Any, script: Callable[[str], str]) -> Callable[..., torch.Tensor]:
    """In the place of the model's `generate`: what `script` says after each text (special tokens included)."""
    tokenizer = trainer.processing_class

    def generate(input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        texts = [script(tokenizer.decode(ids)) for ids in input_ids]
        made = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        longest = max(map(len, made))
        padded = [[*ids, *[tokenizer.pad_token_id] * (longest - len(ids))] for ids in made]
        return torch.cat([input_ids, torch.tensor(padded)], dim=1)

    return generate
