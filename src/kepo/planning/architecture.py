"""The sizes of a model that its memory depends on, read from its config; parameters counted on the meta device."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kepo.errors import ConfigError
from kepo.models.packing import Cost
from kepo.models.shared_prompt import refusal
from kepo.recipes.requirements import check_reachable

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Decoder:
    """The language model."""

    layers: int  # transformer blocks
    hidden: int  # width of the residual stream
    heads: int
    kv_heads: int  # heads of keys and values
    head_dim: int  # width of a head
    mlp_width: int  # of what one token goes through; of all its experts together
    vocab: int  # rows of the embedding
    qk_norm: bool  # queries and keys are normalized
    masks: int = 1  # of a batch: one for each kind of layer


@dataclass(frozen=True, slots=True)
class Tower:
    """The vision encoder."""

    layers: int  # transformer blocks
    hidden: int  # width
    heads: int
    mlp_width: int
    fused_qkv: bool  # one projection makes queries, keys and values
    patch: int  # pixels per side of a patch
    merge: int  # merge x merge patches become one token
    mergers: int  # projections into the decoder (Qwen3-VL feeds several depths)
    image_size: int | None  # pixels per side of the only images it takes; None for any

    def patches(self, image_size: int) -> int:
        """Patches of a square image."""
        per_merge = self.patch * self.merge
        side = (self.image_size or max(round(image_size / per_merge), 1) * per_merge) // self.patch
        return side * side

    def tokens(self, image_size: int) -> int:
        """Tokens of the prompt that a square image takes."""
        return self.patches(image_size) // (self.merge * self.merge)


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model."""

    name: str  # folder or hub name
    source: str  # where the sizes are from, in words
    parameters: int  # all of them; shared ones once
    linear_parameters: int  # of linear layers but the output head: what 4 and 8 bit quantization shrinks
    linear_widths: int  # inputs + outputs of these: an adapter of rank r on all has r times as many parameters
    largest_block: int  # parameters of the largest transformer block
    tied: bool  # embedding and output head are one matrix
    decoder: Decoder
    tower: Tower | None  # None for a language model
    cost: Cost  # of a sequence, by which packs are chosen
    no_packs: str | None = None  # why it cannot read several rows as one sequence
    router_loss: float | None = None  # coefficient of a mixture's load-balancing loss; None for other models

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, and of an output head of its own."""
        return self.decoder.vocab * self.decoder.hidden * (1 if self.tied else 2)


def load_architecture(name: str, trust_remote_code: bool = False) -> Architecture:
    """The sizes of a model, without its weights; arguments and errors as `load_meta_model`."""
    model, source = load_meta_model(name, trust_remote_code)
    return measure_architecture(model, name, source)


def load_meta_model(name: str, trust_remote_code: bool = False) -> tuple[nn.Module, str]:
    """A model without memory, whose parameters have shapes and no values, and where its config is from, in words.

    It is a folder with a config.json, a model of the shipped table (`published_config`), or a hub name.

    Raises:
        ConfigError: There is no config, or not one of a model that can be sized.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    config, source = _config(name, trust_remote_code)
    auto = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    try:
        with torch.device("meta"):
            return auto.from_config(config), source
    except ValueError as error:
        raise ConfigError(f"No model can be built from the config of type {config.model_type!r}: {error}") from error


def measure_architecture(model: Any, name: str, source: str) -> Architecture:
    """The sizes of a model that is there, on any device, the meta device too."""
    from torch import nn

    config = model.config
    text = config.get_text_config()
    head = model.get_output_embeddings()
    modules = [(path, module) for path, module in model.named_modules() if not list(module.children())]
    linear = [module for _, module in modules if isinstance(module, nn.Linear) and module is not head]
    blocks = [block for layers in model.modules() if isinstance(layers, nn.ModuleList) for block in layers]
    return Architecture(
        name=name,
        source=source,
        parameters=sum(p.numel() for p in model.parameters()),
        linear_parameters=sum(module.weight.numel() for module in linear),
        linear_widths=sum(module.in_features + module.out_features for module in linear),
        largest_block=max(sum(p.numel() for p in block.parameters()) for block in blocks),
        tied=head.weight is model.get_input_embeddings().weight,
        decoder=_decoder(text, any(path.endswith("q_norm") for path, _ in modules)),
        tower=_tower(config, any(path.endswith("attn.qkv") for path, _ in modules)),
        cost=Cost.of(text),
        no_packs=refusal(model),
        router_loss=getattr(text, "router_aux_loss_coef", 0.0) if hasattr(text, "output_router_logits") else None,
    )


def published_config(name: str) -> tuple[Any, str] | None:
    """The config of a published Qwen3-VL, and where its numbers are from; None for one that is not in qwen3_vl.json.

    It is named as on the hub; the owner may be left out, and variants of one size share a config.
    """
    size = re.fullmatch(r"(?:Qwen/)?Qwen3-VL-(.+?)(?:-Instruct|-Thinking)?", name)
    entry = json.loads((files("kepo.planning") / "qwen3_vl.json").read_text("utf-8")).get(size[1]) if size else None
    if entry is None:
        return None
    from transformers import AutoConfig

    fields = dict(entry["config"])
    return AutoConfig.for_model(fields.pop("model_type"), **fields), f"shipped table, from {entry['source']}"


def _config(name: str, trust_remote_code: bool) -> tuple[Any, str]:
    from transformers import AutoConfig

    folder = Path(name)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ConfigError(f"{name} is a folder without config.json; it does not hold a model.")
    published = None if folder.is_dir() else published_config(name)
    if published is not None:
        return published
    check_reachable("The model", name)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The config of {name!r} could not be read: {error} Give a folder with a config.json, a hub name that this "
            "machine can reach, or one of the sizes that come with the package (`kepo plan --help`)."
        ) from error
    return config, "its config.json"


def _decoder(config: Any, qk_norm: bool) -> Decoder:
    heads = config.num_attention_heads
    experts = getattr(config, "num_experts_per_tok", None)
    return Decoder(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        mlp_width=experts * config.moe_intermediate_size if experts else config.intermediate_size,
        vocab=config.vocab_size,
        qk_norm=qk_norm,
        masks=len(set(getattr(config, "layer_types", None) or ("full_attention",))),
    )


def _tower(config: Any, fused_qkv: bool) -> Tower | None:
    vision = getattr(config, "vision_config", None)
    if vision is None:
        return None
    return Tower(
        layers=vision.num_hidden_layers,
        hidden=vision.hidden_size,
        heads=vision.num_attention_heads,
        mlp_width=vision.intermediate_size,
        fused_qkv=fused_qkv,
        patch=vision.patch_size,
        merge=getattr(vision, "spatial_merge_size", 1),
        mergers=1 + len(getattr(vision, "deepstack_visual_indexes", None) or ()),
        image_size=getattr(vision, "image_size", None),
    )
