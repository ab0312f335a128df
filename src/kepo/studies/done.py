"""Which runs of a study are done: `plan.json`, the last thing that a run writes, says what made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kepo.files import weights_fingerprint, write_json
from kepo.studies.commands import stages
from kepo.studies.plan import RunPlan
from kepo.types import SPLITS

_NOTE = "plan.json"
_MODELS = ("model_name_or_path", "teacher_model_name_or_path")


def is_done(plan: RunPlan) -> bool:
    """Whether every command of the run succeeded with these settings, data and models; its recipe must be written."""
    note = plan.folder / _NOTE
    return note.is_file() and json.loads(note.read_text(encoding="utf-8")) == identity(plan)


def mark_done(plan: RunPlan) -> None:
    """Note that every command of the run succeeded."""
    write_json(identity(plan), plan.folder / _NOTE)


def mark_begun(plan: RunPlan) -> None:
    """Take the note away: that of a run before must not vouch for this one."""
    (plan.folder / _NOTE).unlink(missing_ok=True)


def identity(plan: RunPlan) -> dict[str, Any]:
    """Everything that decides the numbers of a run, wherever the study lies; survives JSON."""
    recipe = plan.resolved()
    found = {
        "recipe": recipe,
        "commands": [list(stage.arguments) for stage in stages(plan)],
        "data": {split: _data_state(getattr(plan.study.data, split)) for split in SPLITS},
        "models": {name: weights_fingerprint(str(recipe[name])) for name in _MODELS if recipe.get(name)},
    }
    here: dict[str, Any] = _without(json.loads(json.dumps(found, default=str)), str(plan.study.out))
    return here


def _without(value: Any, out: str) -> Any:
    """`value` with `$out` for the study's folder at the beginning of paths."""
    if isinstance(value, dict):
        return {key: _without(one, out) for key, one in value.items()}
    if isinstance(value, list):
        return [_without(one, out) for one in value]
    inside = isinstance(value, str) and (value == out or value.startswith(f"{out}/"))
    return f"$out{value[len(out) :]}" if inside else value


def _data_state(path: Path) -> str:
    """Changes when the questions at `path` are written again; cheap, as it is asked for every run."""
    state = path / "state.json"
    if state.is_file():
        return str(json.loads(state.read_text(encoding="utf-8")).get("_fingerprint", ""))
    return str(path.stat().st_mtime_ns) if path.is_file() else ""
