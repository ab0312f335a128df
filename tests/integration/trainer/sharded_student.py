"""The student's divergence under FSDP2: gradients of two processes against those of one. Run by test_processes.py."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM

from kepo.objective.divergence import OutputHead
from kepo.teachers.base import DenseScores
from kepo.trainer.adapter.forward import DistillationTarget, TokenPass, add_token_pass

ROWS, TOKENS, LENGTH = 2, 3, 7


def loss_of(model: torch.nn.Module, ids: torch.Tensor, target: DistillationTarget) -> torch.Tensor:
    """Policy-like and distillation loss of one process, from one forward."""
    states = torch.arange(ROWS * LENGTH).view(ROWS, LENGTH)[:, -TOKENS - 1 : -1].flatten()
    gated = target.weights.flatten() > 0
    wanted = TokenPass(states, ids[:, -TOKENS:].flatten(), 1.0, entropy=True, target=target, gated=gated)
    output = model(input_ids=ids, token_pass=wanted)
    return output.logps.sum() / 10 + output.divergence.sum()


def main(folder: str) -> None:
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    whole = AutoModelForCausalLM.from_pretrained(folder)
    vocabulary = whole.config.vocab_size
    batches, targets = [], []
    for process in range(world):
        batches.append(torch.randint(5, vocabulary, (ROWS, LENGTH)))
        # The last process has no gated token at all, and must still take part in every gather.
        weights = torch.ones(ROWS, TOKENS) if process == 0 else torch.zeros(ROWS, TOKENS)
        scores = [DenseScores(torch.randn(TOKENS, 16), torch.zeros(TOKENS)) if process == 0 else None] * ROWS
        targets.append((weights, scores))
    teacher_head = OutputHead(torch.randn(vocabulary, 16))
    made = [DistillationTarget(w, s, teacher_head, 0.5, 1.0, 2) for w, s in targets]

    sharded = AutoModelForCausalLM.from_pretrained(folder)
    for model in (whole, sharded):
        add_token_pass(model)
    sum(loss_of(whole, ids, target) for ids, target in zip(batches, made, strict=True)).div(world).backward()

    mesh = init_device_mesh("cpu", (world,))
    for layer in sharded.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh, reshard_after_forward=True)
    loss_of(sharded, batches[rank], made[rank]).backward()
    for name, parameter in sharded.named_parameters():
        expected = whole.get_parameter(name).grad
        assert expected is not None, name
        torch.testing.assert_close(parameter.grad.full_tensor(), expected, rtol=1e-4, atol=1e-5, msg=name)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
