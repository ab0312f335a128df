"""Decoding keeps the tags that are read, and the rendered prompt tells whether it opened the reasoning."""

from __future__ import annotations

import pytest

from kepo.models.decoding import decode, reasoning_opened, special_tags
from tests.tiny_models import CHAT_TEMPLATE, TAGS, build_tokenizer

QUESTION = [{"role": "user", "content": "Write <think> </think>, then <answer> </answer>."}]
KIMI = ("◁think▷", "◁/think▷", "<|begin_of_box|>", "<|end_of_box|>")


def _ids(tokenizer, text: str) -> list[int]:
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id, tokenizer.pad_token_id]


@pytest.mark.parametrize("tags", [TAGS, KIMI])
def test_tags_that_are_special_tokens_are_kept_and_no_others(tags: tuple[str, ...]) -> None:
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": [*tags, "<|turn|>"]})
    text = f"{tags[0]}CT 12{tags[1]}\n{tags[2]}A{tags[3]}"
    ids = _ids(tokenizer, text + "<|turn|>")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "CT 12\nA"
    assert decode(tokenizer, [ids, ids[:3]])[0] == text
    assert set(special_tags(tokenizer)) == set(tags)


def test_without_special_tags_decoding_is_the_tokenizers_own() -> None:
    tokenizer = build_tokenizer()
    ids = _ids(tokenizer, "<think>CT</think> <answer>A</answer>")
    assert special_tags(tokenizer) == []
    assert decode(tokenizer, [ids]) == tokenizer.batch_decode([ids], skip_special_tokens=True)


@pytest.mark.parametrize(
    ("end", "opened"),
    [("", False), ("<think>", True), ("<think>\\n", True), ("◁think▷", True), ("<think>\\n\\n</think>\\n\\n", False)],
)
def test_the_end_of_the_rendered_prompt_decides(end: str, opened: bool) -> None:
    template = CHAT_TEMPLATE.replace("'<|assistant|>' -}}", f"'<|assistant|>{end}' -}}}}")
    assert reasoning_opened(build_tokenizer(chat_template=template), [QUESTION]) == [opened]


def test_variables_plain_text_and_prefilled_messages() -> None:
    template = CHAT_TEMPLATE.replace("'<|assistant|>' -}}", "'<|assistant|>' + ('<think>' if deep else '') -}}")
    tokenizer = build_tokenizer(chat_template=template)
    prefilled = [*QUESTION, {"role": "assistant", "content": "Let me see.\n<think>"}]
    prompts = [QUESTION, "Assistant: <think>\n", "Write <think> </think>", prefilled]
    assert reasoning_opened(tokenizer, prompts, {"deep": True}) == [True, True, False, True]
    assert reasoning_opened(tokenizer, prompts, {"deep": False}) == [False, True, False, True]
