"""`kepo recipes`: what comes with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer


def recipes(name: Annotated[str | None, typer.Argument(help="Show this recipe.")] = None) -> None:
    """List the shipped recipes, or print one to start your own from."""
    root = Path(str(files("kepo.recipes")))
    found = {str(path.relative_to(root).with_suffix("")): path for path in sorted(root.rglob("*.yaml"))}
    if name is None:
        for known, path in found.items():
            if path.name.startswith("_"):
                continue
            first = path.read_text(encoding="utf-8").splitlines()[0]
            typer.echo(f"{known:<24}{first.lstrip('# ') if first.startswith('#') else ''}")
        return
    if name not in found:
        raise typer.BadParameter(f"no recipe {name!r}; there are {', '.join(found)}")
    typer.echo(found[name].read_text(encoding="utf-8"), nl=False)
