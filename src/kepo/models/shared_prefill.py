"""Rollouts by transformers: each distinct prompt is computed once, and its rollouts go on from copies of its cache.

transformers' `generate` computes the prompt of every row, and rows that have ended until the last one ends. Here the
first P - 1 tokens of each distinct prompt go through the model once; the cache is repeated for the rows that share the
prompt, and `generate` goes on from there, with the last token of the prompt as its first. Rows that have ended leave
the batch. Random numbers are drawn as before, for all rows, from logits that differ by rounding.

Legend: B rows, Q distinct prompts, P padded prompt length.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from kepo.models.head import backbone
from kepo.models.row_fields import IMAGE_FIELDS, TOKEN_TYPE_FIELDS, join_rows, split_rows
from kepo.models.shared_prompt import difference, is_half

logger = logging.getLogger(__name__)

# Settings of generation that need more than one cache of one row each, or another kind of cache.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "cache_implementation": (None, "dynamic"),
    "use_cache": (None, True),
    "num_beams": (None, 1),
    "num_return_sequences": (None, 1),
    "guidance_scale": (None, 1, 1.0),
    **dict.fromkeys(
        (
            "prefill_chunk_size",
            "prompt_lookup_num_tokens",
            "assistant_early_exit",
            "penalty_alpha",
            "watermarking_config",
        ),
        (None,),
    ),
    **dict.fromkeys(("token_healing", "use_mtp"), (None, False)),
}
_OUTPUTS = ("return_dict_in_generate", "output_scores", "output_logits", "output_attentions", "output_hidden_states")
# Rows leave the batch when this share of it has ended: each time, the cache of the others is copied once.
_ENDED = 0.25
_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)


@dataclass(frozen=True)
class EqualRows:
    """Which rows of a batch are equal."""

    index: Sequence[int]  # (B) place of each row's prompt among the distinct ones
    firsts: Sequence[int]  # (Q) first row of each distinct prompt
    num_images: Sequence[int]  # (Q) images of each distinct prompt


@dataclass(frozen=True)
class _Call:
    """One call of `generate`."""

    rows: EqualRows
    batch: Mapping[str, Tensor]  # token ids and attention mask, of all B rows
    fields: Mapping[str, Tensor]  # every other tensor, of the Q distinct ones
    options: Mapping[str, Any]  # what is no tensor

    def types(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The fields with one entry per token, of the given distinct rows."""
        return {name: self.fields[name][list(rows)] for name in TOKEN_TYPE_FIELDS if name in self.fields}


class SharedPrefill:
    """Lets `model.generate` compute each distinct prompt once, inside `rows`; elsewhere it stays as it is.

    Where a model or a setting does not allow it, it turns itself off with one log line. The first batch is checked.

    Args:
        model: A transformers model, or a PEFT model around one, whose parameters are whole while it generates.
        enabled: False: the prompt of every row is computed.
        autocast: Whether the model computes in half precision although its weights do not have it.
        least: Tokens that must be saved: a forward pass of few tokens takes as long as one of some more.

    Attributes:
        enabled: Whether prompts are shared.
    """

    def __init__(self, model: Any, *, enabled: bool = True, autocast: bool = False, least: int = 512) -> None:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._half = autocast or is_half(base)
        self.enabled = enabled
        self._least = least
        self._checked = False
        self._rows: EqualRows | None = None
        self._model = base
        self._generate = base.generate
        base.generate = self._shared

    @contextmanager
    def rows(self, rows: EqualRows) -> Iterator[None]:
        """Inside, `generate` is given token ids of B rows, and every other tensor for the Q distinct ones."""
        self._rows = rows
        try:
            yield
        finally:
            self._rows = None

    def _shared(self, *args: Any, **given: Any) -> Any:
        rows = self._rows
        if rows is None:
            return self._generate(*args, **given)
        self._rows = None  # what the model calls meanwhile is not these rows
        batch = {name: given.pop(name) for name in ("input_ids", "attention_mask")}
        options = {name: value for name, value in given.items() if not torch.is_tensor(value)}
        fields = {name: value for name, value in given.items() if torch.is_tensor(value)}
        call = _Call(rows, batch, fields, options)
        if not (self.enabled and self._may_share(call)):
            return self._generate(**batch, **repeated(fields, rows), **options)
        cache = None
        if self._is_worth_it(call):
            with torch.no_grad():
                cache = self._prefilled(call)
        # What the cache is made of is known from the first prompts that were shared.
        if self.enabled and self._checked and _returns_ids_only(self._model, options.get("generation_config")):
            options["custom_generate"] = _decode
        if cache is None:
            return self._generate(**batch, **repeated(fields, rows), **options)
        return self._generate(**batch, **call.types(rows.index), past_key_values=cache, **options)

    def _may_share(self, call: _Call) -> bool:
        reason = _refusal(self._model, call)
        if reason is not None:
            self._turn_off(reason)
        return reason is None

    def _is_worth_it(self, call: _Call) -> bool:
        ids = call.batch["input_ids"]
        # The last token goes with the rollouts, so it must not be part of an image.
        image = getattr(self._model.config, "image_token_id", None)
        ends_in_image = image is not None and bool((ids[:, -1] == image).any())
        saved = (len(call.rows.index) - len(call.rows.firsts)) * (ids.size(1) - 1)
        return saved >= max(self._least, 1) and not ends_in_image

    def _prefilled(self, call: _Call) -> DynamicCache | None:
        """The cache of the first P - 1 tokens of all B rows; None: it cannot be shared."""
        head = {name: value[list(call.rows.firsts)][:, :-1] for name, value in call.batch.items()}
        types = {name: call.fields[name][:, :-1] for name in TOKEN_TYPE_FIELDS if name in call.fields}
        cache = self._generate(**head, **{**call.fields, **types}, **call.options, custom_generate=_cache)
        kinds = {type(layer).__name__ for layer in getattr(cache, "layers", ()) if type(layer) not in _LAYERS}
        if type(cache) is not DynamicCache or kinds:
            self._turn_off(f"its cache ({', '.join(sorted(kinds)) or type(cache).__name__}) cannot be repeated")
            return None
        deltas = _rope_deltas(self._model)
        if not self._checked:
            self._checked = True
            reason = self._difference(call, cache)
            if reason is not None:
                self._turn_off(reason)
                return None
        place = torch.tensor(call.rows.index, device=call.batch["input_ids"].device)
        cache.batch_select_indices(place)
        if deltas is not None:
            backbone(self._model).rope_deltas = deltas[place.to(deltas.device)]
        return cache

    def _difference(self, call: _Call, cache: DynamicCache) -> str | None:
        """Why the cache cannot be used, from the first token of the first row; None: it agrees."""
        deltas = _rope_deltas(self._model)
        row = {name: value[:1] for name, value in call.batch.items()} | call.types([0])
        images = split_rows(call.fields, len(call.rows.firsts), call.rows.num_images)[0]
        begun = copy.deepcopy(cache)
        begun.batch_select_indices(torch.tensor([0], device=row["input_ids"].device))
        options = {**call.options, "custom_generate": _logps}
        if deltas is not None:
            backbone(self._model).rope_deltas = deltas[:1]
        after = self._generate(**row, past_key_values=begun, **options)
        alone = self._generate(**row, **join_rows([images]), **options)
        return difference(after, alone, half=self._half)

    def _turn_off(self, reason: str) -> None:
        self.enabled = False
        logger.warning("The prompts of rollouts are computed once per rollout, not once per group: %s.", reason)


def repeated(fields: Mapping[str, Any], rows: EqualRows) -> dict[str, Any]:
    """The fields of all B rows from those of the Q distinct prompts; every tensor must be one that is known.

    Args:
        fields: Token types, and what `IMAGE_FIELDS` names, as tensors.
        rows: Which rows are equal.
    """
    types = {name: value[list(rows.index)] for name, value in fields.items() if name in TOKEN_TYPE_FIELDS}
    images = split_rows(fields, len(rows.firsts), rows.num_images)
    return {**types, **join_rows([images[place] for place in rows.index])}


def _refusal(model: Any, call: _Call) -> str | None:
    """Why prompts cannot be shared, as far as the settings tell; None: they may."""
    config = call.options.get("generation_config")
    for name, allowed in _PLAIN.items():
        value = call.options.get(name, getattr(config, name, None))
        value = getattr(model.generation_config, name, None) if value is None else value
        if value not in allowed:
            return f"generation is set to {name} = {value!r}"
    extra = set(call.options) - {"generation_config", "synced_gpus", "disable_compile"}
    if extra:
        return f"generation is given {', '.join(sorted(extra))}"
    if getattr(model.config, "is_encoder_decoder", False):
        return "the model is an encoder and a decoder"
    unknown = sorted(set(call.fields) - {*IMAGE_FIELDS, *TOKEN_TYPE_FIELDS})
    return f"the processor gives {', '.join(unknown)}" if unknown else None


def _rope_deltas(model: Any) -> Tensor | None:
    """(rows, 1) how far the positions of a prompt with images end from its length, of models that keep it (Qwen-VL)."""
    deltas: Tensor | None = getattr(backbone(model), "rope_deltas", None)
    return deltas


def _returns_ids_only(model: Any, config: Any) -> bool:
    """Whether `generate` is asked for token ids and nothing else, with a token that fills rows up."""
    if is_deepspeed_zero3_enabled():  # whose processes take steps together
        return False
    asked = any(getattr(owner, name, None) for owner in (config, model.generation_config) for name in _OUTPUTS)
    return not asked and getattr(config, "pad_token_id", None) is not None


def _cache(model: Any, input_ids: Tensor, **prepared: Any) -> Any:
    """In the place of the decoding loop of `generate`: the cache of `input_ids`."""
    return _forward(model, input_ids, _model_inputs(prepared)).past_key_values


def _logps(model: Any, input_ids: Tensor, **prepared: Any) -> Tensor:
    """In the place of the decoding loop of `generate`: log-probabilities of the first token, (rows, vocabulary)."""
    return _forward(model, input_ids, _model_inputs(prepared)).logits[:, -1].float().log_softmax(-1)


def _decode(
    model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any, **inputs: Any
) -> Tensor:
    """In the place of the decoding loop of `generate`: the same loop, in which rows that have ended are not computed.

    As there, a row that has ended goes on with padding, and takes part in the drawing of random numbers.
    """
    ids = input_ids  # (B, length so far)
    rows = torch.arange(len(ids), device=ids.device)  # those that are computed
    going = torch.ones(len(ids), dtype=torch.bool, device=ids.device)  # (B)
    chances: Tensor | None = None  # (B, V), of rows that are not computed any more: some old ones
    padding = ids.new_tensor(generation_config.pad_token_id)
    first = True
    while True:
        outputs = _forward(model, ids[rows], inputs, first=first)
        scores = logits_processor(ids[rows], outputs.logits[:, -1].to(copy=True, dtype=torch.float32))
        if generation_config.do_sample:
            probabilities = torch.nn.functional.softmax(scores, dim=-1)
            chances = probabilities if first else _placed(chances, rows, probabilities)
            drawn = torch.multinomial(chances, num_samples=1).squeeze(1)
        else:
            drawn = _placed(padding.repeat(len(ids)), rows, scores.argmax(-1))
        ids = torch.cat([ids, torch.where(going, drawn, padding)[:, None]], dim=-1)
        going = going & ~stopping_criteria(ids, None)
        computed = going[rows]
        left = int(computed.sum())
        if left == 0:
            return ids
        inputs = model._update_model_kwargs_for_generation(outputs, inputs)
        if left <= (1 - _ENDED) * len(rows):
            kept = computed.nonzero().squeeze(1)
            inputs, rows = _select(inputs, kept, len(rows)), rows[kept]
        first = False


def _placed(values: Any, rows: Tensor, new: Tensor) -> Tensor:
    values[rows] = new
    result: Tensor = values
    return result


def _select(inputs: dict[str, Any], kept: Tensor, count: int) -> dict[str, Any]:
    """The inputs of the kept ones of `count` rows; the cache is changed in place."""
    selected = dict(inputs)
    for name, value in inputs.items():
        if torch.is_tensor(value) and value.ndim > 1:
            dim = value.ndim - 2 if name == "position_ids" else 0  # which may be three-dimensional
            if value.size(dim) == count:
                selected[name] = value.index_select(dim, kept.to(value.device))
    selected["past_key_values"].batch_select_indices(kept)
    return selected


def _model_inputs(prepared: Mapping[str, Any]) -> dict[str, Any]:
    """What `generate` prepared for the model, without what it prepared for its loop."""
    of_loop = ("logits_processor", "stopping_criteria", "generation_config")
    return {name: value for name, value in prepared.items() if name not in of_loop}


def _forward(model: Any, input_ids: Tensor, inputs: Mapping[str, Any], *, first: bool = True) -> Any:
    """One forward pass, of the tokens that the cache does not hold yet."""
    cache = inputs.get("past_key_values")
    new = None if cache is None else input_ids.size(1) - cache.get_seq_length()
    given = model.prepare_inputs_for_generation(input_ids, next_sequence_length=new, is_first_iteration=first, **inputs)
    return model(**given, return_dict=True)
