"""Who may import whom (docs/design.md), read from the source, and that `import kepo` is instant."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "kepo"

# The rooms from top to bottom: each imports from those below it only. Rooms in one row do not know each other.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("reports",),
    ("studies",),
    ("planning",),
    ("recipes",),
    ("__init__",),
    ("trainer",),
    ("evaluation",),
    ("phantom",),
    ("exploration",),
    ("teachers",),
    ("data",),
    ("models",),
    ("statistics",),
    ("runs",),
    ("servers",),
    ("rewards",),
    ("objective",),
    ("files", "workers"),
    ("prompts",),
    ("types", "errors"),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
ONLY_FOR = {
    "trl": {"trainer", "recipes"},
    "accelerate": {"trainer", "recipes", "cli", "planning"},
    "peft": {"trainer", "teachers", "planning"},
}
STANDARD_LIBRARY_ONLY = {"types", "errors", "prompts"}
TORCH_ONLY = {"objective"}


def _room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "kepo" else {node.module}
    return names


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_room_imports_only_from_below(path: Path) -> None:
    room = _room(path)
    assert room in FLOOR, f"{path} is in a room that the table of this test does not know"
    for name in _imports(path):
        top, _, rest = name.partition(".")
        target = rest.split(".")[0]
        if top == "kepo" and target not in (room, "", "__version__"):
            assert FLOOR[target] > FLOOR[room], f"{path}: {room}/ may not import kepo.{target}, which is not below it"
        elif top in ONLY_FOR:
            assert room in ONLY_FOR[top], f"{path}: {top} may only be imported by {sorted(ONLY_FOR[top])}"
        elif top != "kepo" and room in STANDARD_LIBRARY_ONLY:
            assert top in sys.stdlib_module_names, f"{path}: {room} uses the standard library only, not {top}"
        elif top != "kepo" and room in TORCH_ONLY:
            assert top in sys.stdlib_module_names | {"torch"}, f"{path}: objective/ uses torch only, not {top}"


def _module(path: Path) -> str:
    return ".".join(("kepo", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


def test_no_file_imports_itself_by_way_of_others() -> None:
    """Imports for type checkers count: what needs the other's names belongs to it, or below both."""
    modules = {_module(path): path for path in FILES}

    def imported(path: Path) -> set[str]:
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names} & modules.keys()
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= names & modules.keys() or {node.module} & modules.keys()
        return found - {"kepo"}

    sorter = TopologicalSorter({module: imported(path) - {module} for module, path in modules.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_only_the_seams_know_private_names_of_trl() -> None:
    for path in (SOURCE / "trainer").rglob("*.py"):
        if path.parent.name == "seams":
            continue
        modules = {name for name in _imports(path) if name.split(".")[0] == "trl"}
        assert modules <= {"trl"}, f"{path} reaches into {modules}; that belongs in seams.py"


@pytest.mark.parametrize("module", ["kepo", "kepo.types", "kepo.prompts", "kepo.cli.main"])
def test_import_is_instant(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'trl', 'transformers', 'datasets') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_recipes_name_no_path_of_one_machine() -> None:
    for recipe in (SOURCE / "recipes").rglob("*.yaml"):
        values = [line.split(":", 1)[1].strip() for line in recipe.read_text().splitlines() if ":" in line]
        assert not [value for value in values if value.startswith(("/", "~"))], recipe


def test_an_arm_states_its_differences_only() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in (SOURCE / "recipes" / "arms").glob("*.yaml")}
    assert lengths
    assert max(lengths.values()) <= 6
