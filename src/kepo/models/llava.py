"""A vision-language model of 1 to 3 million parameters, untrained, in the LLaVA architecture.

Small enough to be trained on a laptop's CPU within minutes, yet an ordinary folder to everything that loads it: SigLIP
tower, two-layer projector, Qwen2 decoder, a processor, a chat template and a tokenizer trained on the questions that
it will be asked. It starts knowing nothing; supervised training has to come before reinforcement learning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from kepo.errors import ConfigError
from kepo.models.folder import model_folder
from kepo.models.tokenizer import IMAGE, train_tokenizer
from kepo.prompts import HINT_LEVELS, PromptStyle, build_prompt, hint_request, hinted_prompt, prompt_text
from kepo.types import Question

if TYPE_CHECKING:
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

Size: TypeAlias = Literal["student", "teacher"]


@dataclass(frozen=True, slots=True)
class LlavaSize:
    """Widths (multiples of 32, the width of a head) and numbers of blocks of image tower and decoder."""

    vision_width: int
    vision_layers: int
    text_width: int
    text_layers: int


SIZES: dict[str, LlavaSize] = {
    "student": LlavaSize(vision_width=96, vision_layers=2, text_width=128, text_layers=4),
    "teacher": LlavaSize(vision_width=128, vision_layers=3, text_width=192, text_layers=5),
}
"""`student`: 1.3 million parameters with a vocabulary of 1024. `teacher`: 3.3 million."""

_HEAD_WIDTH = 32
_MAX_LENGTH = 1024
# Matching an option's text to its letter is the slow part of training from scratch. Initial weights wider than the 0.02
# of large models and rotary positions with a short period (the usual base is 10,000) make it emerge in half the steps.
_INIT_STD = 0.1
_ROPE_BASE = 100.0


def build_llava(
    out: Path,
    questions: Sequence[Question],
    *,
    size: Size | LlavaSize = "student",
    tokenizer_from: Path | None = None,
    image_size: int = 48,
    patch_size: int = 12,
    vocab_size: int = 1024,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Write an untrained model with processor and tokenizer to `out`; the same arguments give the same bytes.

    Args:
        out: Folder to write; made whole or not at all.
        questions: What the tokenizer is trained on; not looked at when `tokenizer_from` is given.
        size: A key of `SIZES`, or widths and depths of your own.
        tokenizer_from: Folder of a model whose tokenizer is taken over, so that a teacher's token ids mean the same.
        image_size: Side of the square that every image is resized to, in pixels.
        patch_size: Side of a patch in pixels; an image takes (image_size / patch_size)^2 tokens of the prompt.
        vocab_size: Most tokens of the vocabulary.
        seed: Decides the initial weights.
        overwrite: Replace a model that `out` already holds.

    Raises:
        ConfigError: a size that is unknown or does not divide, no questions, or a folder that may not be written or
            has no suitable tokenizer.
    """
    if not isinstance(size, LlavaSize) and size not in SIZES:
        raise ConfigError(f"size {size!r} is unknown; use one of {', '.join(get_args(Size))}")
    if patch_size < 1 or image_size < patch_size or image_size % patch_size:
        raise ConfigError(f"image_size = {image_size} is not a multiple of patch_size = {patch_size}")
    if tokenizer_from is None and not questions:
        raise ConfigError("there are no questions to train a tokenizer on; give some, or tokenizer_from")
    with model_folder(out, overwrite=overwrite) as folder:
        if tokenizer_from is None:
            tokenizer = train_tokenizer(tokenizer_texts(questions), vocab_size)
        else:
            tokenizer = load_tokenizer(tokenizer_from)
        widths = size if isinstance(size, LlavaSize) else SIZES[size]
        _model(_config(widths, tokenizer, image_size, patch_size), seed).save_pretrained(folder)
        _processor(tokenizer, image_size, patch_size).save_pretrained(folder)
    return Path(out)


def tokenizer_texts(questions: Sequence[Question]) -> Iterator[str]:
    """Every text that a model meets when it is trained on `questions`, each once, in a fixed order.

    Prompts in every style, hint requests of every level, hinted prompts, option texts and answers.
    """
    yield from dict.fromkeys(text for question in questions for text in _texts_of(question))


def _texts_of(question: Question) -> Iterator[str]:
    for style in get_args(PromptStyle):
        yield prompt_text(build_prompt(question, style))
    prompt = build_prompt(question)
    for level in range(len(HINT_LEVELS)):
        yield prompt_text(hint_request(prompt, question.answer, question.options, level))
    yield prompt_text(hinted_prompt(prompt, question.answer_text))
    yield from question.options
    yield question.answer_text


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a model folder that `build_llava` (or `train_tokenizer`) wrote; a ConfigError for others."""
    from transformers import PreTrainedTokenizerFast

    if not (Path(folder) / "tokenizer.json").is_file():
        raise ConfigError(f"{folder} has no tokenizer.json; tokenizer_from is the folder of a model built before")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))
    if IMAGE not in tokenizer.get_vocab() or tokenizer.chat_template is None:
        raise ConfigError(f"the tokenizer of {folder} has no {IMAGE} token or no chat template; use a model built here")
    return tokenizer


def _config(size: LlavaSize, tokenizer: PreTrainedTokenizerFast, image_size: int, patch_size: int) -> LlavaConfig:
    from transformers import LlavaConfig, Qwen2Config, SiglipVisionConfig

    vision = SiglipVisionConfig(
        hidden_size=size.vision_width,
        intermediate_size=4 * size.vision_width,
        num_hidden_layers=size.vision_layers,
        num_attention_heads=size.vision_width // _HEAD_WIDTH,
        image_size=image_size,
        patch_size=patch_size,
        vision_use_head=False,
    )
    heads = size.text_width // _HEAD_WIDTH
    special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=size.text_width,
        intermediate_size=3 * size.text_width,
        num_hidden_layers=size.text_layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=_MAX_LENGTH,
        initializer_range=_INIT_STD,
        rope_parameters={"rope_type": "default", "rope_theta": _ROPE_BASE},
        tie_word_embeddings=True,
        **special,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(image_size // patch_size) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
        **special,
    )


def _model(config: LlavaConfig, seed: int) -> LlavaForConditionalGeneration:
    """Fresh weights from `seed`, without touching the caller's random state."""
    import torch
    from transformers import GenerationConfig, LlavaForConditionalGeneration

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    # An image token inside a completion would ask for an image that is not there, so it can never be generated.
    model.generation_config = GenerationConfig(
        pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        suppress_tokens=[config.image_token_id],
    )
    return model


def _processor(tokenizer: PreTrainedTokenizerFast, image_size: int, patch_size: int) -> LlavaProcessor:
    # The PIL backend: torchvision may be absent, and both must see the same pixels.
    from transformers import LlavaProcessor
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    side = {"height": image_size, "width": image_size}
    return LlavaProcessor(
        SiglipImageProcessorPil(size=side),
        tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="full",
        chat_template=tokenizer.chat_template,
        image_token=IMAGE,
    )
