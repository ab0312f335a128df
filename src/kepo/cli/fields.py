"""`kepo fields`: every setting this package adds, with its default and what it means."""

from __future__ import annotations

from typing import Annotated

import typer


def fields(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables of docs/fields.md.")] = False,
    search: Annotated[str | None, typer.Argument(help="Only fields whose name or text contains this.")] = None,
) -> None:
    """List the fields of a recipe that are not TRL's own."""
    from kepo.recipes.recipe import field_tables

    if markdown:
        typer.echo(field_tables(), nl=False)
        return
    from rich.console import Console
    from rich.table import Table

    from kepo.recipes.recipe import own_fields

    table = Table("field", "default", "meaning")
    for rows in own_fields().values():
        for name, default, text in rows:
            if search is None or search.lower() in f"{name} {text}".lower():
                table.add_row(name, default, text)
    Console().print(table)
