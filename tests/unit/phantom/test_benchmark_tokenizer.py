"""PhantomVQA's tokenizer: short prompts, one token a word, nothing lost."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from kepo.phantom.questions import phantom_questions
from kepo.phantom.reasoning import write_hint
from kepo.phantom.tokenizer import VOCABULARY, chain_words, phantom_tokenizer, prompt_phrases
from kepo.prompts import build_prompt, hint_request, hinted_prompt, prompt_text

QUESTIONS = phantom_questions(112, seed=6)
IMAGE_TOKENS = 16


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return phantom_tokenizer()


def test_the_vocabulary_keeps_its_size_and_is_made_the_same_again(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer) <= VOCABULARY
    assert phantom_tokenizer().get_vocab() == tokenizer.get_vocab()


def test_a_chain_takes_one_token_a_word_and_one_a_semicolon(tokenizer: PreTrainedTokenizerFast) -> None:
    for question in QUESTIONS:
        chain = question.metadata["reasoning"]
        expected = len(chain.replace(";", " ;").split())
        assert len(tokenizer(chain)["input_ids"]) == expected, chain


def test_a_prompt_takes_some_thirty_tokens_and_never_more_than_forty(tokenizer: PreTrainedTokenizerFast) -> None:
    lengths = [
        len(tokenizer.apply_chat_template(build_prompt(question), add_generation_prompt=True)["input_ids"])
        for question in QUESTIONS
    ]
    assert max(lengths) + IMAGE_TOKENS <= 40
    assert sum(lengths) / len(lengths) + IMAGE_TOKENS == pytest.approx(29, abs=2)


def test_every_text_of_the_benchmark_comes_back_unchanged(tokenizer: PreTrainedTokenizerFast) -> None:
    for question in QUESTIONS:
        prompt = build_prompt(question)
        for level in range(3):
            hint = write_hint(question.metadata["target"], level, question.metadata["facts"])
            for text in (
                prompt_text(hinted_prompt(prompt, hint)),
                prompt_text(hint_request(prompt, question.answer, question.options, level)),
                f"<hint>{hint}</hint>",
            ):
                assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_an_option_is_the_same_token_in_the_prompt_and_in_a_chain(tokenizer: PreTrainedTokenizerFast) -> None:
    option = tokenizer("\nA) carcinoma\nB) cyst")["input_ids"]
    chain = tokenizer("disease carcinoma")["input_ids"]
    assert chain[-1] in option
    assert tokenizer.decode([chain[-1]]) == " carcinoma"


def test_letters_are_tokens_of_their_own(tokenizer: PreTrainedTokenizerFast) -> None:
    for letter in "ABCD":
        ids = tokenizer(f"<answer>{letter}</answer>")["input_ids"]
        assert len(ids) == 3
        assert ids[1] == tokenizer.convert_tokens_to_ids(letter)


def test_phrases_hold_no_gap_and_no_word_twice() -> None:
    phrases, words = prompt_phrases(), chain_words()
    assert not any("\x00" in phrase for phrase in phrases)
    assert len(set(phrases)) == len(phrases)
    assert len(set(words)) == len(words)
    assert not any(phrase.endswith(" ") for phrase in phrases)
