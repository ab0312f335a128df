"""KEPO: Knowledge-Enhanced Preference Optimization (arXiv 2602.00400) for TRL.

Names are resolved on first use, so that `import kepo` loads neither torch nor TRL.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kepo.teachers.base import Teacher
    from kepo.teachers.local import LocalTeacher
    from kepo.teachers.remote import RemoteTeacher
    from kepo.teachers.scripted import ScriptedTeacher
    from kepo.trainer.config import KEPOConfig
    from kepo.trainer.trainer import KEPOTrainer
    from kepo.types import Hint, Question

__version__ = "0.1.0"

_HOMES = {
    "Hint": "kepo.types",
    "KEPOConfig": "kepo.trainer.config",
    "KEPOTrainer": "kepo.trainer.trainer",
    "LocalTeacher": "kepo.teachers.local",
    "Question": "kepo.types",
    "RemoteTeacher": "kepo.teachers.remote",
    "ScriptedTeacher": "kepo.teachers.scripted",
    "Teacher": "kepo.teachers.base",
}

__all__ = [
    "Hint",
    "KEPOConfig",
    "KEPOTrainer",
    "LocalTeacher",
    "Question",
    "RemoteTeacher",
    "ScriptedTeacher",
    "Teacher",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'kepo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
