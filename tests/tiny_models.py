"""Tiny random models with processors, saved as ordinary folders, for the tests of every room.

    folder = build_text_model(tmp_path / "llama", "llama")       # AutoModelForCausalLM, AutoTokenizer
    folder = build_vlm(tmp_path / "llava", "llava")              # AutoModelForImageTextToText, AutoProcessor

Offline and seeded: the same arguments give the same weights. All models share one tokenizer, so that any of them can
teach any other; `vocab_padding` gives one of them a larger embedding than its tokenizer needs, as many published models
have.
Whoever needs a processor that cannot be built with the packages at hand gets `UnavailableHere`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

ARCHITECTURES_TEXT: tuple[str, ...] = ("llama", "qwen3", "gemma2", "gemma3_text")
"""`gemma2` has a softcap on its logits."""

ARCHITECTURES_VLM: tuple[str, ...] = ("llava", "idefics3", "gemma3", "qwen2_5_vl", "qwen3_vl")

PAD, BOS, EOS, IMAGE = "<|pad|>", "<|bos|>", "<|eos|>", "<image>"
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
_IMAGE_MARKS = ("<boi>", "<eoi>", "<|video|>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
SPECIAL_TOKENS: tuple[str, ...] = (PAD, BOS, EOS, IMAGE, *_ROLES, *_IMAGE_MARKS)
TAGS: tuple[str, ...] = ("<think>", "</think>", "<answer>", "</answer>", "<hint>", "</hint>")

IMAGE_SIZE = 16
"""Side in pixels that every processor but Qwen's resizes to; each image then takes 4 image tokens of the prompt."""

_TEXTS = (
    "What does the image show? Give the letter of the right option.",
    "A) MRI B) CT C) X-Ray D) Ultrasound",
    "Reason step by step, then give the result. The right answer is the letter of the option.",
    "What is 12 plus 30? The result is 42.",
)


class UnavailableHere(Exception):  # noqa: N818 - a reason to skip a test, not an error of the code under test
    """A model or processor that the installed packages cannot build; the text says which is missing."""


def _template(image: str) -> str:
    return (
        "{{- bos_token -}}{%- for message in messages -%}{{- '<|' + message['role'] + '|>' -}}"
        "{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}"
        "{%- for part in message['content'] -%}{%- if part['type'] == 'image' -%}{{- '" + image + "' -}}"
        "{%- else -%}{{- part['text'] -}}{%- endif -%}{%- endfor -%}{%- endif -%}{{- eos_token -}}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
    )


CHAT_TEMPLATE = _template(IMAGE)


def build_tokenizer(
    extra_tokens: Sequence[str] = (), *, chat_template: str | None = CHAT_TEMPLATE
) -> PreTrainedTokenizerFast:
    """Byte-level BPE over a few sentences, with ordinary tokens for the tags.

    Args:
        extra_tokens: Learned before everything but the special tokens, so that they shift all other ids: a tokenizer
            of another family.
        chat_template: None for a tokenizer without one.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[*SPECIAL_TOKENS, *extra_tokens],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(_TEXTS, trainer)
    core.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens={
            "image_token": IMAGE,
            "boi_token": "<boi>",
            "eoi_token": "<eoi>",
            "video_token": "<|video|>",
        },
        chat_template=chat_template,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_text_model(
    folder: str | Path,
    architecture: str = "llama",
    *,
    seed: int = 0,
    vocab_padding: int = 0,
    tokenizer: PreTrainedTokenizerFast | None = None,
    hidden_size: int = 32,
) -> Path:
    """Save a random language model of two layers with its tokenizer.

    Args:
        folder: Where to save; made if needed.
        architecture: One of `ARCHITECTURES_TEXT`.
        seed: Decides the weights.
        vocab_padding: Rows of the embedding beyond the tokenizer's.
        tokenizer: Instead of `build_tokenizer()`.
        hidden_size: Width, in two heads.

    Returns:
        `folder` as a path.
    """
    tokenizer = tokenizer or build_tokenizer()
    sizes = {**_text_sizes(tokenizer, vocab_padding), "hidden_size": hidden_size}
    _save(_TEXT_CONFIGS[architecture](sizes), folder, seed)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def build_vlm(
    folder: str | Path, architecture: str = "llava", *, seed: int = 0, vocab_padding: int = 0, hidden_size: int = 32
) -> Path:
    """Save a random vision-language model (tower and decoder of two layers) with its processor.

    Args:
        folder: Where to save; made if needed.
        architecture: One of `ARCHITECTURES_VLM`.
        seed: Decides the weights.
        vocab_padding: Rows of the embedding beyond the tokenizer's.
        hidden_size: Width of the decoder, in two heads.

    Returns:
        `folder` as a path.

    Raises:
        UnavailableHere: The processor needs a package that is not installed.
    """
    tokenizer = build_tokenizer()
    sizes = {**_text_sizes(tokenizer, vocab_padding), "hidden_size": hidden_size}
    config, processor = _VLM_PARTS[architecture](tokenizer, sizes)
    _save(config, folder, seed)
    processor.save_pretrained(folder)
    return Path(folder)


def build_qwen_vl_model(folder: str | Path, architecture: str, *, seed: int = 0) -> Path:
    """Save a random Qwen-VL model without its processor, which needs torchvision; `build_tokenizer()` goes with it."""
    tokenizer = build_tokenizer()
    config = {"qwen2_5_vl": _qwen2_5_vl_config, "qwen3_vl": _qwen3_vl_config}[architecture]
    _save(config(tokenizer, _text_sizes(tokenizer, 0)), folder, seed)
    return Path(folder)


def tiny_image(colour: int = 0, size: int = 2 * IMAGE_SIZE) -> Image:
    """A square RGB image with a gradient; images of different `colour` differ everywhere."""
    import numpy as np
    from PIL import Image as PilImage

    ramp = np.arange(size * size * 3, dtype=np.int64).reshape(size, size, 3)
    return PilImage.fromarray(((ramp * (colour + 1) + 40 * colour) % 256).astype(np.uint8))


def _save(config: PretrainedConfig, folder: str | Path, seed: int) -> None:
    import torch
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = getattr(transformers, config.architectures[0])(config)
        # The usual 0.02 leaves a model this small with almost uniform predictions, in which nothing could go wrong.
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.normal_(0.0, 0.2)
    model.generation_config.pad_token_id = config.get_text_config().pad_token_id
    model.save_pretrained(folder)


def _text_sizes(tokenizer: PreTrainedTokenizerFast, vocab_padding: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer) + vocab_padding,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 1024,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _vision_sizes() -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": IMAGE_SIZE,
    }


def _llama(sizes: dict[str, Any]) -> PretrainedConfig:
    from transformers import LlamaConfig

    return LlamaConfig(**sizes, tie_word_embeddings=False, architectures=["LlamaForCausalLM"])


def _qwen3(sizes: dict[str, Any]) -> PretrainedConfig:
    from transformers import Qwen3Config

    return Qwen3Config(**sizes, head_dim=16, tie_word_embeddings=True, architectures=["Qwen3ForCausalLM"])


def _gemma2(sizes: dict[str, Any]) -> PretrainedConfig:
    from transformers import Gemma2Config

    return Gemma2Config(**sizes, head_dim=16, final_logit_softcapping=3.0, architectures=["Gemma2ForCausalLM"])


def _gemma3_text(sizes: dict[str, Any]) -> PretrainedConfig:
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(**sizes, head_dim=16, sliding_window=64, architectures=["Gemma3ForCausalLM"])


_TEXT_CONFIGS: dict[str, Callable[[dict[str, Any]], PretrainedConfig]] = {
    "llama": _llama,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3_text,
}


def _llava(tokenizer: PreTrainedTokenizerFast, sizes: dict[str, Any]) -> tuple[PretrainedConfig, Any]:
    from transformers import LlavaConfig, LlavaProcessor, Qwen2Config, SiglipImageProcessorPil, SiglipVisionConfig

    config = LlavaConfig(
        vision_config=SiglipVisionConfig(**_vision_sizes(), patch_size=8, vision_use_head=False),
        text_config=Qwen2Config(**sizes, tie_word_embeddings=True),
        image_token_id=tokenizer.image_token_id,
        image_seq_length=4,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
        architectures=["LlavaForConditionalGeneration"],
    )
    processor = LlavaProcessor(
        SiglipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
    )
    return config, processor


def _idefics3(tokenizer: PreTrainedTokenizerFast, sizes: dict[str, Any]) -> tuple[PretrainedConfig, Any]:
    from transformers import Idefics3Config, Idefics3ImageProcessorPil, Idefics3Processor, LlamaConfig

    config = Idefics3Config(
        vision_config={**_vision_sizes(), "patch_size": 4},
        text_config=LlamaConfig(**sizes),
        image_token_id=tokenizer.image_token_id,
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
        architectures=["Idefics3ForConditionalGeneration"],
    )
    edge = {"longest_edge": IMAGE_SIZE}
    images = Idefics3ImageProcessorPil(size=edge, max_image_size=edge, do_image_splitting=False)
    return config, Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=CHAT_TEMPLATE)


def _gemma3(tokenizer: PreTrainedTokenizerFast, sizes: dict[str, Any]) -> tuple[PretrainedConfig, Any]:
    from transformers import (
        Gemma3Config,
        Gemma3ImageProcessorPil,
        Gemma3Processor,
        Gemma3TextConfig,
        SiglipVisionConfig,
    )

    config = Gemma3Config(
        vision_config=SiglipVisionConfig(**_vision_sizes(), patch_size=8, vision_use_head=False),
        text_config=Gemma3TextConfig(**sizes, head_dim=16, sliding_window=64),
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        image_token_index=tokenizer.image_token_id,
        architectures=["Gemma3ForConditionalGeneration"],
    )
    images = Gemma3ImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    return config, Gemma3Processor(images, tokenizer, image_seq_length=4, chat_template=_template("<boi>"))


def _qwen_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    return {
        "image_token_id": tokenizer.image_token_id,
        "video_token_id": tokenizer.video_token_id,
        "vision_start_token_id": tokenizer.boi_token_id,
        "vision_end_token_id": tokenizer.eoi_token_id,
    }


_QWEN_TOWER = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 8}
_QWEN_TOWER |= {"out_hidden_size": 32, "spatial_merge_size": 2}
_QWEN_PIXELS = {"shortest_edge": 32 * 32, "longest_edge": 32 * 32}
_MROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 2, 2]}


def _qwen2_5_vl_config(tokenizer: PreTrainedTokenizerFast, sizes: dict[str, Any]) -> PretrainedConfig:
    from transformers import Qwen2_5_VLConfig

    return Qwen2_5_VLConfig(
        vision_config={**_QWEN_TOWER, "window_size": 32, "fullatt_block_indexes": [1]},
        text_config={**sizes, "rope_parameters": _MROPE},
        architectures=["Qwen2_5_VLForConditionalGeneration"],
        **_qwen_ids(tokenizer),
    )


def _qwen2_5_vl(tokenizer: PreTrainedTokenizerFast, sizes: dict[str, Any]) -> tuple[PretrainedConfig, Any]:
    _need_torchvision("Qwen2_5_VLProcessor")
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessorPil, Qwen2VLVideoProcessor

    images = Qwen2VLImageProcessorPil(size=_QWEN_PIXELS, patch_size=8, merge_size=2)
    videos = Qwen2VLVideoProcessor(size=_QWEN_PIXELS, patch_size=8, merge_size=2)
    processor = Qwen2_5_VLProcessor(images, tokenizer, videos, chat_template=_template("<boi><image><eoi>"))
    return _qwen2_5_vl_config(tokenizer, sizes), processor


def _qwen3_vl_config(tokenizer: PreTrainedTokenizerFast, sizes: dict[str, Any]) -> PretrainedConfig:
    from transformers import Qwen3VLConfig

    return Qwen3VLConfig(
        vision_config={**_QWEN_TOWER, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        text_config={**sizes, "head_dim": 16, "rope_parameters": {**_MROPE, "mrope_interleaved": True}},
        architectures=["Qwen3VLForConditionalGeneration"],
        **_qwen_ids(tokenizer),
    )


def _qwen3_vl(tokenizer: PreTrainedTokenizerFast, sizes: dict[str, Any]) -> tuple[PretrainedConfig, Any]:
    _need_torchvision("Qwen3VLProcessor")
    from transformers import Qwen2VLImageProcessorPil, Qwen3VLProcessor, Qwen3VLVideoProcessor

    images = Qwen2VLImageProcessorPil(size=_QWEN_PIXELS, patch_size=8, merge_size=2)
    videos = Qwen3VLVideoProcessor(size=_QWEN_PIXELS, patch_size=8, merge_size=2)
    processor = Qwen3VLProcessor(images, tokenizer, videos, chat_template=_template("<boi><image><eoi>"))
    return _qwen3_vl_config(tokenizer, sizes), processor


def _need_torchvision(processor: str) -> None:
    if importlib.util.find_spec("torchvision") is None:
        raise UnavailableHere(f"{processor} takes no None for its video processor, and that one imports torchvision")


_VLM_PARTS: dict[str, Callable[[PreTrainedTokenizerFast, dict[str, Any]], tuple[PretrainedConfig, Any]]] = {
    "llava": _llava,
    "idefics3": _idefics3,
    "gemma3": _gemma3,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
}
