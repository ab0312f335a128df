"""A report as Markdown: the same words and tables, without figures and rollouts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kepo.reports.document import Block, Cell, Document, Points, Table

# What Markdown or a browser could take for markup.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~#$])")


def as_markdown(document: Document) -> str:
    """The report as Markdown; every text is escaped."""
    parts = [f"# {escape(document.title)}", escape(document.subtitle), *map(escape, document.headline)]
    parts.append(_points(document.warnings))
    for section in document.sections:
        blocks = [text for block in section.blocks for text in _block(block)]
        if blocks:
            parts += [f"## {escape(section.title)}", *blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    """`text` so that it stands for itself, in one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split())).replace("&", "&amp;")


def _points(items: Sequence[str]) -> str:
    return "\n".join(f"- {escape(item)}" for item in items)


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, str):
        yield escape(block)
    elif isinstance(block, Points):
        yield _points(block.items)
    elif isinstance(block, Table):
        caption = f"**{escape(block.caption)}**"
        folded = block.kind == "folded"
        yield f"<details><summary>{caption.strip('*')}</summary>" if folded else caption
        yield _table(block)
        yield from map(escape, block.notes)
        yield "</details>" if folded else ""


def _table(table: Table) -> str:
    rule = ["---" if place == 0 or name in table.text_columns else "---:" for place, name in enumerate(table.columns)]
    rows = [[_bold(row.label, row.mark), *map(_cell, row.cells)] for row in table.rows]
    return "\n".join(_line(cells) for cells in ([escape(name) for name in table.columns], rule, *rows))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _bold(label: str, mark: str) -> str:
    return f"**{escape(label)}**" if mark == "main" and label.strip() else escape(label)


def _cell(cell: Cell) -> str:
    return escape(f"{cell.text} ({cell.below})" if cell.below else cell.text)
