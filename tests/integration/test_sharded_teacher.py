"""A teacher sharded over two processes: one has rows, the other has none, and nobody waits for anybody."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from kepo.teachers.base import ScoreRequest
from kepo.teachers.local import LocalTeacher
from kepo.types import Prompt
from tests.tiny_models import build_text_model, build_vlm, tiny_image

WORLD = 2


def ask(text: str, colour: int | None = None) -> Prompt:
    if colour is None:
        return [{"role": "user", "content": text}]
    return [
        {"role": "user", "content": [{"type": "image", "image": tiny_image(colour)}, {"type": "text", "text": text}]}
    ]


def rows(vlm: bool) -> list[ScoreRequest]:
    """Three rows: with a batch size of 1, three forward passes."""
    return [
        ScoreRequest(ask("What does the image show?", 1 if vlm else None), (40, 41, 2)),
        ScoreRequest(ask("What is 12 plus 30?"), (50,)),
        ScoreRequest(ask("Is it A) MRI or B) CT?"), (60, 61, 62, 63)),
    ]


def questions(vlm: bool) -> list[Any]:
    return [row.prompt for row in rows(vlm)][:2]


def teacher_of(folder: Path) -> LocalTeacher:
    return LocalTeacher(folder, batch_size=1, hint_temperature=0, hint_max_new_tokens=5)


def shard_blocks(model: Any) -> Any:
    """Every block is gathered on its own, those of the image tower too: any difference between processes would hang."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (WORLD,))
    for module in model.modules():
        if is_block(module):
            fully_shard(module, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def shard_flat(model: Any) -> Any:
    """FSDP's first version: wraps instead of changing the model, with flat parameters."""
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.fsdp.wrap import lambda_auto_wrap_policy

    policy = partial(lambda_auto_wrap_policy, lambda_fn=is_block)
    return FullyShardedDataParallel(model, auto_wrap_policy=policy, device_id=torch.device("cpu"))


SHARDING = {"fsdp1": shard_flat, "fsdp2": shard_blocks}


def is_block(module: torch.nn.Module) -> bool:
    return type(module).__name__.endswith(("DecoderLayer", "EncoderLayer"))


def local_parameters(model: Any) -> int:
    return sum((p.to_local() if hasattr(p, "to_local") else p).numel() for p in model.parameters())


def max_over_processes(count: int) -> int:
    most = torch.tensor([count])
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return int(most)


def work(rank: int, port: int, folder: Path, vlm: bool, sharding: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(WORLD))
    dist.init_process_group("gloo", rank=rank, world_size=WORLD, timeout=timedelta(seconds=60))
    teacher = teacher_of(folder)
    teacher.place("cpu", SHARDING[sharding], max_over_processes)
    found = {
        "parameters": local_parameters(teacher.model),
        "head_rows": teacher.head.weight.shape[0],
        "scores": [(s.hidden, s.token_logps) for s in teacher.score(rows(vlm) if rank == 0 else [])],
        "hints": teacher.write_hints(questions(vlm) if rank == 0 else []),
        "scores_again": [s.token_logps for s in teacher.score(rows(vlm)[:1] if rank == 1 else [])],
    }
    torch.save(found, folder / f"found{rank}.pt")
    dist.destroy_process_group()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "sharding"), [("llama", "fsdp2"), ("llava", "fsdp2"), ("llava", "fsdp1")])
def test_a_sharded_teacher_gives_the_whole_teacher_s_scores_and_hints(
    tmp_path: Path, architecture: str, sharding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    vlm = architecture == "llava"
    folder = build_vlm(tmp_path, architecture) if vlm else build_text_model(tmp_path, architecture)
    torch.multiprocessing.spawn(work, args=(free_port(), folder, vlm, sharding), nprocs=WORLD)
    first, second = (torch.load(folder / f"found{rank}.pt") for rank in range(WORLD))

    whole = teacher_of(folder)
    share = (first["parameters"] + second["parameters"]) / 2 / local_parameters(whole.model)
    assert share == pytest.approx(0.5, abs=0.01)
    assert first["head_rows"] == second["head_rows"] == whole.head.weight.shape[0]
    expected = whole.score(rows(vlm))
    assert second["scores"] == []
    for (hidden, logps), scores in zip(first["scores"], expected, strict=True):
        torch.testing.assert_close(hidden, scores.hidden, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(logps, scores.token_logps, atol=1e-5, rtol=1e-5)
    assert second["hints"] == []
    assert first["hints"] == whole.write_hints(questions(vlm))
    assert first["scores_again"] == []
    torch.testing.assert_close(second["scores_again"][0], expected[0].token_logps, atol=1e-5, rtol=1e-5)
