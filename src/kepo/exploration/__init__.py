"""Knowledge-enhanced exploration (arXiv 2602.00400): hinted, verified rollouts for groups in which all failed.

Pure Python: no tensors, no TRL. The trainer brings a sampler, a verifier and a hint writer, or a bank of hints.
"""

from kepo.exploration.bank import HintBank
from kepo.exploration.banked import ANY_TEACHER, banked_hints
from kepo.exploration.explorer import Explorer, Sampler, Verifier
from kepo.exploration.hints import HintSource, parse_hint, teacher_hints
from kepo.exploration.injection import choose_slots
from kepo.exploration.leaks import audit, strip_leaks
from kepo.exploration.rejection import Progress
from kepo.exploration.settings import EXPLORATION_MODES, LEAK_POLICIES, TRIGGERS, ExplorationSettings
from kepo.exploration.trigger import needs_exploration

__all__ = [
    "ANY_TEACHER",
    "EXPLORATION_MODES",
    "LEAK_POLICIES",
    "TRIGGERS",
    "ExplorationSettings",
    "Explorer",
    "HintBank",
    "HintSource",
    "Progress",
    "Sampler",
    "Verifier",
    "audit",
    "banked_hints",
    "choose_slots",
    "needs_exploration",
    "parse_hint",
    "strip_leaks",
    "teacher_hints",
]
