"""What lies in a run folder, how it is written and read again: the one place that knows its files.

Nothing here imports torch, so that reports and the terminal open a run at once.
"""

from kepo.runs.evaluations import Evaluation, evaluation_file, read_evaluation
from kepo.runs.folder import Run, checkpoints_in, find_runs, open_run
from kepo.runs.manifest import MANIFEST, is_run, write_manifest
from kepo.runs.metrics import append_metrics, read_metrics
from kepo.runs.rollouts import all_failed_shares, is_correct, read_rollouts, rollout_files

__all__ = [
    "MANIFEST",
    "Evaluation",
    "Run",
    "all_failed_shares",
    "append_metrics",
    "checkpoints_in",
    "evaluation_file",
    "find_runs",
    "is_correct",
    "is_run",
    "open_run",
    "read_evaluation",
    "read_metrics",
    "read_rollouts",
    "rollout_files",
    "write_manifest",
]
