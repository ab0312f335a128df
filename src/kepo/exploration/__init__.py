"""Knowledge-enhanced exploration (arXiv 2602.00400): hinted, verified rollouts for groups in which all failed.

Pure Python: no tensors, no TRL. The trainer brings a sampler, a verifier and a hint writer, or a bank of hints.
"""

from kepo.exploration.bank import HintBank
from kepo.exploration.banked import ANY_TEACHER, banked_hints
from kepo.exploration.explorer import Explorer
from kepo.exploration.settings import ExplorationSettings
from kepo.exploration.trigger import needs_exploration

__all__ = [
    "ANY_TEACHER",
    "ExplorationSettings",
    "Explorer",
    "HintBank",
    "banked_hints",
    "needs_exploration",
]
