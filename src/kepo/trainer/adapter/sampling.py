"""Completions beside TRL's batch: sampled by TRL's own generation, and written ones in the form of its rollouts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from trl.chat_template_utils import parse_response

from kepo.types import Message


@contextmanager
def beside_the_batch(trainer: Any, count: int) -> Iterator[None]:
    """While it is open, TRL's `_generate` samples one completion for each of `count` prompts, outside its metrics."""
    state: dict[str, Any] = {"num_generations": 1, "_metrics": {mode: defaultdict(list) for mode in trainer._metrics}}
    if trainer.tools:  # one entry for each prompt; they are all alike where no environment has tools of its own
        state["_sync_tool_dicts"] = trainer._sync_tool_dicts[:1] * count
        state["_async_tool_dicts"] = trainer._async_tool_dicts[:1] * count
    before = {name: getattr(trainer, name) for name in state}
    tokens_seen = trainer.state.num_input_tokens_seen
    vars(trainer).update(state)
    try:
        yield
    finally:
        vars(trainer).update(before)
        trainer.state.num_input_tokens_seen = tokens_seen


def parsed(
    tokenizer: Any, completion_ids: Sequence[int], prompt_ids: Sequence[int], tools: Sequence[Any]
) -> list[Message] | None:
    """A completion of a conversation as TRL parses its rollouts; None where it takes the text as it is."""
    # Versions of transformers have one of the two, or both.
    if getattr(tokenizer, "response_template", None) is None and getattr(tokenizer, "response_schema", None) is None:
        return None
    return [parse_response(tokenizer, list(completion_ids), prefix=list(prompt_ids), tools=list(tools))]
