"""Which private names of TRL are used, and a check that the installed TRL still has them as expected."""

from __future__ import annotations

import inspect

from trl import GRPOTrainer
from trl.generation.vllm_generation import VLLMGeneration

# What `KEPOTrainer` overrides or calls, with the parameters it counts on.
EXPECTED_METHODS: dict[str, tuple[str, ...]] = {
    "_generate": ("prompts",),
    "_generate_and_score_completions": ("inputs",),
    "_calculate_rewards": ("inputs", "prompts", "completions", "completion_ids_list"),
    "_compute_loss": ("model", "inputs"),
    "_get_per_token_logps_and_entropies": (
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "batch_size",
        "num_images",
    ),
    "_tokenize_prompts": ("prompts",),
    "_generate_single_turn": ("prompt_ids", "images", "multimodal_fields", "num_generations"),
}
# Text that must stand in a method's source, because no signature shows it.
EXPECTED_SOURCE: dict[str, tuple[str, ...]] = {
    "_generate": (
        "return prompt_ids, completion_ids, tool_mask, completions, logprobs, extra_fields, images, tool_images",
    ),
    "_generate_and_score_completions": (
        'float("nan") if x is None else x',  # a sampling log-probability of None means "no correction"
        "torch.nan_to_num(per_token_logps_diff, nan=0.0)",
        '"advantages": advantages',
        '"completion_mask": completion_mask',
    ),
    "_compute_loss": ('inputs.get("old_per_token_logps")', "compute_entropy=True"),
    "_get_per_token_logps_and_entropies": ("fused_lm_head=True", "model(**model_inputs"),
    "_calculate_rewards": ("rewards_per_func = gather(rewards_per_func)",),
}
EXPECTED_ATTRIBUTES = (
    "_metrics",
    "_step",
    "_tokenizer",
    "_is_vlm",
    "reward_func_names",
    "reward_weights",
    "aux_loss_enabled",
)
# A colocated vLLM expands images itself, and says what prompts it came to.
_EXPECTED_OF_VLLM = (
    'row["multi_modal_data"] = ',
    "all_prompt_ids = [output.prompt_token_ids for output in all_outputs]",
    "return prompt_ids, completion_ids, logprobs, logprob_token_ids",
)


def moved_seams() -> list[str]:
    """What the installed TRL no longer has as this package expects it, one sentence each; empty when all is well."""
    moved = []
    for name, parameters in EXPECTED_METHODS.items():
        method = getattr(GRPOTrainer, name, None)
        if method is None:
            moved.append(f"trl.GRPOTrainer.{name} is gone.")
            continue
        missing = [p for p in parameters if p not in inspect.signature(method).parameters]
        if missing:
            moved.append(f"trl.GRPOTrainer.{name} no longer takes {', '.join(missing)}.")
        source = inspect.getsource(inspect.unwrap(method))
        moved += [
            f"trl.GRPOTrainer.{name} no longer contains {text!r}."
            for text in EXPECTED_SOURCE.get(name, ())
            if text not in source
        ]
    source = inspect.getsource(GRPOTrainer)
    moved += [
        f"trl.GRPOTrainer no longer sets self.{name}." for name in EXPECTED_ATTRIBUTES if f"self.{name}" not in source
    ]
    source = inspect.getsource(VLLMGeneration.generate)
    moved += [
        f"trl's VLLMGeneration.generate no longer contains {text!r}."
        for text in _EXPECTED_OF_VLLM
        if text not in source
    ]
    return moved
