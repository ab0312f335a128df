"""A teacher that runs in this process: any Hugging Face language or vision-language model.

    teacher = LocalTeacher("Qwen/Qwen3-VL-32B-Instruct", device="cuda:1")

Scoring runs the model once per micro-batch and keeps the hidden states of the completion, never a tensor of the
vocabulary's width. A teacher without a device of its own is placed by the trainer, and sharded where the student is;
then all processes must run the model equally often, which filler rows see to.

Legend: B rows of a micro-batch, P padded prompt length, T completion tokens, H hidden width, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kepo.errors import TeacherError
from kepo.models.adapters import base_model, is_adapter
from kepo.models.decoding import decode, reasoning_opened
from kepo.models.encoding import (
    check_chat_template,
    encode,
    filler_prompt,
    load_processor,
    micro_batches,
    sees_images,
    tokenizer_of,
)
from kepo.models.head import backbone, check_head, output_head, whole_copy
from kepo.models.loading import load_model
from kepo.models.packing import Packed
from kepo.models.shared_prompt import SharedPrompt
from kepo.objective.divergence import OutputHead, chunked_token_logps
from kepo.rewards.tags import with_opening
from kepo.teachers.base import DenseScores, MaxOverProcesses, ScoreRequest, Scores
from kepo.teachers.reading import Reader, equal_prompts, shown_prompt
from kepo.types import Conversation, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LocalTeacher:
    """A frozen Hugging Face model as teacher; implements `kepo.teachers.base.Teacher`.

    Args:
        model: Folder or hub name of a causal or image-text-to-text model, or a loaded model.
        processor: Its processor or tokenizer; None to load the one beside the model.
        device: Where the teacher computes, and stays, never sharded. None: the trainer places it. A quantized model
            or one with a `device_map` is never moved.
        dtype: Of the weights; "auto" for the dtype they were saved in.
        quantization_config: As `from_pretrained` takes it.
        model_kwargs: Further arguments of `from_pretrained`; `use_safetensors` is True unless set here.
        chat_template_kwargs: Variables of the chat template, for hints and for rows without `prompt_ids`; otherwise
            the student's prompt is read as the student's own template wrote it.
        batch_size: Rows per forward pass, >= 1.
        share_prompt: Compute the prompt once for rows that share it; see `kepo.models.packing`.
        temperature: Softmax temperature of `token_logps`, > 0.
        hint_max_new_tokens: Longest hint, in tokens.
        hint_temperature: Sampling temperature of hints, >= 0; 0 is greedy. Other sampling settings are the model's.
        trust_remote_code: Run code that comes with the model.

    Attributes:
        name: The folder or hub name as given; of a loaded model, the one it was loaded from.

    Raises:
        TeacherError: the model or its processor cannot be loaded.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        processor: Any = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str = "auto",
        quantization_config: Any = None,
        model_kwargs: Mapping[str, Any] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        batch_size: int = 8,
        share_prompt: bool = True,
        temperature: float = 1.0,
        hint_max_new_tokens: int = 256,
        hint_temperature: float = 1.0,
        trust_remote_code: bool = False,
    ) -> None:
        self._check_settings(batch_size, temperature, hint_max_new_tokens, hint_temperature)
        if isinstance(model, str | Path):
            options = {"dtype": dtype, "use_safetensors": True, **(model_kwargs or {})}
            if quantization_config is not None:
                options["quantization_config"] = quantization_config
            if device is not None:
                options.setdefault("device_map", {"": device})
            self.name, loaded = str(model), _load_model(str(model), options, trust_remote_code)
        else:
            self.name, loaded = str(model.config._name_or_path), model if device is None else model.to(device)
        self.model: Any = loaded.eval().requires_grad_(False)
        self.processor = load_processor(loaded.config._name_or_path, processor, trust_remote_code)
        self._pad_id: int = tokenizer_of(self.processor).pad_token_id
        self._backbone = backbone(loaded)
        inner = loaded.get_base_model() if hasattr(loaded, "get_base_model") else loaded
        self._accepted = frozenset(inspect.signature(inner.forward).parameters)
        self._stays = device is not None or hasattr(loaded, "hf_device_map") or hasattr(loaded, "hf_quantizer")
        self._device: torch.device = loaded.device
        self._batch_size = batch_size
        self._temperature = temperature
        self._hint_max_new_tokens = hint_max_new_tokens
        self._hint_temperature = hint_temperature
        self._chat_template_kwargs = dict(chat_template_kwargs or {})
        # Of a text model there is none.
        image_token = getattr(loaded.config, "image_token_id", None)
        self._reader = Reader(self.processor, self._chat_template_kwargs, image_token)
        self._shared = SharedPrompt(loaded, self._pad_id, "teacher", enabled=share_prompt)
        self._max_over_processes: MaxOverProcesses | None = None  # set when sharded
        self._whole_head: OutputHead | None = None  # set when sharded
        self._head_checked = False

    @staticmethod
    def _check_settings(batch_size: int, temperature: float, hint_max_new_tokens: int, hint_temperature: float) -> None:
        for name, value, lowest in (("batch_size", batch_size, 1), ("hint_max_new_tokens", hint_max_new_tokens, 1)):
            if value < lowest:
                raise TeacherError(f"{name} = {value} of the teacher is too small; use at least {lowest}.")
        if temperature <= 0:
            raise TeacherError(f"temperature = {temperature} of the teacher must be above 0.")
        if hint_temperature < 0:
            raise TeacherError(f"hint_temperature = {hint_temperature} must not be negative; use 0 for greedy hints.")

    @property
    def head(self) -> OutputHead:
        """The output head that belongs to the hidden states of `score`; whole also where the teacher is sharded."""
        return self._whole_head if self._whole_head is not None else output_head(self.model)

    def check_prompt(self, prompt: Prompt) -> None:
        """Refuse a conversation when there is no chat template to render it with."""
        if not isinstance(prompt, str):
            check_chat_template(self.processor)

    def check_student(self, tokenizer: Any, vocab_size: int) -> None:
        """Refuse a student whose token ids mean something else here.

        Embeddings of different sizes are fine as long as they differ by padding: the divergence uses the common first
        entries.

        Raises:
            TeacherError: a student's token has another id in the teacher's tokenizer, or none.
        """
        student, teacher = tokenizer_of(tokenizer).get_vocab(), tokenizer_of(self.processor).get_vocab()
        rows = self.head.weight.shape[0]
        used = {token: index for token, index in student.items() if index < vocab_size}
        unknown = [token for token, index in used.items() if token not in teacher or teacher[token] >= rows]
        moved = [token for token, index in used.items() if token in teacher and teacher[token] != index]
        if not unknown and not moved:
            return
        examples = [
            f"{len(moved)} have another id ({token!r} is {used[token]} there and {teacher[token]} here)"
            for token in moved[:1]
        ]
        examples += [f"{len(unknown)} are unknown here (for example {token!r})" for token in unknown[:1]]
        raise TeacherError(
            f"The teacher cannot score this student's tokens: of the student's {len(used)} tokens, "
            f"{' and '.join(examples)}. Use a teacher of the student's tokenizer family, or distillation_weight: 0 "
            "to take only hints from this teacher."
        )

    def place(
        self,
        device: torch.device | str,
        shard: Callable[[Any], Any] | None,
        max_over_processes: MaxOverProcesses,
    ) -> None:
        """Move the teacher to `device`, or shard it (FSDP, DeepSpeed); one with a device of its own stays as it is.

        A sharded teacher keeps a whole copy of its output head on every process, and still scores and writes hints; it
        alone calls `max_over_processes`, in `score` and `write_hints`.
        """
        if self._stays or self._max_over_processes is not None:
            return
        self._device = torch.device(device)
        if shard is None:
            self.model.to(self._device)
            return
        self._whole_head = whole_copy(output_head(self.model), self._device)
        self.model = shard(self.model)
        self._max_over_processes = max_over_processes

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scores]:
        """The hidden states behind the student's tokens, and their log-probabilities where asked for, by request.

        Of a row with `prompt_ids` exactly these are read, whatever this teacher's chat template would make of its
        prompt. Rows of similar length share a micro-batch, which does not change the results. A sharded teacher must be
        called by all processes together, with an empty list where there is no row.

        Raises:
            TeacherError: a token id that this teacher does not have.
        """
        vocabulary = self.head.weight.shape[0]
        for index, request in enumerate(requests):
            if (largest := max(request.completion_ids)) >= vocabulary:
                raise TeacherError(
                    f"Row {index} holds token id {largest}, but the teacher's vocabulary has {vocabulary} entries. Use "
                    "a teacher of the student's tokenizer family."
                )
        results: dict[int, Scores] = {}
        prompts = [shown_prompt(request) for request in requests]
        lengths = [len(request.completion_ids) for request in requests]
        same = equal_prompts(requests)
        for rows, shown in self._micro_batches(prompts, lengths, same):
            if rows:
                read = [requests[row] for row in rows]
                alike = [rows.index(next(other for other in rows if same[other] == same[row])) for row in rows]
            else:
                read, alike = [ScoreRequest(shown[0], (self._pad_id,))], [0]
            results.update(zip(rows, self._score(read, alike), strict=bool(rows)))
        return [results[row] for row in range(len(requests))]

    @torch.no_grad()
    def write_hints(self, conversations: Sequence[Conversation]) -> list[str]:
        """One answer per conversation, see `kepo.models.decoding.decode`; sampled under torch's global seed.

        Where the chat template opened `<think>`, the answer begins with it, so that cut reasoning is none of the hint.

        A sharded teacher must be called by all processes together, with an empty list where there is no work.

        Raises:
            TeacherError: the teacher has no chat template, or no image processor for a conversation with images.
        """
        answers: dict[int, str] = {}
        for rows, shown in self._micro_batches(list(conversations), [0] * len(conversations)):
            inputs = encode(self.processor, shown, None, self._device, self._chat_template_kwargs)
            new_ids = self._generate(inputs)[:, inputs["input_ids"].shape[1] :]
            opened = reasoning_opened(self.processor, shown, self._chat_template_kwargs)
            texts = map(with_opening, decode(tokenizer_of(self.processor), new_ids.tolist()), opened)
            answers.update(zip(rows, texts, strict=bool(rows)))
        return [answers[row] for row in range(len(conversations))]

    def _micro_batches(
        self, prompts: Sequence[Prompt], lengths: Sequence[int], groups: Sequence[int] | None = None
    ) -> Iterator[tuple[list[int], list[Prompt]]]:
        """Rows of each forward pass and their prompts; a filler has no rows, and one prompt of its own.

        Rows with and without images never share a pass, and sharded processes agree on the number of each, because
        only the former run the image tower: modules must be gathered in the same order everywhere.
        """
        for with_images in (False, True):
            batches = micro_batches(prompts, lengths, self._batch_size, with_images, groups)
            most = len(batches)
            if self._max_over_processes is not None and (sees_images(self.processor) or not with_images):
                # Before the first pass, because all processes must communicate in the same order.
                most = self._max_over_processes(most)
            for batch in batches:
                yield batch, [prompts[row] for row in batch]
            for _ in range(most - len(batches)):
                yield [], [filler_prompt(with_images)]

    @torch.no_grad()
    def _score(self, requests: Sequence[ScoreRequest], same: Sequence[int]) -> list[DenseScores]:
        rows = self._reader.rows(requests, same)
        self._shared.check_once(rows, self._device, self._logps, self._max_over_processes or int)
        packed = self._shared.pack(rows, self._device)
        states = self._hidden(packed)
        counts = [len(row.completion) for row in rows]
        # The product with the head is left out where nobody asks for it: the divergence makes its own.
        wanted = any(request.token_logps for request in requests)
        logps = self._logps_of(states, packed).split(counts) if wanted else [None] * len(rows)
        # Copies, because a view would keep the states of other rows alive.
        return [
            DenseScores(hidden.clone(), row_logps)
            for hidden, row_logps in zip(states.split(counts), logps, strict=True)
        ]

    def _logps(self, packed: Packed) -> torch.Tensor:
        """(N,) log-probabilities of the scored tokens, in nats."""
        return self._logps_of(self._hidden(packed), packed)

    def _logps_of(self, states: torch.Tensor, packed: Packed) -> torch.Tensor:
        head = self.head
        return chunked_token_logps(states, head, packed.tokens.to(head.weight.device), self._temperature)

    def _hidden(self, packed: Packed) -> torch.Tensor:
        """(N, H) the states that predict the scored tokens, caught inside the whole model's forward.

        Sharding hooks into that.
        """
        caught: list[torch.Tensor] = []
        handle = self._backbone.register_forward_hook(lambda _m, _a, output: caught.append(output.last_hidden_state))
        options: dict[str, Any] = {"use_cache": False, "return_dict": True}
        if "logits_to_keep" in self._accepted:
            options["logits_to_keep"] = 1
        try:
            output = self.model(**packed.inputs, **options)
        finally:
            handle.remove()
        if not self._head_checked:
            check_head(self.head, caught[-1][:, -1], output.logits[:, -1])
            self._head_checked = True
        return caught[-1].flatten(0, 1)[packed.states].to(self.head.weight.device)

    def _generate(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Prompt and new token ids (B, P + new)."""
        sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if self._hint_temperature > 0:
            sampling = {"do_sample": True, "temperature": self._hint_temperature}
        generate = getattr(self.model, "module", self.model).generate
        with _root_parameters(self.model):
            ids: torch.Tensor = generate(
                **inputs,
                **sampling,
                max_new_tokens=self._hint_max_new_tokens,
                pad_token_id=self._pad_id,
                # Set either way: transformers' own guess looks at the launch, not at this model.
                synced_gpus=self._max_over_processes is not None,
            )
        return ids


def _root_parameters(model: Any) -> AbstractContextManager[Any]:
    """A context in which `generate` can be called on a model that FSDP's first version has wrapped.

    Its `generate` does not pass through the wrapper, which alone gathers the weights outside the wrapped blocks.
    """
    from torch.distributed.fsdp import FullyShardedDataParallel

    if isinstance(model, FullyShardedDataParallel):
        return FullyShardedDataParallel.summon_full_params(model, recurse=False, writeback=False)
    return nullcontext()


def _load_model(name: str, options: Mapping[str, Any], trust_remote_code: bool) -> Any:
    try:
        if Path(name).exists() and not (Path(name) / "config.json").is_file() and not is_adapter(name):
            raise FileNotFoundError("there is no config.json in it")
        return load_model(name, config_of=base_model(name), trust_remote_code=trust_remote_code, **options)
    except (OSError, ValueError) as error:
        raise TeacherError(
            f"The teacher could not be loaded from {name}: {error} Expected is a folder with config.json, weights in "
            "safetensors format and a processor or tokenizer, or the name of such a model on the hub that this machine "
            "can reach (or has in its cache). Check the path, or download the model first."
        ) from error
