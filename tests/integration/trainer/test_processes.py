"""Two processes give the same optimizer step as one, also when a group lies on both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kepo.exploration import HintBank
from kepo.runs import read_rollouts

REPOSITORY = Path(__file__).parents[3]
SCRIPT = Path(__file__).parent / "distributed_run.py"


def _run(processes: int, student: str, teacher: str, out: Path, group_size: int) -> None:
    launcher = (
        [] if processes == 1 else ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--standalone"]
    )
    command = [sys.executable, *launcher, str(SCRIPT), student, teacher, str(out), str(group_size)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("group_size", [4, 8], ids=["group on one process", "group over both processes"])
def test_two_processes_give_the_update_of_one(
    student: str, teacher_folder: str, tmp_path: Path, group_size: int
) -> None:
    _run(1, student, teacher_folder, tmp_path / "one", group_size)
    _run(2, student, teacher_folder, tmp_path / "two", group_size)
    one, two = (load_file(tmp_path / name / "end.safetensors") for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=2e-6, msg=name)

    key = ("step", "id", "completion", "reward", "injected", "hint")
    rows = [
        sorted(str([row[k] for k in key]) for row in read_rollouts(tmp_path / name).to_pylist())
        for name in ("one", "two")
    ]
    assert rows[0] == rows[1]
    assert any("True" in row for row in rows[0]), "some group must be rescued"
    calls = {path.read_text() for path in (tmp_path / "two").glob("calls-*.txt")}
    assert len(calls) == 1, "every process must make the same number of calls, of the policy and of the teacher"

    scored = [[int(path.read_text()) for path in (tmp_path / name).glob("scored-*.txt")] for name in ("one", "two")]
    assert sum(scored[0]) == sum(scored[1]) > 3 * 8, "the correctness reward is called once for each completion"

    banks = [HintBank.open(tmp_path / name / "hints.jsonl") for name in ("one", "two")]
    for bank in banks:
        bank.tidy()
    assert banks[0].hints == banks[1].hints
    assert {hint.level for hint in banks[0].hints} == {0, 1}
    assert {hint.index for hint in banks[0].hints} == {0}, "nothing is asked twice"


@pytest.mark.slow
def test_a_student_sharded_by_fsdp2_gets_the_gradients_of_a_whole_one(student: str) -> None:
    script = Path(__file__).parent / "sharded_student.py"
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--standalone",
        str(script),
        student,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
