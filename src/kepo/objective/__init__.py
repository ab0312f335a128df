"""The objective as pure functions of tensors: gate, divergence, injection weights, normalization; torch only."""

from kepo.objective.divergence import (
    OutputHead,
    chunked_divergence,
    chunked_token_logps,
    sparse_divergence,
    token_divergence,
)
from kepo.objective.gate import GATE_MODES, GateMode, first_error_mask, gate_weights, rows_to_score, trajectory_gate
from kepo.objective.loss import distillation_loss, step_normalizer
from kepo.objective.output_terms import DenseTeacher, SparseTeacher, TokenTerms, chunk_tokens, token_terms
from kepo.objective.schedules import SCHEDULE_KINDS, Schedule, ScheduleKind
from kepo.objective.weights import INJECTION_CORRECTIONS, InjectionCorrection, injected_old_logps

__all__ = [
    "GATE_MODES",
    "INJECTION_CORRECTIONS",
    "SCHEDULE_KINDS",
    "DenseTeacher",
    "GateMode",
    "InjectionCorrection",
    "OutputHead",
    "Schedule",
    "ScheduleKind",
    "SparseTeacher",
    "TokenTerms",
    "chunk_tokens",
    "chunked_divergence",
    "chunked_token_logps",
    "distillation_loss",
    "first_error_mask",
    "gate_weights",
    "injected_old_logps",
    "rows_to_score",
    "sparse_divergence",
    "step_normalizer",
    "token_divergence",
    "token_terms",
    "trajectory_gate",
]
