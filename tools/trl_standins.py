"""Stand-ins for what TRL's tests load from the hub: tiny random models in a hub cache, and data sets made here.

The models lie in the layout of the hub's own cache, so nothing that loads them is patched: with `HF_HUB_CACHE` set to
the folder and `HF_HUB_OFFLINE=1`, their hub names load.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
import trl
from datasets import Dataset, DatasetDict, Features, Image, IterableDatasetDict, List, Value
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PretrainedConfig, PreTrainedTokenizerFast

OWNER = "trl-internal-testing"
_REVISION = "0" * 40

# What the tests write down as token ids of Qwen's tokenizer, with its text. Its 256 bytes have the ids 0 to 255 here
# too; a vocabulary of 151,936 would make the tests slow, so ids of four digits and more are mapped to smaller ones.
_PIECES = {
    293: " b", 314: " {", 330: ' "', 397: ">\n", 411: "out", 450: "dec", 497: '",', 522: "</", 606: "name", 788: '":',
    894: " any", 927: "sh", 944: "'t", 1318: "text", 1414: " know", 1513: " don", 2765: " won", 4913: '{"',
    5212: ' {"', 5392: " tool", 6023: "hi", 6659: "call", 7692: "async", 9520: "step", 11248: "}}\n", 13477: "rement",
    14172: "tool", 16252: " increment", 16370: "arguments", 17453: "Done", 22785: "ly_tool", 35744: "increment",
    64648: "multip", 93054: "_multip", 95642: '"}}\n',
}  # fmt: skip
_SPECIAL = {
    151643: "<|endoftext|>", 151644: "<|im_start|>", 151645: "<|im_end|>", 151652: "<|vision_start|>",
    151653: "<|vision_end|>", 151655: "<|image_pad|>", 151656: "<|video_pad|>", 151700: "<image>", 151701: "<boi>",
    151702: "<eoi>",
}  # fmt: skip
_ADDED = {
    151657: "<tool_call>", 151658: "</tool_call>", 151665: "<tool_response>", 151666: "</tool_response>",
    151667: "<think>", 151668: "</think>",
}  # fmt: skip
_LARGE = sorted(number for number in _PIECES | _SPECIAL | _ADDED if number >= 1000)
_SMALL = {number: 1000 + place for place, number in enumerate(_LARGE)}
_PAD, _END, _IMAGE, _IMAGE_BEGIN, _IMAGE_END = (_SMALL[number] for number in (151643, 151645, 151700, 151701, 151702))
_IMAGE_SIDE = 16

_SIZES: dict[str, Any] = {
    "vocab_size": 2048,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 8192,
    "pad_token_id": _PAD,
    "bos_token_id": _PAD,
    "eos_token_id": _END,
}
_HEADS: dict[str, Any] = {"head_dim": 8}
_EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 8}

# Hub name -> architecture, fields beside the sizes, chat template of TRL's.
_TEXT: dict[str, tuple[str, dict[str, Any], str]] = {
    "tiny-Qwen2ForCausalLM-2.5": ("Qwen2ForCausalLM", {}, "qwen2_5"),
    "tiny-Qwen3ForCausalLM": ("Qwen3ForCausalLM", _HEADS, "qwen3"),
    "tiny-Qwen3MoeForCausalLM": ("Qwen3MoeForCausalLM", {**_HEADS, **_EXPERTS, "num_experts": 4}, "qwen3"),
    "tiny-LlamaForCausalLM-3.2": ("LlamaForCausalLM", {}, "llama3_2"),
    "tiny-MistralForCausalLM-0.2": ("MistralForCausalLM", {}, "qwen2_5"),
    "tiny-Gemma2ForCausalLM": ("Gemma2ForCausalLM", _HEADS, "gemma"),
    "tiny-Cohere2ForCausalLM": ("Cohere2ForCausalLM", {}, "cohere2"),
    "tiny-Glm4MoeForCausalLM": (
        "Glm4MoeForCausalLM",
        {**_HEADS, **_EXPERTS, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
        "glm4moe",
    ),
    "tiny-GptOssForCausalLM": (
        "GptOssForCausalLM",
        {**_HEADS, "num_local_experts": 4, "num_experts_per_tok": 2},
        "gptoss",
    ),
    "tiny-Qwen2ForSequenceClassification-2.5": ("Qwen2ForSequenceClassification", {"num_labels": 1}, "qwen2_5"),
    "tiny-Qwen3ForSequenceClassification": ("Qwen3ForSequenceClassification", {**_HEADS, "num_labels": 1}, "qwen3"),
    "tiny-LlamaForSequenceClassification-3.2": ("LlamaForSequenceClassification", {"num_labels": 1}, "llama3_2"),
}
_REMOTE = "tiny-RemoteForCausalLM"
_REMOTE_CODE = """from transformers import Qwen2Config, Qwen2ForCausalLM


class RemoteConfig(Qwen2Config):
    model_type = "remote"


class RemoteForCausalLM(Qwen2ForCausalLM):
    config_class = RemoteConfig
"""


def build_hub(cache: Path, texts: Sequence[str] = tuple(_TEXT)) -> None:
    """Write the models that are not there yet into the hub cache `cache`; of those that read text alone `texts`."""
    tokenizer = _tokenizer()
    for name in texts:
        architecture, fields, template = _TEXT[name]
        config = _config(architecture, {**_SIZES, **fields})
        _write(cache, name, config, lambda folder, t=template: _with_template(tokenizer, t).save_pretrained(folder))
    _write(cache, _REMOTE, _config("Qwen2ForCausalLM", _SIZES), lambda folder: _remote(folder, tokenizer))
    for name, (config, processor) in _vision_language(tokenizer).items():
        _write(cache, name, config, processor.save_pretrained)


def with_small_ids(tests: str) -> str:
    """The source of tests with the token ids that they write down mapped to those of the stand-ins."""
    return re.sub(r"(?<![\w.-])\d{4,6}(?![\w.])", lambda found: str(_SMALL.get(int(found[0]), found[0])), tests)


def load_dataset(path: str, name: str | None = None, *, split: str | None = None, streaming: bool = False) -> Any:
    """In the place of `datasets.load_dataset`: two rows to train on and two to test on, of TRL's form.

    Raises:
        ValueError: Another data set than TRL's `zen`, `zen-image` and `zen-multi-image`, or a configuration of it that
            GRPO is not trained on.
    """
    images = {f"{OWNER}/zen": 0, f"{OWNER}/zen-image": 1, f"{OWNER}/zen-multi-image": 2}.get(path)
    if images is None or name not in ("standard_prompt_only", "conversational_prompt_only"):
        raise ValueError(f"There is no stand-in for the data set {path!r}, {name!r}.")
    conversational = name == "conversational_prompt_only"
    sizes = {"train": 2, "test": 2}
    splits = DatasetDict({part: _rows(rows, conversational, images) for part, rows in sizes.items()})
    if streaming:
        made: Any = IterableDatasetDict({part: rows.to_iterable_dataset() for part, rows in splits.items()})
    else:
        made = splits
    return made if split is None else made[split]


def _rows(count: int, conversational: bool, images: int) -> Dataset:
    texts = [f"What comes after the number {row}, and why?" for row in range(count)]
    prompts: list[Any] = [[{"role": "user", "content": text}] for text in texts] if conversational else list(texts)
    if not images:
        return Dataset.from_dict({"prompt": prompts})
    from PIL import Image as PilImage

    pictures = [
        [PilImage.new("RGB", (32, 32), (40 * row, 90, 30 * i)) for i in range(1, images + 1)] for row in range(count)
    ]
    message = List({"role": Value("string"), "content": Value("string")})
    features = {"prompt": message, **({"image": Image()} if images == 1 else {"images": List(Image())})}
    column = {"image": [row[0] for row in pictures]} if images == 1 else {"images": pictures}
    return Dataset.from_dict({"prompt": prompts, **column}, features=Features(features))


def _tokenizer() -> PreTrainedTokenizerFast:
    """Bytes at their ids in Qwen's tokenizer, and no merges; the written-down pieces are there to be decoded."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate(alphabet)}
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = {_SMALL.get(number, number): text for number, text in _PIECES.items()}
    vocabulary |= {level.pre_tokenize_str(text)[0][0]: number for number, text in pieces.items()}
    vocabulary |= {text: _SMALL[number] for number, text in (_SPECIAL | _ADDED).items()}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = level
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in _SPECIAL.values()])
    core.add_tokens([AddedToken(text, special=False, normalized=False) for text in _ADDED.values()])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens={"image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>"},
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _with_template(tokenizer: Any, template: str) -> Any:
    """The tokenizer with a chat template that TRL knows by its text."""
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / f"{template}.jinja").read_text()
    return tokenizer


def _config(architecture: str, fields: dict[str, Any]) -> PretrainedConfig:
    config_class: Any = getattr(transformers, architecture).config_class
    made: PretrainedConfig = config_class(**fields, architectures=[architecture])
    return made


def _write(cache: Path, name: str, config: PretrainedConfig, save_rest: Callable[[Path], Any]) -> None:
    """Save a random model under its hub name."""
    repository = cache / f"models--{OWNER}--{name}"
    folder, reference = repository / "snapshots" / _REVISION, repository / "refs" / "main"
    if reference.exists():
        return
    torch.manual_seed(0)
    model = getattr(transformers, config.architectures[0])(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0.0, 0.2)
    model.save_pretrained(folder)
    save_rest(folder)
    reference.parent.mkdir(parents=True)
    reference.write_text(_REVISION)


def _remote(folder: Path, tokenizer: Any) -> None:
    """Turn a saved Qwen2 into a model whose code comes with it."""
    _with_template(tokenizer, "qwen2_5").save_pretrained(folder)
    (folder / "modeling_remote.py").write_text(_REMOTE_CODE)
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "modeling_remote.RemoteConfig", "AutoModelForCausalLM": "modeling_remote.RemoteForCausalLM"}
    config |= {"model_type": "remote", "architectures": ["RemoteForCausalLM"], "auto_map": code}
    (folder / "config.json").write_text(json.dumps(config))


def _vision_language(tokenizer: Any) -> dict[str, tuple[PretrainedConfig, Any]]:
    """Those whose processors need no torchvision."""
    tower = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    tower |= {"image_size": _IMAGE_SIDE, "patch_size": 8}
    side = {"height": _IMAGE_SIDE, "width": _IMAGE_SIDE}
    gemma_text = transformers.Gemma3TextConfig(**_SIZES, **_HEADS, sliding_window=64)
    gemma = transformers.Gemma3Config(
        vision_config=transformers.SiglipVisionConfig(**tower, vision_use_head=False),
        text_config=gemma_text,
        mm_tokens_per_image=4,
        boi_token_index=_IMAGE_BEGIN,
        eoi_token_index=_IMAGE_END,
        image_token_index=_IMAGE,
        architectures=["Gemma3ForConditionalGeneration"],
    )
    gemma_processor = transformers.Gemma3Processor(
        transformers.Gemma3ImageProcessorPil(size=side),
        tokenizer,
        image_seq_length=4,
        chat_template=_template("<boi>"),
    )
    llava = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**tower),
        vision_feature_layer=-2,
        text_config=transformers.LlamaConfig(**_SIZES),
        image_token_id=_IMAGE,
        image_seq_length=4,
        architectures=["LlavaForConditionalGeneration"],
    )
    llava_processor = transformers.LlavaProcessor(
        transformers.CLIPImageProcessorPil(size={"shortest_edge": _IMAGE_SIDE}, crop_size=side),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_template("<image>"),
    )
    return {
        "tiny-Gemma3ForConditionalGeneration": (gemma, gemma_processor),
        "tiny-LlavaForConditionalGeneration": (llava, llava_processor),
    }


def _template(image: str) -> str:
    return (
        "{%- for message in messages -%}<|im_start|>{{ message['role'] }}\n{%- if message['content'] is string -%}"
        "{{ message['content'] }}{%- else -%}{%- for part in message['content'] -%}{%- if part['type'] == 'image' -%}"
        + image
        + "{%- else -%}{{ part['text'] }}{%- endif -%}{%- endfor -%}{%- endif -%}<|im_end|>\n{%- endfor -%}"
        "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
    )
