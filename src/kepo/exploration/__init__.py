"""Knowledge-enhanced exploration (arXiv 2602.00400): hinted, verified rollouts for groups in which all failed.

No tensors, no TRL. The trainer brings a sampler, a verifier and a hint writer, or a bank of hints.
"""

from kepo.exploration.bank import HintBank
from kepo.exploration.banked import ANY_TEACHER, BankedHints
from kepo.exploration.explorer import Explorer, needs_exploration
from kepo.exploration.history import SuccessHistory
from kepo.exploration.settings import ExplorationSettings

__all__ = [
    "ANY_TEACHER",
    "BankedHints",
    "ExplorationSettings",
    "Explorer",
    "HintBank",
    "SuccessHistory",
    "needs_exploration",
]
