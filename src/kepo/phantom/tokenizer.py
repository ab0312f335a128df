"""The tokenizer of PhantomVQA's models: a word of the benchmark, or a whole sentence of our prompts, is one token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kepo.models.tokenizer import train_tokenizer
from kepo.phantom.knowledge import JUDGEMENTS
from kepo.phantom.lessons import DESCRIBE
from kepo.phantom.questions import KINDS
from kepo.phantom.reasoning import VALUES, steps
from kepo.phantom.scene import ATTRIBUTES, TEXTURES
from kepo.prompts import HINT_LEVELS, build_prompt, hint_request, hinted_prompt, prompt_text
from kepo.types import Question, option_letters

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCABULARY = 512
_GAP = "\x00"
_MOST_OPTIONS = 4


def phantom_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that any text can be read and written; a prompt of PhantomVQA takes some 30 tokens."""
    return train_tokenizer((), VOCABULARY, (*prompt_phrases(), *chain_words()))


def prompt_phrases() -> list[str]:
    """What stays the same in every prompt, hinted prompt and hint request, cut where something is filled in."""
    options = (_GAP,) * _MOST_OPTIONS
    question = Question(id="", text=_GAP, answer="A", options=options)
    prompt = build_prompt(question)
    texts = [prompt, hinted_prompt(prompt, _GAP)]
    texts += [
        hint_request(prompt, letter, options, level)
        for letter in option_letters(options)
        for level in range(len(HINT_LEVELS))
    ]
    pieces = [piece for text in texts for piece in prompt_text(text).removeprefix("user: ").split(_GAP)]
    # A blank before what is filled in belongs to the word that follows it.
    phrases = [piece.rstrip(" ") for piece in pieces] + [kind.text for kind in KINDS.values()]
    return [phrase for phrase in dict.fromkeys([*phrases, DESCRIBE]) if phrase.strip()]


def chain_words() -> list[str]:
    """Every word of a chain or a hint, with the blank in front of it and without."""
    names = {name for target in VALUES for name in steps(target)} | set(JUDGEMENTS)
    values = {value for group in (*VALUES.values(), *ATTRIBUTES.values(), TEXTURES.values()) for value in group}
    judged = {value for rules in JUDGEMENTS.values() for rule in rules.values() for value in rule.values()}
    words = {word for text in names | values | judged | {"by", "and"} for word in text.split()}
    return [form for word in sorted(words) for form in (f" {word}", word)]
