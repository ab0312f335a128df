"""A study as an `sbatch` script: an array with one task per run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from kepo.studies.commands import afterwards, command_line
from kepo.studies.plan import LOGS, RunPlan


def slurm_script(plans: Sequence[RunPlan], folder: Path) -> str:
    """The script; a task that is stopped or fails is queued again by submitting the same script, and goes on.

    Args:
        plans: The runs; task N is the Nth, from 0.
        folder: Where the commands are run.
    """
    study = plans[0].study
    slurm = study.slurm
    at_once = f"%{slurm.at_once}" if slurm.at_once else ""
    options = {
        "job-name": study.source.stem,
        "array": f"0-{len(plans) - 1}{at_once}",
        "output": str(study.out / LOGS / "slurm-%A-%a.log"),
        "open-mode": "append",
        **slurm.options,
    }
    cases = [f"{number}) {command_line(plan)} ;;" for number, plan in enumerate(plans)]
    after = [f"#   {line}" for line in afterwards(plans)]
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH --{name}={value}" for name, value in options.items()),
        "#SBATCH --requeue",
        "# After all tasks (sbatch --dependency=afterany:JOB):",
        *after,
        "set -u",
        f"cd {shlex.quote(str(folder))} || exit 1",
        *slurm.setup,
        'case "$SLURM_ARRAY_TASK_ID" in',
        *cases,
        '*) echo "no run has the number $SLURM_ARRAY_TASK_ID" >&2; exit 2 ;;',
        "esac",
    ]
    return "\n".join(lines) + "\n"
