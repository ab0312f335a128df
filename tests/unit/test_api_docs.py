"""The API reference: what is public has a docstring that says its arguments, and the page lists it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import kepo
from tools import api_docs

ROOT = Path(__file__).parents[2]


def test_public_names_have_docstrings_with_their_arguments() -> None:
    assert list(api_docs.undocumented()) == []


def test_a_missing_docstring_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def two(first: int, second: int) -> int:
        """Of two."""
        return first + second

    monkeypatch.setattr(kepo, "two", two, raising=False)
    monkeypatch.setattr(kepo, "Bare", type("Bare", (), {}), raising=False)
    monkeypatch.setattr(kepo, "__all__", ["Bare", "two"])
    monkeypatch.setattr(api_docs, "MODULES", ("kepo",))
    assert list(api_docs.undocumented()) == [
        "kepo.Bare has no docstring",
        "kepo.two does not describe its arguments",
    ]


def test_the_page_is_that_of_the_docstrings() -> None:
    assert (ROOT / "docs" / "api.md").read_text() == api_docs.page(), "run `make docs`"


def test_the_page_names_every_public_name_of_the_package() -> None:
    assert {f"| `{name}` |" for name in kepo.__all__} <= {line[: line.index("|", 2) + 1] for line in _rows()}


def _rows() -> list[str]:
    return [line for line in (ROOT / "docs" / "api.md").read_text().splitlines() if line.startswith("| `")]


@pytest.mark.slow
def test_pdoc_builds_the_pages(tmp_path: Path) -> None:
    pytest.importorskip("pdoc")
    command = [sys.executable, "-m", "tools.api_docs", "html", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    page = (tmp_path / "kepo.html").read_text()
    assert "KEPOTrainer" in page
    assert "train_dataset" in page
    assert (tmp_path / "kepo" / "runs.html").is_file()
