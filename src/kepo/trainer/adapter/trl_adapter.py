"""`TRLAdapter`: TRL's `GRPOTrainer` with public names for what KEPO overrides and calls.

B rollouts of this process, W processes, T completion tokens, F reward functions.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl.models import prepare_deepspeed, prepare_fsdp
from trl.trainer.utils import is_async_callable

from kepo.errors import ConfigError
from kepo.models.decoding import decode, reasoning_opened, special_tags
from kepo.models.encoding import encode
from kepo.models.shared_prefill import EqualRows, SharedPrefill
from kepo.prompts import prompt_images
from kepo.trainer.adapter.colocated import ColocatedPrompts
from kepo.trainer.adapter.equal_rows import (
    EqualRowsProcessor,
    TokenizedOnce,
    as_tensors,
    equal_prompts,
    rows_once,
)
from kepo.trainer.adapter.loss_adapter import LossAdapter
from kepo.trainer.adapter.rewards import KnownRewards
from kepo.trainer.adapter.sampling import beside_the_batch, parsed
from kepo.trainer.generation_batch import Completions, Rollouts, RowReward, completion_of
from kepo.types import Prompt, Sample

logger = logging.getLogger(__name__)


class TRLAdapter(LossAdapter):
    """TRL's GRPO trainer behind public names.

    The methods under "hooks" are called by TRL; their own bodies are TRL's, so a subclass overrides them and calls
    `super()`. The others are services. As it stands, the class trains as `GRPOTrainer` does, bit for bit.

    Attributes:
        processes: The processes of the run.
        passes: See `LossAdapter`.
    """

    # What TRL writes into the model card.
    _tag_names: ClassVar[list[str]] = ["trl", "kepo"]
    _name = "KEPO"
    _paper: ClassVar[dict[str, str]] = {
        "title": "KEPO: Knowledge-Enhanced Preference Optimization for Multimodal Reasoning with Applications to "
        "Medical VQA",
        "id": "2602.00400",
    }

    reward_funcs: list[Any]
    processing_class: Any
    _colocated: ColocatedPrompts | None = None
    _tokenized: TokenizedOnce | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.use_vllm and self.args.vllm_mode == "colocate" and self._is_vlm:
            self._colocated = ColocatedPrompts(self.vllm_generation.generate)
            self.vllm_generation.generate = self._colocated.generate

        # Tools and environments make rows differ, and rollouts of the user's own may look at the processor.
        self._rows_are_equal = not (self.tools or self.rollout_func or self.environment_factories)
        self._prefill = SharedPrefill(self.model, enabled=self._shares_prefill(), autocast=self.uses_autocast)

    # --- hooks ------------------------------------------------------------------------------------------------------

    def make_generation_batch(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Rollouts of B data set rows with rewards and advantages: the batch that TRL splits and hands to the loss."""
        processor = self.processing_class
        if self._rows_are_equal:
            self.processing_class = EqualRowsProcessor(processor)
        try:
            batch: dict[str, Any] = super()._generate_and_score_completions(rows)
        finally:
            self.processing_class, self._tokenized = processor, None
        return batch

    def generate_rollouts(self, prompts: list[Prompt]) -> Rollouts:
        """One rollout for each of B prompts; what is replaced in `prompts` is replaced in the rest of TRL's step."""
        rollouts = Rollouts(*super()._generate(prompts))
        if self.tools and rollouts.images is None:  # a tool may show an image to what replaces a rollout
            rollouts = rollouts._replace(images=[None] * len(prompts))
        if self._drops_tags:
            # Answers are found by them.
            for row, text in enumerate(decode(self._tokenizer, rollouts.completion_ids)):
                sample = Sample(tuple(rollouts.completion_ids[row]), text)
                rollouts.completions[row] = completion_of(prompts[row], sample)
        return rollouts

    def score_rollouts(
        self, rollouts: Completions, known: Mapping[int, Sequence[RowReward]] | None = None
    ) -> torch.Tensor:
        """(W * B, F) the rewards of all processes' rollouts, unweighted; collective.

        `known` has the (B) rewards of functions, by index, that are not called again; what they logged is logged.
        """
        functions = self.reward_funcs
        self.reward_funcs = [
            KnownRewards(known[i]) if known and i in known else function for i, function in enumerate(functions)
        ]
        try:
            rows = [
                {**row, "completion_finished": self._finished(ids), "reasoning_opened": opened}
                for row, ids, opened in zip(
                    rollouts.rows, rollouts.completion_ids, self._reasoning_opened(rollouts), strict=True
                )
            ]
            rewards: torch.Tensor = super()._calculate_rewards(
                rows, rollouts.prompts, rollouts.completions, rollouts.completion_ids
            )
        finally:
            self.reward_funcs = functions
        return rewards

    def compute_batch_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """The loss of one micro-batch, 0-d with gradient."""
        return self.compute_policy_loss(model, inputs)[0]

    # --- TRL's names of the hooks -----------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        return self.make_generation_batch(inputs)

    def _generate(self, prompts: list[Prompt]) -> Rollouts:
        rollouts = self.generate_rollouts(prompts)
        return rollouts if any(rollouts.images or ()) else rollouts._replace(images=None)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        return self.score_rollouts(Completions(inputs, prompts, completions, completion_ids_list))

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        return self.compute_batch_loss(model, inputs)

    # --- the policy -------------------------------------------------------------------------------------------------

    @property
    def tokenizer(self) -> Any:
        """The student's tokenizer, also where its processor takes images."""
        return self._tokenizer

    def tokenize_prompts(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Token ids of prompts as the policy reads them."""
        prompt_ids, _, _ = self._tokenize_prompts(prompts)
        return [list(ids) for ids in prompt_ids]

    def _get_dataloader(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        # A row of the data set that a group repeats is read once.
        return super()._get_dataloader(rows_once(dataset), *args, **kwargs)

    def _shares_prefill(self) -> bool:
        """Whether the prompt of a group goes through the model once when transformers makes the rollouts."""
        args = self.args
        if not getattr(args, "share_prompt", False) or args.use_vllm or args.use_transformers_continuous_batching:
            return False
        sharded = self.is_fsdp_enabled or (self.is_deepspeed_enabled and is_deepspeed_zero3_enabled())
        if sharded and (self.is_fsdp_enabled or not args.ds3_gather_for_generation):
            logger.warning(
                "The prompts of rollouts are computed once per rollout, not once per group: the model is sharded while "
                "it generates."
            )
            return False
        return True

    def _tokenize_prompts(self, prompts: Sequence[Prompt]) -> tuple[Any, Any, Any]:
        rows = equal_prompts(prompts) if self._rows_are_equal else None
        if rows is None or len(rows.firsts) == len(prompts):
            prompt_ids, images, fields = super()._tokenize_prompts(prompts)
        else:
            prompt_ids, images, fields = self._tokenize_once(prompts, rows)
        if self._colocated is not None and images is not None:
            self._colocated.remember(prompt_ids, self._one_token_per_image(prompts))
        return prompt_ids, images, fields

    def _tokenize_once(self, prompts: Sequence[Prompt], rows: EqualRows) -> tuple[Any, Any, Any]:
        """Token ids and images of all B prompts; the other fields are those of the distinct ones."""
        made, images, given = super()._tokenize_prompts([prompts[row] for row in rows.firsts])
        fields = as_tensors(given)
        if fields is None:
            return super()._tokenize_prompts(prompts)
        prompt_ids = [list(made[place]) for place in rows.index]
        self._tokenized = TokenizedOnce(prompt_ids, rows)
        return prompt_ids, None if images is None else [images[place] for place in rows.index], fields

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        tokenized, self._tokenized = self._tokenized, None
        rows = tokenized.rows if tokenized is not None and tokenized.prompt_ids is prompt_ids else None
        with nullcontext() if rows is None else self._prefill.rows(rows):
            made: tuple[Any, Any] = super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs
            )
        return made

    def _one_token_per_image(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Token ids of `prompts` as the chat template writes them, before the processor puts in an image's tokens."""
        texts: list[str] = self.processing_class.apply_chat_template(
            conversation=prompts,
            tools=self.tools or None,
            chat_template=self.chat_template,
            add_generation_prompt=True,
            tokenize=False,
            **self.chat_template_kwargs,
        )
        # As transformers does it: no second start token where the template writes one.
        start = self.tokenizer.bos_token
        special = start is None or not texts[0].startswith(start)
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=special)["input_ids"]
        return ids

    def reference_sample(self, prompt: Prompt, prompt_ids: Sequence[int], text: str) -> Sample:
        """A completion that was not sampled, its end token included; finished where it is no longer than rollouts are.

        Reward functions get it in the form of a rollout that says the same.
        """
        ids = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.eos_token_ids[0]]
        return Sample(
            tuple(ids),
            text,
            finished=len(ids) <= self.args.max_completion_length,
            completion=None if isinstance(prompt, str) else parsed(self.tokenizer, ids, prompt_ids, self.tools),
        )

    def decode_completions(self, completion_ids: Sequence[Sequence[int]]) -> list[str]:
        """The texts of completions, as reward functions read them."""
        return decode(self._tokenizer, completion_ids)

    def sample_completions(self, prompts: Sequence[Prompt], filler: Prompt) -> list[Sample]:
        """One completion per prompt, made as TRL makes its rollouts: transformers or vLLM, parsed, with tools called.

        Collective, with any number of prompts per process: shorter lists are padded with `filler`, because sharded
        models and the vLLM server expect equal numbers.
        """
        longest = self.processes.max(len(prompts))
        if longest == 0:
            return []
        padded = [*prompts, *[filler] * (longest - len(prompts))]
        with beside_the_batch(self, longest):
            made = Rollouts(*super()._generate(padded))
        texts = self.decode_completions(made.completion_ids)
        return [
            Sample(
                completion_ids=tuple(made.completion_ids[row]),
                text=texts[row],
                logps=None if made.logprobs is None else tuple(logp or 0.0 for logp in made.logprobs[row]),
                finished=self._finished(made.completion_ids[row]),
                # Where TRL has decoded tags away, the text makes the completion.
                completion=None if self._drops_tags else made.completions[row],
                tool_mask=None if made.tool_mask is None else tuple(made.tool_mask[row]),
                images=tuple(made.tool_images[row]) if made.tool_images else (),
            )
            for row in range(len(prompts))
        ]

    @torch.no_grad()
    def completion_logps(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]], filler: Prompt
    ) -> list[list[float]]:
        """Log-probabilities of completions under prompts by the current policy, in nats. Collective, as sampling is."""
        missing = self.processes.max(len(prompts)) - len(prompts)
        size = self.args.per_device_train_batch_size
        template = {**self.chat_template_kwargs, "tools": self.tools or None, "chat_template": self.chat_template}
        padded = [*prompts, *[filler] * missing]
        ids = [*[list(c) for c in completions], *[[self.eos_token_ids[0]]] * missing]
        logps: list[list[float]] = []
        for start in range(0, len(padded), size):
            shown, chunk = padded[start : start + size], ids[start : start + size]
            batch = encode(self.processing_class, shown, chunk, self.accelerator.device, template)
            image_counts = [len(prompt_images(prompt)) for prompt in shown]
            values, _, _ = self._get_per_token_logps_and_entropies(
                self.model,
                batch.pop("input_ids"),
                batch.pop("attention_mask"),
                max(len(c) for c in chunk),
                num_images=image_counts if any(image_counts) else None,
                **batch,
            )
            logps += [row[: len(c)].tolist() for row, c in zip(values, chunk, strict=True)]
        return logps[: len(prompts)]

    # --- rewards, metrics, checkpoints ------------------------------------------------------------------------------

    def call_reward(self, index: int, of: Completions, *, log_metrics: bool = False) -> list[RowReward]:
        """The rewards of the reward function `index` for at least one completion of this process alone.

        TRL's own way calls every function and gathers over processes, which exploration cannot use: its processes
        verify different numbers of samples. `log_metrics` says whether what the function logs goes into this step's
        metrics.

        Raises:
            ConfigError: The function returned, or logged in a column, another number of values than there are rows.
        """
        function, name = self.reward_funcs[index], self.reward_func_names[index]
        columns: dict[str, list[Any]] = defaultdict(list)
        arguments: dict[str, Any] = {
            **{key: [row[key] for row in of.rows] for key in of.rows[0] if key not in ("prompt", "completion")},
            "prompts": list(of.prompts),
            "completions": list(of.completions),
            "completion_ids": [list(ids) for ids in of.completion_ids],
            "completion_finished": [self._finished(ids) for ids in of.completion_ids],
            "reasoning_opened": self._reasoning_opened(of),
            "trainer_state": self.state,
            "log_extra": lambda column, values: columns[column].extend(values),
            "log_metric": self._log_metric if log_metrics else lambda name, value: None,
        }
        if is_async_callable(function):
            rewards = asyncio.run_coroutine_threadsafe(function(**arguments), self.async_loop).result()
        else:
            rewards = function(**arguments)
        for what, values in (("rewards", rewards), *((f"values of {column!r}", v) for column, v in columns.items())):
            if len(values) != len(of.rows):
                raise ConfigError(
                    f"The reward function {name!r} gave {len(values)} {what} for {len(of.rows)} completions. It must "
                    "give one for each."
                )
        return [
            RowReward(float("nan") if reward is None else float(reward), {c: v[row] for c, v in columns.items()})
            for row, reward in enumerate(rewards)
        ]

    def _finished(self, completion_ids: Sequence[int]) -> bool:
        """Whether a completion ended by itself, as TRL decides it."""
        return bool(completion_ids) and completion_ids[-1] in (*self.eos_token_ids, self._tokenizer.pad_token_id)

    def _reasoning_opened(self, of: Completions) -> list[bool]:
        """Whether each prompt ended with an opened `<think>`, so that its completion begins inside the reasoning."""
        if self._parses_responses:
            return [False] * len(of.prompts)  # the messages say what is reasoning
        template = {"chat_template": self.chat_template} if self.chat_template else {}
        return reasoning_opened(self.processing_class, of.prompts, self.chat_template_kwargs, **template)

    @property
    def _drops_tags(self) -> bool:
        """Whether TRL decodes away tags of answer and reasoning, because they are special tokens."""
        return not self._parses_responses and bool(special_tags(self._tokenizer))

    @property
    def _parses_responses(self) -> bool:
        """Whether TRL takes completions apart by the tokenizer's response schema."""
        schemas = ("response_template", "response_schema")
        return any(getattr(self._tokenizer, name, None) is not None for name in schemas)

    def save_checkpoint(self) -> None:
        """Write a checkpoint of the current step. Collective."""
        self._save_checkpoint(self.model, trial=None)

    @property
    def teacher_sharding(self) -> Callable[[Any], Any] | None:
        """How a local teacher is sharded under this launch: as TRL shards its reference model; None: not at all."""
        if self.is_deepspeed_enabled:
            return lambda module: prepare_deepspeed(module, self.accelerator)
        if self.is_fsdp_enabled:
            return lambda module: prepare_fsdp(module, self.accelerator)
        return None
