"""The tokenizer loses nothing, keeps the tags, and renders conversations."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from kepo.errors import ConfigError
from kepo.models.tokenizer import SMALLEST_VOCABULARY, SPECIAL_TOKENS, TAGS, train_tokenizer

TEXTS = ["Which organ is this?\nA) liver\nB) spleen", "Which organ is bright?\nA) spleen\nB) liver"]

ANY_TEXT = [
    "",
    " leading and trailing  ",
    "tabs\tand\r\nline\n\n\nbreaks",
    "naïve Überraschung, 肝臓, печень, كبد, 🫀👩🏽‍⚕️",
    "a zero \u0000 byte, a soft\u00adhyphen, e\u0301 against \u00e9, \ufb01 against fi",
    "{braces} %s {{ jinja }} don 't , ok ?",
    "<think>12 mm</think>\n<answer>B</answer><hint>look</hint>",
    "<|image|> in the middle of <|eos|>",
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 320)


@pytest.mark.parametrize("text", ANY_TEXT)
def test_any_text_comes_back_unchanged(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_tags_are_one_token_each_and_survive_skipping(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "<think>spleen</think><answer>B</answer><hint>x</hint>"
    ids = tokenizer(text)["input_ids"]
    assert [len(tokenizer(tag)["input_ids"]) for tag in TAGS] == [1] * 6
    assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == text


def test_special_tokens_come_first_and_are_skipped(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(len(SPECIAL_TOKENS)))
    assert tokenizer.decode(range(len(SPECIAL_TOKENS)), skip_special_tokens=True) == ""
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.image_token == "<|image|>"


@pytest.mark.parametrize("letter", "ABCDEFGH")
def test_an_option_letter_is_the_same_token_in_the_option_and_in_the_answer(
    tokenizer: PreTrainedTokenizerFast, letter: str
) -> None:
    option = tokenizer(f"?\n{letter}) liver")["input_ids"]
    answer = tokenizer(f"<answer>{letter}</answer>")["input_ids"]
    assert len(answer) == 3
    assert answer[1] in option


def test_frequent_words_become_short_and_the_size_is_kept() -> None:
    small = train_tokenizer(TEXTS, SMALLEST_VOCABULARY + 3)
    large = train_tokenizer(TEXTS, 1024)
    assert len(small) == SMALLEST_VOCABULARY + 3
    assert len(large) < 1024, "two sentences hold fewer merges than that"
    assert len(large(" spleen")["input_ids"]) == 1 < len(small(" spleen")["input_ids"])


def test_tags_in_the_texts_cost_no_merges() -> None:
    tagged = [f"<answer>{text}<answer>" for text in TEXTS]
    assert "answer" in train_tokenizer([text.replace("<", "").replace(">", " ") for text in tagged], 1024).get_vocab()
    assert "answer" not in train_tokenizer(tagged, 1024).get_vocab()


def test_training_is_deterministic_and_survives_saving(tmp_path: Path) -> None:
    first, second = train_tokenizer(TEXTS, 400), train_tokenizer(iter(TEXTS), 400)
    assert first.get_vocab() == second.get_vocab()
    first.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = ANY_TEXT[6]
    assert again(text)["input_ids"] == first(text)["input_ids"]
    assert again.decode(again(text)["input_ids"], skip_special_tokens=True) == text
    assert again.image_token == "<|image|>"
    assert again.chat_template == first.chat_template


def test_too_small_a_vocabulary_is_refused() -> None:
    with pytest.raises(ConfigError, match=f"vocab_size = 100 .* need {SMALLEST_VOCABULARY}"):
        train_tokenizer(TEXTS, 100)


def test_template_renders_strings_parts_and_the_generation_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "  Which {organ}?\n"}]},
    ]
    prompt = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    assert prompt == "<|bos|><|system|>Be brief.<|eos|><|user|><|image|>  Which {organ}?\n<|eos|><|assistant|>"
    answer = {"role": "assistant", "content": "<answer>A</answer>"}
    whole = tokenizer.apply_chat_template([*conversation, answer], tokenize=False)
    assert whole == prompt + "<answer>A</answer><|eos|>"


def test_rendered_conversation_has_one_bos(tokenizer: PreTrainedTokenizerFast) -> None:
    text = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert tokenizer(text)["input_ids"].count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize(
    "message",
    [{"role": "tool", "content": "x"}, {"role": "user", "content": [{"type": "audio"}]}],
    ids=["role", "part"],
)
def test_template_refuses_what_it_cannot_say(tokenizer: PreTrainedTokenizerFast, message: dict) -> None:
    with pytest.raises(TemplateError, match="unknown"):
        tokenizer.apply_chat_template([message], tokenize=False)


# --- phrases ---------------------------------------------------------------------------------------------------------

PHRASES = ("Reason step by step.", " liver", "\nA)")


@pytest.fixture(scope="module")
def with_phrases() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 400, PHRASES)


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_phrase_is_one_ordinary_token_wherever_it_stands(with_phrases: PreTrainedTokenizerFast, phrase: str) -> None:
    ids = with_phrases(f"the{phrase}<think>")["input_ids"]
    assert [i for i in ids if with_phrases.decode([i]) == phrase] == [with_phrases.convert_tokens_to_ids(phrase)]
    assert with_phrases.decode(ids, skip_special_tokens=True) == f"the{phrase}<think>"


@pytest.mark.parametrize("text", [*ANY_TEXT, "Reason step by step", "reason step by step.", "a liver\nA) liver"])
def test_any_text_comes_back_unchanged_with_phrases_too(with_phrases: PreTrainedTokenizerFast, text: str) -> None:
    assert with_phrases.decode(with_phrases(text)["input_ids"]) == text


def test_phrases_cost_no_merges_and_must_fit_into_the_vocabulary() -> None:
    smallest = SMALLEST_VOCABULARY + len(PHRASES)
    assert len(train_tokenizer(TEXTS, smallest, PHRASES)) == smallest
    with pytest.raises(ConfigError, match=f"bytes, tags and phrases need {smallest}"):
        train_tokenizer(TEXTS, smallest - 1, PHRASES)
