"""Completions for an evaluation from a Hugging Face model in this process.

Prompts reach the model as they do in training: the same chat template with the same variables, one image part per image
in front of the first user text, padding on the left. A model without chat template gets the text alone.

Legend: B rows, T new tokens at most, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoProcessor, TopPLogitsWarper

from kepo.errors import ConfigError
from kepo.evaluation.settings import Completion, EvaluationSettings
from kepo.files import weights_fingerprint
from kepo.models.adapters import ADAPTER_CONFIG, base_model, is_adapter, looks_like_path, processor_source
from kepo.models.decoding import decode, reasoning_opened
from kepo.models.encoding import encode, load_processor, sees_images, tokenizer_of
from kepo.models.loading import load_model
from kepo.prompts import message_text
from kepo.types import Conversation, Prompt


class TransformersBackend:
    """A Hugging Face model, loaded: `TransformersBackend(model, processor)`; see `load_backend` for one by its name.

    A completion does not depend on the rest of its batch, as far as the kernels compute a row alike in batches of
    different size: every row has its own stream of random numbers. When the GPU's memory runs out, the batch is halved.

    Args:
        model: A causal or image-text-to-text model, a PEFT adapter around it included. It is put into evaluation mode
            while it generates.
        processor: Its processor, or the tokenizer of a text model.
        name: For the records; None: the name or folder that the model was loaded from.
        fingerprint: For the records, see `Backend`.
        batch_size: Most completions that are generated at once, >= 1.
        chat_template_kwargs: Variables of the chat template, as in training.

    Raises:
        ConfigError: `batch_size` is below 1.
    """

    kind = "transformers"

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        name: str | None = None,
        fingerprint: str = "",
        batch_size: int = 64,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; give at least 1")
        self._model = model
        self.model = str(name if name is not None else model.config._name_or_path)
        self.fingerprint = fingerprint
        self.batch_size = batch_size
        self._processor = load_processor(self.model, processor)
        self._tokenizer = tokenizer_of(processor)
        self._sees_images = sees_images(processor)
        self._chat_template_kwargs = dict(chat_template_kwargs or {})
        self._has_template = bool(getattr(processor, "chat_template", None) or self._tokenizer.chat_template)
        declared = model.generation_config.eos_token_id
        ends = [self._tokenizer.eos_token_id, *(declared if isinstance(declared, list) else [declared])]
        self._end_ids: list[int] = [token for token in dict.fromkeys(ends) if token is not None]

    def generate(
        self, prompts: Sequence[Conversation], sampling: EvaluationSettings, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """See `Backend.generate`; raises ConfigError where a model that reads text only is shown an image."""
        rows = [(row, sample) for row in range(len(prompts)) for sample in range(sampling.samples)]
        completions: list[Completion] = []
        while len(completions) < len(rows):
            batch = rows[len(completions) : len(completions) + self.batch_size]
            shown = [self._as_asked(prompts[row]) for row, _ in batch]
            try:
                completions += self._generate(shown, sampling, [(seeds[row], sample) for row, sample in batch])
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                self.batch_size = max(1, len(batch) // 2)
                torch.cuda.empty_cache()
        return [completions[start : start + sampling.samples] for start in range(0, len(rows), sampling.samples)]

    def _as_asked(self, prompt: Conversation) -> Prompt:
        contents = [message["content"] for message in prompt if not isinstance(message["content"], str)]
        images = any(part["type"] == "image" for content in contents for part in content)
        if images and not self._sees_images:
            raise ConfigError(
                f"{self.model} reads text only, but a question has an image; use a vision-language model, or data "
                "without images."
            )
        if self._has_template:
            return prompt
        if images:
            raise ConfigError(f"{self.model} has no chat template, which a prompt with images needs; add one.")
        return "\n".join(message_text(message) for message in prompt)

    def _encode(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        return encode(self._processor, prompts, None, self._model.device, self._chat_template_kwargs)

    def _generate(
        self, prompts: Sequence[Prompt], sampling: EvaluationSettings, streams: Sequence[tuple[int, int]]
    ) -> list[Completion]:
        inputs = self._encode(prompts)
        with torch.no_grad(), _evaluating(self._model):
            ids = self._model.generate(
                **inputs,
                max_new_tokens=sampling.max_new_tokens,
                # Also when sampling: the numbers come from `SeededSampling`, which leaves one token to choose from.
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                repetition_penalty=1.0,
                use_cache=True,
                eos_token_id=self._end_ids or None,
                pad_token_id=self._tokenizer.pad_token_id,
                suppress_tokens=self._suppressed(),
                logits_processor=[SeededSampling(sampling, streams)] if sampling.temperature > 0 else [],
            )
        opened = reasoning_opened(self._processor, prompts, self._chat_template_kwargs)
        made = ids[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._completion(row, start) for row, start in zip(made, opened, strict=True)]

    def _suppressed(self) -> list[int] | None:
        """A sampled image token would ask for an image that is not there; training forbids it too."""
        image_token = getattr(self._model.config, "image_token_id", None) if self._sees_images else None
        return None if image_token is None else [image_token]

    def _completion(self, ids: Sequence[int], opened: bool = False) -> Completion:
        ends = [place for place, token in enumerate(ids) if token in self._end_ids]
        length = ends[0] + 1 if ends else len(ids)
        [text] = decode(self._tokenizer, [ids[:length]])
        return Completion(text, length, bool(ends), opened)


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode inside the block; training mode again after it, where the model was in it."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


class SeededSampling:
    """Logits processor that draws each row's token from the row's own random numbers: a sample depends on its seed.

    It leaves one token possible: the one at which the cumulative distribution passes the row's next random number.
    `streams` is the (seed, sample) of each row.
    """

    def __init__(self, sampling: EvaluationSettings, streams: Sequence[tuple[int, int]]) -> None:
        def numbers(seed: int, sample: int) -> torch.Tensor:
            generator = torch.Generator().manual_seed(seed)
            # Drawn for all earlier samples too: sample k is the same however many are asked for.
            return torch.rand(sample + 1, sampling.max_new_tokens, generator=generator, dtype=torch.float64)[-1]

        self._sampling = sampling
        self._numbers = torch.stack([numbers(seed, sample) for seed, sample in streams])  # (B, T)
        self._step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, V) in which only the drawn token is not -inf."""
        scores = scores.float() / self._sampling.temperature
        if self._sampling.top_p < 1:
            scores = TopPLogitsWarper(self._sampling.top_p)(input_ids, scores)
        cumulative = scores.softmax(-1).double().cumsum(-1)  # (B, V)
        drawn = self._numbers[:, self._step, None].to(scores.device) * cumulative[:, -1:]  # (B, 1)
        self._step += 1
        token = torch.searchsorted(cumulative, drawn, right=True).clamp_max(scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)


def load_backend(
    name: str | Path,
    *,
    batch_size: int = 64,
    device: str | None = None,
    dtype: str = "auto",
    trust_remote_code: bool = False,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> TransformersBackend:
    """A backend for a model folder, a checkpoint, a folder with a PEFT adapter, or a hub name.

    Args:
        name: What to load; the weights must be in safetensors format.
        batch_size: See `TransformersBackend`, as for `chat_template_kwargs`.
        device: Where to compute; None: a GPU if there is one.
        dtype: Of the weights; "auto" for the one they were saved in.
        trust_remote_code: Run code that comes with the model.

    Raises:
        ConfigError: there is no model at `name`, or no processor or tokenizer.
    """
    _check_name(str(name))
    base = base_model(str(name))
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        options: dict[str, Any] = {"dtype": dtype, "device_map": {"": device}, "use_safetensors": True}
        model = load_model(str(name), config_of=base, trust_remote_code=trust_remote_code, **options)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the model {str(name)!r} could not be loaded: {error} Give a folder with config.json and weights in "
            "safetensors format, or the name of such a model on the hub that this machine can reach."
        ) from error
    return TransformersBackend(
        model.eval(),
        _load_processor(str(name), trust_remote_code),
        name=str(name),
        fingerprint=weights_fingerprint(name),
        batch_size=batch_size,
        chat_template_kwargs=chat_template_kwargs,
    )


def _check_name(name: str) -> None:
    """A folder must hold a model or an adapter; a path must be there."""
    folder = Path(name)
    if folder.exists() and not (folder / "config.json").is_file() and not is_adapter(name):
        raise ConfigError(
            f"{name} holds no model: there is neither config.json nor {ADAPTER_CONFIG} in it. Give the folder of a "
            "model, a checkpoint, or a finished run."
        )
    if not folder.exists() and looks_like_path(name):
        raise ConfigError(f"{name} does not exist. Give the folder of a model, or its name on the hub.")


def _load_processor(name: str, trust_remote_code: bool) -> Any:
    source = processor_source(name)
    try:
        return AutoProcessor.from_pretrained(source, trust_remote_code=trust_remote_code, padding_side="left")
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(
            f"{source}: no processor or tokenizer could be loaded from it: {error} Save the base model's there."
        ) from error
