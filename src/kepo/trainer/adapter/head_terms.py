"""From the student's hidden states to what the loss needs of its output head."""

from __future__ import annotations

from kepo.objective.token_terms import token_terms as head_terms

__all__ = ["head_terms"]
