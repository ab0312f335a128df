"""The TRL adapter: its list of TRL's names is complete, a name that is gone is said, nothing else reaches into TRL."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
from transformers import Trainer
from trl import GRPOTrainer

from kepo.trainer import adapter
from kepo.trainer.adapter.names import (
    EXPECTED_ATTRIBUTES,
    EXPECTED_CLASS_ATTRIBUTES,
    EXPECTED_METHODS,
    changed_trl_names,
)
from kepo.trainer.adapter.trl_adapter import TRLAdapter
from kepo.trainer.trainer import KEPOTrainer

FOLDER = Path(adapter.__file__).parent
OF_TRL = {
    name
    for cls in (*GRPOTrainer.__mro__[:-1], Trainer)
    for name in (*vars(cls), *re.findall(r"self\.(_[a-z]\w*)", inspect.getsource(cls)))
    if re.match(r"_[a-z]", name)
}


def _private_names(tree: ast.AST) -> set[str]:
    """Names with one leading underscore that classes define, and that are read from or set on the trainer."""
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            targets = [target for item in node.body if isinstance(item, ast.Assign) for target in item.targets]
            targets += [item.target for item in node.body if isinstance(item, ast.AnnAssign)]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if re.match(r"_[a-z]", name)}


def test_the_installed_trl_has_the_names_that_the_adapter_expects() -> None:
    assert changed_trl_names() == []


def test_every_private_name_of_trl_in_the_adapter_is_in_the_list() -> None:
    used = set().union(*(_private_names(ast.parse(path.read_text())) for path in FOLDER.glob("*.py"))) & OF_TRL
    listed = {*EXPECTED_METHODS, *EXPECTED_ATTRIBUTES, *EXPECTED_CLASS_ATTRIBUTES}
    assert used == {name for name in listed if name.startswith("_")}


def test_the_list_holds_public_names_that_no_documentation_promises_only_where_they_are_used() -> None:
    source = "".join(path.read_text() for path in FOLDER.parent.rglob("*.py") if path.name != "names.py")
    assert [name for name in EXPECTED_ATTRIBUTES if f".{name}" not in source] == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("_tokenize_prompts", "trl.GRPOTrainer._tokenize_prompts is gone."),
        ("_log_metric", "trl.GRPOTrainer._log_metric is gone."),
        ("_paper", "trl.GRPOTrainer._paper is gone."),
    ],
)
def test_a_name_that_is_gone_is_said(monkeypatch: pytest.MonkeyPatch, name: str, said: str) -> None:
    monkeypatch.delattr(GRPOTrainer, name)
    assert changed_trl_names() == [said]


def test_a_parameter_and_a_text_that_are_gone_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def _generate(self: object) -> None:
        """Another method of this name."""

    monkeypatch.setattr(GRPOTrainer, "_generate", _generate)
    said = changed_trl_names()
    assert said[0] == "trl.GRPOTrainer._generate no longer takes prompts."
    assert said[1].startswith("trl's GRPOTrainer._generate no longer contains 'return prompt_ids,")


def test_the_trainer_above_the_adapter_uses_no_private_name_of_trl() -> None:
    """Neither reads one nor gives a name of its own that TRL has already."""
    assert issubclass(KEPOTrainer, TRLAdapter)
    assert _private_names(ast.parse(Path(inspect.getfile(KEPOTrainer)).read_text())) & OF_TRL == set()


def test_names_of_the_adapter_do_not_hide_those_of_trl() -> None:
    public = {name for name in vars(TRLAdapter) if not name.startswith("_")}
    assert {name for name in public if hasattr(GRPOTrainer, name)} == set()
