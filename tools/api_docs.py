"""The API reference from docstrings: `docs/api.md`, a list of names, and HTML pages by pdoc (`make docs`).

python -m tools.api_docs page            # writes docs/api.md
python -m tools.api_docs html build/api  # writes the pages
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import kepo

MODULES = (
    *("kepo", "kepo.data", "kepo.data.contents", "kepo.evaluation.accuracy", "kepo.evaluation.contamination"),
    *("kepo.evaluation.run", "kepo.evaluation.settings", "kepo.exploration", "kepo.objective", "kepo.recipes.launch"),
    *("kepo.recipes.recipe", "kepo.reports.paper", "kepo.reports.report", "kepo.rewards", "kepo.runs"),
    *("kepo.runs.trained_on", "kepo.statistics.accuracy", "kepo.statistics.intervals", "kepo.statistics.paired"),
    *("kepo.statistics.stability", "kepo.teachers.base", "kepo.trainer.model_card", "kepo.trainer.profiling"),
)
_ARGUMENTS = re.compile(r"Args:|[Aa]rguments .*as `")
PAGE = Path(__file__).parents[1] / "docs" / "api.md"
_HEAD = """# API reference

`make docs` builds the reference from the docstrings of the code: HTML pages in `build/api`, one per module, with
arguments, shapes, units and errors. Open `build/api/index.html`. It needs the extra `dev` (pdoc).

This list has the documented names of each module; `make docs` writes it too. Fields of `KEPOConfig` are in
[fields.md](fields.md). Everything else in the package is internal and may change.
"""


def public_names(module: ModuleType) -> list[str]:
    """The names of `__all__`, else those that are defined in the module and do not start with an underscore."""
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return sorted(getattr(module, "__all__", None) or [name for name in own if not name.startswith("_")])


def summary(value: Any) -> str:
    """The first sentence of a docstring, or what a type may be; empty where there is neither."""
    options = get_args(value)
    if options and all(isinstance(one, str) for one in options):
        return f"One of {', '.join(f'`{one}`' for one in options)}."
    if not callable(value) or isinstance(value, str):
        return ""
    text = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.])\s+(?=[A-Z`])", text)[0].replace("|", r"\|")


def page() -> str:
    """The content of `docs/api.md`."""
    parts = [_HEAD]
    for name in MODULES:
        module = import_module(name)
        about = " ".join((inspect.getdoc(module) or "").split("\n\n")[0].split())
        rows = [f"| `{one}` | {summary(getattr(module, one))} |" for one in public_names(module)]
        parts.append("\n".join([f"\n## {name}\n", f"{about}\n", "| name | |", "| --- | --- |", *rows]) + "\n")
    return "".join(parts)


def undocumented() -> Iterator[str]:
    """Public functions and classes without a docstring, and functions of several arguments that do not say which."""
    for name in MODULES:
        module = import_module(name)
        for one in public_names(module):
            value = getattr(module, one)
            text = inspect.getdoc(value) or ""
            if (inspect.isclass(value) or inspect.isfunction(value)) and not text:
                yield f"{name}.{one} has no docstring"
            elif inspect.isfunction(value) and len(_arguments(value)) > 1 and not _ARGUMENTS.search(text):
                yield f"{name}.{one} does not describe its arguments"


def _arguments(function: Any) -> list[str]:
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [one.name for one in inspect.signature(function).parameters.values() if one.kind not in kinds]


def write_html(folder: Path) -> None:
    """Build the pages with pdoc."""
    import pdoc
    import pdoc.render

    for name in kepo.__all__:  # which are resolved on first use; pdoc looks at what is there
        setattr(kepo, name, getattr(kepo, name))
    pdoc.render.configure(docformat="google", footer_text=f"kepo {kepo.__version__}")
    pdoc.pdoc(*MODULES, output_directory=folder)


if __name__ == "__main__":
    if sys.argv[1] == "page":
        PAGE.write_text(page(), encoding="utf-8")
    else:
        write_html(Path(sys.argv[2]))
