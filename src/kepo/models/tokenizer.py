"""A small tokenizer of one's own, for models that are trained from scratch.

Byte-level BPE, so that every text can be encoded and comes back unchanged, whatever it was trained on. The tags of
this package's prompts are single, ordinary tokens: they survive `decode(..., skip_special_tokens=True)`, which is how
rewards and evaluation read a completion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kepo.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, IMAGE = "<|pad|>", "<|bos|>", "<|eos|>", "<|image|>"
ROLES = ("system", "user", "assistant")
SPECIAL_TOKENS: tuple[str, ...] = (PAD, BOS, EOS, IMAGE, *(f"<|{role}|>" for role in ROLES))
"""Never part of a completion's text; ids 0, 1, 2, ... in this order."""

TAGS: tuple[str, ...] = tuple(f"<{slash}{name}>" for name in ("think", "answer", "hint") for slash in ("", "/"))
"""One ordinary token each."""

SMALLEST_VOCABULARY = len(SPECIAL_TOKENS) + len(TAGS) + 256

# Content is a string or a list of parts, as in Hugging Face's multimodal templates. Every turn ends with the
# end-of-sequence token, so that generation stops where a turn of the training data did.
CHAT_TEMPLATE = (
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] not in " + repr(list(ROLES)) + " -%}"
    "{{- raise_exception('unknown role ' + message['role'] + '; use system, user or assistant') -}}"
    "{%- endif -%}"
    "{{- '<|' + message['role'] + '|>' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{{- '" + IMAGE + "' -}}"
    "{%- elif part['type'] == 'text' -%}{{- part['text'] -}}"
    "{%- else -%}{{- raise_exception('unknown part ' + part['type'] + '; use text or image') -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{{- eos_token -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def train_tokenizer(
    texts: Iterable[str], vocab_size: int = 1024, phrases: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with the special tokens, tags and chat template of this module.

    The same texts give the same tokenizer. Single characters of ASCII, the option letters among them, are always
    tokens, and the pattern that splits words keeps a letter apart from the `)`, `<` or `>` beside it.

    Args:
        texts: What to learn merges from; none are needed for the tokenizer to work, only for short sequences.
        vocab_size: Most tokens to have, all included. Fewer come out when the texts hold nothing more to merge.
        phrases: Texts that are one ordinary token each, as the tags are: what every prompt repeats word for word need
            not cost a small model thirty tokens.

    Returns:
        A tokenizer whose ids run from 0 to `len(tokenizer) - 1`.

    Raises:
        ConfigError: `vocab_size` has no room for the 256 bytes, the special tokens, the tags and the phrases.
    """
    whole = (*phrases, *TAGS)
    smallest = SMALLEST_VOCABULARY + len(phrases)
    if vocab_size < smallest:
        raise ConfigError(f"vocab_size = {vocab_size} is too small; the bytes, tags and phrases need {smallest}")
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(whole),
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(_without(texts, (*whole, *SPECIAL_TOKENS)), trainer)
    core.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in whole])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens={"image_token": IMAGE},
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _without(texts: Iterable[str], whole: Sequence[str]) -> Iterable[str]:
    """The texts with a line break for every token of `whole`: its pieces are not worth a merge."""
    for text in texts:
        for token in whole:
            text = text.replace(token, "\n")
        yield text
