"""`kepo recipes [RECIPE... [--field value ...]]`: what is shipped, and what recipes give together; `kepo fields`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kepo.errors import ConfigError, nearest


def recipes(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="RECIPE", help="Print these, merged, then fields, as for `kepo train`."),
    ] = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="With the value of every field, TRL's too.")] = False,
    as_files: Annotated[bool, typer.Option("--files", help="The files as they are written, with comments.")] = False,
) -> None:
    """List the shipped recipes, or print what one of them, or several over each other, say."""
    from kepo.recipes.files import find_recipe, read_recipes, split_arguments

    given, overrides = split_arguments(names or [])
    if not given:
        _list()
    elif as_files:
        for path in (path for name in given for path in find_recipe(name)):
            typer.echo(f"# {path}\n{path.read_text(encoding='utf-8')}")
    elif not (resolved or overrides):
        _print(read_recipes(given))
    else:
        from kepo.recipes.recipe import load_recipe

        recipe = load_recipe(given, overrides)
        for part, values in recipe.values().items() if resolved else [("", recipe.said)]:
            typer.echo(f"# {part}" if part else "", nl=bool(part))
            _print(values)


def fields(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables of docs/fields.md.")] = False,
    search: Annotated[str | None, typer.Argument(help="Only fields whose name or text contains this.")] = None,
) -> None:
    """List the fields of a recipe that are not TRL's own."""
    from rich.console import Console
    from rich.table import Table

    from kepo.recipes.recipe import field_tables, own_fields

    if markdown:
        typer.echo(field_tables(), nl=False)
        return
    rows = [row for rows in own_fields().values() for row in rows]
    found = [row for row in rows if search is None or search.lower() in f"{row[0]} {row[2]}".lower()]
    if not found:
        close = nearest(str(search), [row[0] for row in rows])
        advice = f"did you mean {close!r}?" if close else "without a word, `kepo fields` lists all."
        raise ConfigError(f"No field mentions {search!r}; {advice} TRL's own fields are in TRL's documentation.")
    table = Table("field", "default", "meaning")
    for row in found:
        table.add_row(*row)
    Console().print(table)


def _print(fields: Any) -> None:
    import yaml

    typer.echo(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True), nl=False)


def _list() -> None:
    from kepo.recipes.files import ARMS, STUDIES, accelerate_configs, first_comment, shipped_files, suites, variants

    typer.echo("Suites: data, models and schedule. SUITE/ARM is `SUITE/_base arms/ARM`; SUITE/ARM-VARIANT goes on with")
    typer.echo("SUITE/_VARIANT. Any recipes, shipped or your own, can be joined: later ones go over earlier ones.")
    for suite in suites():
        more = "".join(f" Variant: {variant}." for variant in variants(suite))
        typer.echo(f"  {suite:<24}{first_comment(f'{suite}/_base')}{more}")
    written = [name for name in shipped_files() if not name.split("/")[-1].startswith("_")]
    titles = {ARMS: "Arms", "": "Recipes with settings of their own", STUDIES: "Studies, for `kepo study`"}
    for folder, title in titles.items():
        typer.echo(f"{title}:")
        for name in written:
            if folder == (name.split("/")[0] if name.startswith((ARMS, STUDIES)) else ""):
                typer.echo(f"  {name:<24}{first_comment(name)}")
    typer.echo(f"Accelerate configs, for `--accelerate-config`:\n  {', '.join(accelerate_configs())}")
