"""Who may import whom (docs/architecture.md), read from the source, and that `import kepo` is instant."""

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


ADAPTER = SOURCE / "trainer" / "adapter"
# Private names of other libraries that have no public one: leaving a process at once, the folder a model came from.
PRIVATE_NAMES_OF_OTHERS = {
    *("_attn_implementation", "_exit", "_name_or_path"),
    "_update_model_kwargs_for_generation",  # which transformers' documentation names for decoding loops of one's own
}


def _own_names(tree: ast.AST) -> set[str]:
    """Names that a file defines: functions, fields of classes, and what is set on `self`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            names.add(node.attr)
    return names


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def private_accesses(source: str) -> list[str]:
    """Accesses of names with one leading underscore that neither the file itself nor its own object owns."""
    tree = ast.parse(source)
    allowed = _own_names(tree) | PRIVATE_NAMES_OF_OTHERS
    return [
        f"{ast.unparse(node)} in line {node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not _is_self(node.value)
        and node.attr not in allowed
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_only_the_adapter_knows_private_names_of_trl(path: Path) -> None:
    if path.parent != ADAPTER:
        deep = {name for name in _imports(path) if name.startswith("trl.")}
        assert not deep, f"{path} reaches into {deep}; that belongs in trainer/adapter/"
        found = private_accesses(path.read_text())
        assert not found, f"{path} uses private names of others: {found}; TRL's belong in trainer/adapter/"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("trainer._tokenizer", ["trainer._tokenizer in line 1"]),
        ("def f(self):\n    self._trainer._metrics['train']", ["self._trainer._metrics in line 2"]),
        ("class A(B):\n    def f(self):\n        super()._generate()", ["super()._generate in line 3"]),
        ("class A:\n    def __init__(self, other):\n        self._x = other._x", []),
        ("class A:\n    def _open(self): ...\n    def f(self, other):\n        return other._open()", []),
        ("os._exit(1)", []),
    ],
)
def test_a_private_access_is_seen(source: str, found: list[str]) -> None:
    assert private_accesses(source) == found


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
