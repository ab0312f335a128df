"""`kepo plan` against measurement: every formula beside what torch really keeps.

    python -m benchmarks.memory                                  # small models on the CPU, a minute
    python -m benchmarks.memory --device cuda                    # the same on a GPU
    python -m benchmarks.memory --device cuda --model Qwen/Qwen3-VL-2B-Instruct --rows 4 --tokens 1424

Weights are random; with `--model` only a config is read. On the CPU the tensors that autograd saves are counted by
hooks, and peaks by torch's memory tracker; on a GPU the allocator is asked (`torch.cuda.max_memory_allocated`).
Ratios are predicted / measured.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import AutoConfig, AutoModelForImageTextToText, DynamicCache
from trl.trainer.utils import add_fused_lm_head

from kepo.models.llava import LlavaSize, build_llava
from kepo.models.packing import TokenRow, rows_of
from kepo.models.shared_prompt import SharedPrompt
from kepo.objective import DenseTeacher, OutputHead, token_terms
from kepo.planning import activations
from kepo.planning.activations import AUTOCAST, BFLOAT16, FLOAT32, Precision
from kepo.planning.architecture import Architecture, load_architecture, measure_architecture, published_config
from kepo.planning.sequences import Sequences, sequences_of
from kepo.types import Question

MODES: dict[str, tuple[torch.dtype, Precision]] = {
    "float32": (torch.float32, FLOAT32),
    "bfloat16": (torch.bfloat16, BFLOAT16),
    "autocast": (torch.float32, AUTOCAST),
}
LLAVAS = {
    "LLaVA small": LlavaSize(vision_width=96, vision_layers=2, text_width=128, text_layers=4),
    "LLaVA wide": LlavaSize(vision_width=192, vision_layers=4, text_width=384, text_layers=6),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison.

    Attributes:
        model: Which model.
        part: What was measured.
        predicted: Bytes by the formula.
        measured: Bytes that were there.
    """

    model: str
    part: str
    predicted: int
    measured: int

    @property
    def ratio(self) -> float:
        """Predicted / measured."""
        return self.predicted / self.measured


def qwen3_vl_small(layers: int = 4, hidden: int = 256) -> Any:
    """A scaled-down Qwen3-VL: the published architecture, narrow and shallow, with random weights."""
    found = published_config("Qwen/Qwen3-VL-2B-Instruct")
    assert found is not None
    fields = found[0].to_dict()
    fields["text_config"] |= {
        "hidden_size": hidden, "intermediate_size": 3 * hidden, "num_hidden_layers": layers, "vocab_size": 2048,
        "num_attention_heads": hidden // 64, "num_key_value_heads": hidden // 128, "head_dim": 128,
        "pad_token_id": 0, "dtype": None,
    }  # fmt: skip
    fields["vision_config"] |= {
        "depth": 4, "hidden_size": 128, "intermediate_size": 512, "num_heads": 4, "out_hidden_size": hidden,
        "deepstack_visual_indexes": [0, 1, 2], "num_position_embeddings": 256, "dtype": None,
    }  # fmt: skip
    fields |= {
        "image_token_id": 2000, "video_token_id": 2001, "vision_start_token_id": 2002, "vision_end_token_id": 2003
    }  # fmt: skip
    fields.pop("dtype", None)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    return AutoModelForImageTextToText.from_config(config)


def llava(size: LlavaSize) -> Any:
    """The LLaVA of `kepo.models`, untrained."""
    question = Question(id="q", text="What does the image show?", answer="A", options=("MRI", "CT"))
    with tempfile.TemporaryDirectory() as folder:
        build_llava(Path(folder) / "model", [question], size=size, image_size=96, patch_size=12)
        return AutoModelForImageTextToText.from_pretrained(Path(folder) / "model")


def inputs_of(model: Any, rows: int, tokens: int, image_size: int, device: torch.device) -> dict[str, torch.Tensor]:
    """A batch of `rows` sequences of `tokens` tokens, one image each; the second half of a row is its completion."""
    config = model.config
    sizes = measure_architecture(model, "", "")
    assert sizes.tower is not None
    image_tokens = sizes.tower.tokens(image_size)
    ids = torch.randint(5, min(sizes.decoder.vocab, 1000), (rows, tokens), device=device)
    ids[ids == config.image_token_id] = 5
    ids[:, 2 : 2 + image_tokens] = config.image_token_id
    mask = torch.ones_like(ids)
    mask[0, 0] = 0  # a batch with padding, as rollouts are
    batch = {"input_ids": ids, "attention_mask": mask}
    if sizes.tower.merge == 1:
        side = sizes.tower.image_size
        batch["pixel_values"] = torch.randn(rows, 3, side, side, device=device, dtype=model.dtype)
        return batch
    side = image_size // sizes.tower.patch
    vision = config.vision_config
    width = 3 * vision.temporal_patch_size * vision.patch_size**2
    batch["pixel_values"] = torch.randn(rows * side * side, width, device=device, dtype=model.dtype)
    batch["image_grid_thw"] = torch.tensor([[1, side, side]] * rows, device=device)
    batch["mm_token_type_ids"] = (ids == config.image_token_id).int()
    return batch


def kept_for_backward(
    run: Callable[[], Any], not_counted: set[int], not_shaped: Collection[tuple[int, ...]] = ()
) -> int:
    """Bytes of the storages that autograd saves in `run`, each once.

    Args:
        run: The forward pass.
        not_counted: Addresses of storages that are there anyway: weights and inputs.
        not_shaped: Shapes that are not counted either.
    """
    storages: dict[int, int] = {}
    alive: list[torch.Tensor] = []  # a freed storage's address could be given out again

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in not_counted and tuple(tensor.shape) not in not_shaped:
            storages[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        alive.append(run())
    return sum(storages.values())


def peak_of(run: Callable[[], Any], device: torch.device, there: Sequence[torch.Tensor] = ()) -> int:
    """Most bytes that `run` holds at once beyond what was there before: `there`, which torch's tracker counts too."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    tracker = MemTracker()
    with tracker:
        run()
    return int(tracker.get_tracker_snapshot("peak")[device]["Total"]) - _bytes(there)


def allocated_by(run: Callable[[], Any]) -> tuple[int, Any]:
    """Bytes that the result of `run` holds on a GPU."""
    gc.collect()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    result = run()
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated() - before, result


def static_rows(name: str, model: Any) -> Iterator[Row]:
    """Weights, gradients and Adam's states in float32, exactly."""
    sizes = measure_architecture(model, name, "")
    yield Row(name, "weights", sizes.parameters * 4, _bytes(model.parameters()))
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    yield Row(name, "gradients", sizes.parameters * 4, _bytes(p.grad for p in model.parameters()))
    optimizer.step()
    states = [v for state in optimizer.state.values() for k, v in state.items() if k.startswith("exp_avg")]
    yield Row(name, "optimizer states", sizes.parameters * 8, _bytes(states))
    optimizer.zero_grad(set_to_none=True)


def activation_rows(
    name: str, model: Any, rows: int, tokens: int, image_size: int, device: torch.device
) -> Iterator[Row]:
    """What a forward pass keeps, in each arithmetic, with and without checkpointing."""
    sizes = measure_architecture(model, name, "")
    for mode, (dtype, precision) in MODES.items():
        model = model.to(device, dtype).train()
        batch = inputs_of(model, rows, tokens, image_size, device)
        for checkpointing in (False, True):
            model.gradient_checkpointing_enable() if checkpointing else model.gradient_checkpointing_disable()
            measured = _kept(model, batch, mode, device)
            alone = Sequences(rows, rows, rows, tokens)
            predicted = activations_of(sizes, alone, rows, image_size, precision, checkpointing)
            yield Row(name, f"activations, {mode}{', checkpointing' if checkpointing else ''}", predicted, measured)
    model.gradient_checkpointing_disable()


def packed_rows(
    name: str, model: Any, groups: int, size: int, tokens: int, image_size: int, device: torch.device
) -> Iterator[Row]:
    """What a forward pass over packs keeps: `groups` prompts of half of `tokens`, `size` completions of each."""
    sizes = measure_architecture(model, name, "")
    length = tokens // 2
    read = sequences_of([size] * groups, tokens - length, length, sizes.cost)
    assert read.count < read.rows, "the cost keeps these rows alone, so that nothing of packs would be measured"
    for mode, (dtype, precision) in MODES.items():
        model = model.to(device, dtype).train()
        packed = SharedPrompt(model, 0, name).pack(group_rows(model, groups, size, tokens, image_size, device), device)
        for checkpointing in (False, True):
            model.gradient_checkpointing_enable() if checkpointing else model.gradient_checkpointing_disable()
            measured = _kept(model, packed.inputs, mode, device)
            # An image for each pack.
            predicted = activations_of(sizes, read, read.count, image_size, precision, checkpointing)
            yield Row(name, f"packs, {mode}{', checkpointing' if checkpointing else ''}", predicted, measured)
    model.gradient_checkpointing_disable()


def group_rows(
    model: Any, groups: int, size: int, tokens: int, image_size: int, device: torch.device
) -> list[TokenRow]:
    """`size` rows of each of `groups` prompts with an image; the second half of a row is its own completion."""
    batch = inputs_of(model, groups, tokens, image_size, device)
    ids = batch.pop("input_ids").repeat_interleave(size, dim=0)
    length = tokens // 2
    ids[:, tokens - length :] = torch.randint(5, 100, (groups * size, length), device=device)
    del batch["attention_mask"]
    fields = {}
    for field, value in batch.items():
        each = value.unflatten(0, (groups, -1))  # the entries of each prompt
        fields[field] = each.repeat_interleave(size, dim=0).flatten(0, 1)
    return rows_of(ids, torch.ones_like(ids), length, fields)


def activations_of(
    sizes: Architecture, read: Sequences, images: int, image_size: int, precision: Precision, checkpointing: bool
) -> int:
    """The plan's number for what autograd saves in a whole forward pass: additive masks too, but not their origin."""
    assert sizes.tower is not None
    decoder = replace(sizes.decoder, masks=0)
    patches = images * sizes.tower.patches(image_size)
    layers = 0 if checkpointing else decoder.layers
    return (
        activations.decoder_bytes(decoder, read.tokens, precision, checkpointing)
        + activations.mask_bytes(decoder, read.count, read.longest, precision, layers)
        + activations.tower_bytes(sizes.tower, patches, precision, checkpointing)
        + activations.mergers_bytes(sizes.tower, decoder, patches, precision)
    )


def _kept(model: Any, batch: dict[str, torch.Tensor], mode: str, device: torch.device) -> int:
    def run() -> Any:
        with _autocast(mode, device):
            return model.base_model(**batch, use_cache=False).last_hidden_state

    if device.type == "cuda" and mode != "autocast":
        return allocated_by(run)[0]
    there = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers(), *batch.values()]}
    # Copies of weights that autocast makes are a part of the plan of their own. Rows and tokens are chosen so that no
    # activation has the shape of a weight.
    weights = {tuple(p.shape) for p in model.parameters()} if mode == "autocast" else set()
    return kept_for_backward(run, there, weights | {shape[::-1] for shape in weights})


def cache_rows(name: str, model: Any, rows: int, tokens: int, image_size: int, device: torch.device) -> Iterator[Row]:
    """The key-value cache after reading `tokens` tokens."""
    sizes = measure_architecture(model, name, "")
    for mode, (dtype, precision) in MODES.items():
        model = model.to(device, dtype).eval()
        batch = inputs_of(model, rows, tokens, image_size, device)
        with torch.no_grad(), _autocast(mode, device):
            cache = DynamicCache(config=model.config.get_text_config())
            model(**batch, past_key_values=cache, use_cache=True, logits_to_keep=1)
        measured = _bytes(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))
        yield Row(
            name,
            f"key-value cache, {mode}",
            activations.kv_cache_bytes(sizes.decoder, rows, tokens, precision),
            measured,
        )


def head_rows(tokens: int, hidden: int, vocab: int, chunk: int, device: torch.device) -> Iterator[Row]:
    """Peaks of the loss's terms of all tokens, forward and backward: by our pass, and by TRL's kernel on a GPU."""
    weight = torch.nn.Parameter(torch.randn(vocab, hidden, device=device) * 0.02)
    other = torch.randn(vocab, hidden, device=device) * 0.02
    student = torch.randn(tokens, hidden, device=device, requires_grad=True)
    teacher = torch.randn(tokens, hidden, device=device)

    sampled = torch.randint(0, vocab, (tokens,), device=device)

    def terms() -> None:
        known = DenseTeacher(teacher, OutputHead(other))
        found = token_terms(student, OutputHead(weight), sampled, teacher=known, chunk_size=chunk)
        (found.logps.sum() + found.divergence.sum()).backward()
        weight.grad = student.grad = None

    label = f"{tokens} tokens, vocabulary {vocab}"
    predicted = activations.one_pass_bytes(tokens, hidden, vocab, FLOAT32, weight=4, teacher=4, most=chunk)
    measured = peak_of(terms, device, [weight, other, student, teacher, sampled])
    yield Row(label, f"output head, chunks of {chunk}", predicted, measured)
    if device.type != "cuda":
        return  # TRL's kernel of the log-probabilities is Triton's; its stand-in on a CPU holds other tensors
    model = _HeadOnly(weight)
    ids = torch.randint(0, vocab, (1, tokens + 1), device=device)
    states = torch.randn(1, tokens + 1, hidden, device=device, requires_grad=True)

    def policy() -> None:
        model(states, labels=ids, fused_lm_head=True).log_probs.sum().backward()
        weight.grad = states.grad = None

    predicted = activations.trl_policy_bytes(tokens, hidden, vocab, compute=4, weight=4)
    yield Row(label, "log-probabilities by TRL's kernel", predicted, peak_of(policy, device))


class _HeadOnly(torch.nn.Module):
    """An output head under TRL's fused forward, with the identity as its backbone."""

    def __init__(self, weight: torch.nn.Parameter) -> None:
        super().__init__()
        self.lm_head = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        self.lm_head.weight = weight
        self.config = AutoConfig.for_model("qwen3")
        add_fused_lm_head(self)  # type: ignore[arg-type]

    def forward(self, states: torch.Tensor) -> Any:
        raise NotImplementedError("only the fused head is measured")

    def base_model(self, states: torch.Tensor, **_: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=states)

    def get_output_embeddings(self) -> torch.nn.Linear:
        return self.lm_head


def training_rows(
    name: str, model: Any, rows: int, tokens: int, image_size: int, device: torch.device
) -> Iterator[Row]:
    """A GPU's peak of one bfloat16 forward and backward pass with checkpointing, as an optimizer step has it."""
    sizes = measure_architecture(model, name, "")
    model = model.to(device, torch.bfloat16).train()
    model.gradient_checkpointing_enable()
    add_fused_lm_head(model)
    batch = inputs_of(model, rows, tokens, image_size, device)
    labels = batch["input_ids"].clone()
    labels[:, : tokens // 2] = -100

    def step() -> None:
        model(**batch, labels=labels, fused_lm_head=True).log_probs.sum().backward()

    assert sizes.tower is not None
    predicted = (
        sizes.parameters * 2
        + activations_of(sizes, Sequences(rows, rows, rows, tokens), rows, image_size, BFLOAT16, checkpointing=True)
        + activations.decoder_layer_bytes(sizes.decoder, rows * tokens, BFLOAT16)
        + activations.trl_policy_bytes(rows * tokens // 2, sizes.decoder.hidden, sizes.decoder.vocab, 2, weight=2)
    )
    yield Row(name, "optimizer step: gradients, activations, logits (peak)", predicted, peak_of(step, device))
    model.zero_grad(set_to_none=True)


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@contextmanager
def _autocast(mode: str, device: torch.device) -> Iterator[None]:
    context: AbstractContextManager[Any] = nullcontext()
    if mode == "autocast":
        context = torch.autocast(device.type, dtype=torch.bfloat16)
    with context:
        yield


def small_models() -> Iterator[tuple[str, Any, int]]:
    """Name, model and image size of what runs on a CPU."""
    for name, size in LLAVAS.items():
        yield name, llava(size), 96
    yield "Qwen3-VL scaled down", qwen3_vl_small(), 128
    yield "Qwen3-VL scaled down, wider", qwen3_vl_small(layers=6, hidden=512), 128


def compare(device: torch.device, model_name: str | None, rows: int, tokens: int) -> Iterator[Row]:
    """All rows of the report."""
    models: Iterator[tuple[str, Any, int]] = small_models()
    if model_name is not None:
        found = published_config(model_name)
        config = found[0] if found else AutoConfig.from_pretrained(model_name)
        with torch.device(device):
            models = iter([(load_architecture(model_name).name, AutoModelForImageTextToText.from_config(config), 384)])
    for name, model, image_size in models:
        model = model.to(device, torch.float32)
        yield from static_rows(name, model)
        yield from activation_rows(name, model, rows, tokens, image_size, device)
        yield from packed_rows(name, model, 1, rows, tokens, image_size, device)
        yield from cache_rows(name, model, rows, tokens, image_size, device)
        if device.type == "cuda":
            yield from training_rows(name, model, rows, tokens, image_size, device)
    for chunk in (64, 256):
        yield from head_rows(tokens=512, hidden=256, vocab=32768, chunk=chunk, device=device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", help="a published name, a folder or a hub name; only its config is read")
    parser.add_argument("--rows", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=190)
    args = parser.parse_args()
    torch.manual_seed(0)
    sys.stdout.write("| model | part | predicted MiB | measured MiB | ratio |\n| --- | --- | --- | --- | --- |\n")
    for row in compare(torch.device(args.device), args.model, args.rows, args.tokens):
        mib = 1024**2
        sys.stdout.write(
            f"| {row.model} | {row.part} | {row.predicted / mib:.2f} | {row.measured / mib:.2f} | {row.ratio:.3f} |\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
