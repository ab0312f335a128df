"""The probe before the first step: on the real model, processor, data and rewards, what would make a run useless."""

from kepo.trainer.probe.data import check_input, owns_rollouts
from kepo.trainer.probe.gradient import GradientWatch, check_steps, check_trained, likely_reason
from kepo.trainer.probe.records import QUICK, WHOLE, HintCheck, Probe, RewardCheck, Scope
from kepo.trainer.probe.run import look, look_at_hint, look_at_supervised, say

__all__ = [
    "QUICK",
    "WHOLE",
    "GradientWatch",
    "HintCheck",
    "Probe",
    "RewardCheck",
    "Scope",
    "check_input",
    "check_steps",
    "check_trained",
    "likely_reason",
    "look",
    "look_at_hint",
    "look_at_supervised",
    "owns_rollouts",
    "say",
]
