"""Completions for an evaluation from a Hugging Face model in this process.

Prompts reach the model as they do in training: the same chat template with the same variables, one image part per image
in front of the first user text, padding on the left. A model without chat template gets the text alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kepo.errors import ConfigError
from kepo.evaluation.backend import Completion, Sampling
from kepo.prompts import message_text
from kepo.types import Conversation, Prompt


class TransformersBackend:
    """A Hugging Face model, loaded: `TransformersBackend(model, processor)`; see `load_backend` for one by its name.

    Completions, greedy or sampled, do not depend on what a prompt is batched with, as far as the kernels compute a row
    alike in batches of different size: every row has its own stream of random numbers. On a GPU that runs out of memory
    the batch is halved and stays so.

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
        from kepo.models.encoding import load_processor, sees_images, tokenizer_of

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
        declared = declared if isinstance(declared, list) else [] if declared is None else [declared]
        own = [] if self._tokenizer.eos_token_id is None else [self._tokenizer.eos_token_id]
        self._end_ids: list[int] = list(dict.fromkeys([*own, *declared]))

    def generate(
        self, prompts: Sequence[Conversation], sampling: Sampling, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """See `Backend.generate`.

        Raises:
            ConfigError: images for a model that reads text only.
        """
        rows = [(row, sample) for row in range(len(prompts)) for sample in range(sampling.samples)]
        completions: list[Completion] = []
        while len(completions) < len(rows):
            batch = rows[len(completions) : len(completions) + self.batch_size]
            shown = [self._as_asked(prompts[row]) for row, _ in batch]
            try:
                completions += self._generate(shown, sampling, [(seeds[row], sample) for row, sample in batch])
            except _out_of_memory():
                if len(batch) == 1:
                    raise
                self.batch_size = max(1, len(batch) // 2)
                _free_memory()
        return [completions[start : start + sampling.samples] for start in range(0, len(rows), sampling.samples)]

    def prompt_ids(self, prompt: Conversation) -> list[int]:
        """The token ids that the model is given for `prompt`, image tokens included."""
        ids: list[int] = self._encode([self._as_asked(prompt)])["input_ids"][0].tolist()
        return ids

    def _as_asked(self, prompt: Conversation) -> Prompt:
        images = any(part["type"] == "image" for message in prompt for part in _parts(message["content"]))
        if images and not self._sees_images:
            raise ConfigError(
                f"{self.model} reads text only, but a question has an image; use a vision-language model, or data "
                "without images."
            )
        if not self._has_template:
            if images:
                raise ConfigError(f"{self.model} has no chat template, which a prompt with images needs; add one.")
            return "\n".join(message_text(message) for message in prompt)
        return prompt

    def _encode(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        from kepo.models.encoding import encode

        return encode(self._processor, prompts, None, self._model.device, self._chat_template_kwargs)

    def _generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, streams: Sequence[tuple[int, int]]
    ) -> list[Completion]:
        import torch

        from kepo.evaluation.seeded import SeededSampling

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
        return [self._completion(row) for row in ids[:, inputs["input_ids"].shape[1] :].tolist()]

    def _suppressed(self) -> list[int] | None:
        """A sampled image token would ask for an image that is not there; training forbids it too."""
        if not self._sees_images:
            return None
        image_token = getattr(self._model.config, "image_token_id", None)
        return None if image_token is None else [image_token]

    def _completion(self, ids: Sequence[int]) -> Completion:
        ends = [place for place, token in enumerate(ids) if token in self._end_ids]
        length = ends[0] + 1 if ends else len(ids)
        text = self._tokenizer.decode(ids[:length], skip_special_tokens=True)
        return Completion(text, length, bool(ends))


def _parts(content: Any) -> list[dict[str, Any]]:
    return [] if isinstance(content, str) else content


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode inside the block; training mode again after it, where the model was in it."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _out_of_memory() -> type[BaseException]:
    import torch

    return torch.OutOfMemoryError


def _free_memory() -> None:
    import torch

    torch.cuda.empty_cache()
