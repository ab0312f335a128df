"""From the student's hidden states to what the loss needs of its output head."""

from __future__ import annotations

from kepo.objective import token_terms

__all__ = ["token_terms"]
