"""Which names of TRL are used that no documentation promises, and a check that the installed TRL still has them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from trl import GRPOTrainer
from trl.generation.vllm_generation import VLLMGeneration

# Methods that are overridden or called: the parameters, and the text of their source, that the adapter depends on.
EXPECTED_METHODS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "_generate": (
        ("prompts",),
        (
            "return prompt_ids, completion_ids, tool_mask, completions, logprobs, extra_fields, images, tool_images",
            "num_generations = self.num_generations if",
            "prompts = copy.deepcopy(prompts)",  # the tool loop adds to the prompts
            'getattr(self._tokenizer, "response_schema", None) is not None',  # a reference is parsed where rollouts are
        ),
    ),
    "_generate_and_score_completions": (
        ("inputs",),
        (
            'float("nan") if x is None else x',  # a sampling log-probability of None means "no correction"
            "torch.nan_to_num(per_token_logps_diff, nan=0.0)",
            '"advantages": advantages',
            '"completion_mask": completion_mask',
            "self._pending_metrics.clear()",  # what rewards logged before belongs to this batch
        ),
    ),
    "_calculate_rewards": (
        ("inputs", "prompts", "completions", "completion_ids_list"),
        ("rewards_per_func = gather(rewards_per_func)", "self.reward_funcs", 'reward_kwargs["log_extra"]'),
    ),
    "_log_metric": (("name", "value"), ("self._pending_metrics[name].append(value)",)),
    "_compute_loss": (
        ("model", "inputs"),
        (
            'inputs.get("old_per_token_logps")',
            "compute_entropy=True",
            'self._metrics[mode]["entropy"].append(global_masked_mean(entropies))',
        ),
    ),
    "_get_per_token_logps_and_entropies": (
        (
            *("model", "input_ids", "attention_mask", "logits_to_keep", "batch_size"),
            *("compute_entropy", "compute_aux_loss", "num_images", "num_tiles"),
        ),
        ("fused_lm_head=True", 'model_inputs["output_router_logits"] = True'),
    ),
    "_prepare_inputs": (
        ("generation_batch",),
        (
            "generate_every = self.args.steps_per_generation * self.num_iterations",
            "if self._step % generate_every == 0 or self._buffered_inputs is None",
            "inputs = self._buffered_inputs[self._step % self.args.steps_per_generation]",
        ),
    ),
    "_tokenize_prompts": (("prompts",), ("return prompt_ids, images, multimodal_fields",)),
    "_get_dataloader": (("dataset",), ()),
    "_generate_single_turn": (
        ("prompt_ids", "images", "multimodal_fields", "num_generations"),
        ("for k, v in multimodal_fields.items()", "generate_inputs[k] = torch.tensor(np.array(v))"),
    ),
    "_save_checkpoint": (("model", "trial"), ()),
}
EXPECTED_ATTRIBUTES = (
    "_async_tool_dicts",
    "_buffered_inputs",
    "_entropy_bonus_enabled",
    "_is_vlm",
    "_metrics",
    "_step",
    "_sync_tool_dicts",
    "_tokenizer",
    "async_loop",
    "chat_template",
    "chat_template_kwargs",
    "eos_token_ids",
    "num_generations",
    "reward_func_names",
    "reward_funcs",
    "reward_weights",
    "tools",
    "vllm_generation",
)
EXPECTED_CLASS_ATTRIBUTES = ("_tag_names", "_name", "_paper")
# A colocated vLLM expands images itself, and says what prompts it came to.
_EXPECTED_OF_VLLM = (
    'row["multi_modal_data"] = ',
    "all_prompt_ids = [output.prompt_token_ids for output in all_outputs]",
    "return prompt_ids, completion_ids, logprobs, logprob_token_ids",
)


def changed_trl_names() -> list[str]:
    """What the installed TRL no longer has as the adapter expects it, one sentence each; empty when all is well."""
    changed = []
    for name, (parameters, texts) in EXPECTED_METHODS.items():
        method = getattr(GRPOTrainer, name, None)
        if method is None:
            changed.append(f"trl.GRPOTrainer.{name} is gone.")
            continue
        missing = [p for p in parameters if p not in inspect.signature(method).parameters]
        if missing:
            changed.append(f"trl.GRPOTrainer.{name} no longer takes {', '.join(missing)}.")
        changed += _missing_texts(f"GRPOTrainer.{name}", method, texts)
    source = inspect.getsource(GRPOTrainer)
    unset = [name for name in EXPECTED_ATTRIBUTES if f"self.{name}" not in source]
    changed += [f"trl.GRPOTrainer no longer sets self.{name}." for name in unset]
    gone = [name for name in EXPECTED_CLASS_ATTRIBUTES if name not in vars(GRPOTrainer)]
    changed += [f"trl.GRPOTrainer.{name} is gone." for name in gone]
    return changed + _missing_texts("VLLMGeneration.generate", VLLMGeneration.generate, _EXPECTED_OF_VLLM)


def _missing_texts(name: str, method: Callable[..., Any], texts: tuple[str, ...]) -> list[str]:
    source = inspect.getsource(inspect.unwrap(method))
    return [f"trl's {name} no longer contains {text!r}." for text in texts if text not in source]
