"""Everything that knows TRL from inside.

`KEPOTrainer` overrides five methods of TRL's `GRPOTrainer` and calls a few of its private helpers. Those names, and
what is expected of them, are gathered in this package, so that a new TRL release breaks in one place and says where:
`moved_seams` compares it with the installed TRL.
"""

from kepo.trainer.seams.engine import mend_colocated_images
from kepo.trainer.seams.expected import moved_seams
from kepo.trainer.seams.forward import DistillationTarget, DistilledOutput, ForwardWithTarget, add_divergence
from kepo.trainer.seams.processes import (
    max_over_processes,
    sums_over_processes,
    teacher_sharding,
)
from kepo.trainer.seams.rollouts import (
    as_completion,
    call_reward,
    completion_ids,
    completion_logps,
    reward_names,
    sample_completions,
)

__all__ = [
    "DistillationTarget",
    "DistilledOutput",
    "ForwardWithTarget",
    "add_divergence",
    "as_completion",
    "call_reward",
    "completion_ids",
    "completion_logps",
    "max_over_processes",
    "mend_colocated_images",
    "moved_seams",
    "reward_names",
    "sample_completions",
    "sums_over_processes",
    "teacher_sharding",
]
