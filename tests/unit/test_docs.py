"""The docs' links lead somewhere, and the pages that describe the rooms name all of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from kepo.recipes.recipe import own_fields

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?)\s*$", CODE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _broken(page: Path) -> list[str]:
    links = [link for link in LINK.findall(CODE.sub("", page.read_text())) if not re.match(r"[a-z]+:", link)]
    broken = []
    for link in links:
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert _broken(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `kepo` page: one\n[a](page.md#a-kepo-page-one) [b](#two) [c](gone.md) [d](https://x.org/y)\n")
    assert _broken(page) == ["#two", "gone.md"]


def _rooms() -> set[str]:
    """Folders and files of the package but those that start with an underscore: `exploration/`, `prompts.py`."""
    source = ROOT / "src" / "kepo"
    return {f"{path.name}/" if path.is_dir() else path.name for path in source.glob("[!_]*") if path.name != "py.typed"}


def test_the_architecture_page_has_every_room_and_no_other() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text().split("## Rooms")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`([^`]+)`", " ".join(cells))) == _rooms()


def test_the_tree_of_the_readme_has_every_room_and_no_other() -> None:
    tree = (ROOT / "README.md").read_text().split("src/kepo/\n")[1].split("```")[0]
    rooms = [line.split()[0] for line in tree.splitlines() if line.startswith("  ") and line[2] != " "]
    assert set(rooms) == _rooms()


def test_every_page_is_in_the_index() -> None:
    linked = {link.partition("#")[0] for link in LINK.findall((ROOT / "docs" / "index.md").read_text())}
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"} <= linked


def test_the_citation_file_names_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "preferred-citation"} <= citation.keys()
    assert "2602.00400" in citation["preferred-citation"]["url"]


def test_files_and_modules_that_the_docs_name_exist() -> None:
    source = ROOT / "src" / "kepo"
    missing = []
    for page in PAGES:
        text = page.read_text() if page.name != "CHANGELOG.md" else ""  # which names what is gone
        for name in re.findall(
            r"`((?:src/kepo/|tests/|examples/|benchmarks/|tools/)?[a-z_]+/[a-z_/]*[a-z_]+\.py)`", text
        ):
            ours = any((folder / name.split("/")[0]).is_dir() for folder in (ROOT, source))
            if ours and not any((folder / name).is_file() for folder in (ROOT, source)):
                missing.append(f"{page.name}: {name}")
        for name in re.findall(r"`kepo((?:\.[a-z_]+)+)", text):
            parts = name.strip(".").split(".")
            # The last part may be a function of the module before it.
            folders = [source.joinpath(*parts[:length]) for length in (len(parts), len(parts) - 1)]
            if not any(folder.is_dir() or folder.with_suffix(".py").is_file() for folder in folders):
                missing.append(f"{page.name}: kepo{name}")
    assert missing == []


def test_every_field_of_a_recipe_is_in_a_recipe_or_a_guide() -> None:
    guides = [page for page in PAGES if page.name not in ("fields.md", "CHANGELOG.md")]
    texts = [path.read_text() for path in (*guides, *(ROOT / "src" / "kepo" / "recipes").rglob("*.yaml"))]
    text = " ".join(texts)
    words = set(re.findall(r"\w+", text)) | set(re.findall(r"[a-z]\w+", re.sub(r"(?<=\w)-(?=\w)", "_", text)))
    fields = {name for rows in own_fields().values() for name, _, _ in rows}
    assert fields
    assert fields <= words, f"used by nobody: {sorted(fields - words)}"
