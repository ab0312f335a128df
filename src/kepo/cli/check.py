"""`kepo check RECIPE... [--field value ...]`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from kepo.cli.train import Recipes

if TYPE_CHECKING:
    from kepo.trainer.probe import HintCheck, Probe


def check(recipes: Recipes) -> None:
    """Check what `kepo train` with these recipes and fields would train on, in seconds; nothing is trained or written.

    Prints the prompt as the model reads it, a perfect completion and its rewards, lengths, images and parameters, and,
    with a teacher, one hint and its audit. What would make the run useless is an error with row and field (exit code
    2).
    """
    from kepo.recipes.files import split_arguments
    from kepo.recipes.launch import check as look
    from kepo.recipes.recipe import load_recipe

    names, overrides = split_arguments(recipes)
    typer.echo("\n".join(lines(look(load_recipe(names, overrides)))))


def lines(probe: Probe) -> Iterator[str]:
    """What `kepo check` prints of a probe."""
    if probe.prompt:
        yield from (f"prompt of {probe.row}, as the model reads it:", _indented(probe.prompt), "")
    if probe.completion is not None:
        yield from ("perfect completion, encoded and decoded:", _indented(probe.completion), "")
        yield from ("the same with an incorrect answer:", _indented(probe.incorrect or "(there is none)"), "")
    if probe.rewards:
        yield from _reward_lines(probe)
    yield f"questions: {_count(probe.rows)}{_batches(probe)}"
    if probe.longest_prompt:
        yield f"longest prompt: {probe.longest_prompt:,} tokens ({probe.longest_row}){_room(probe)}"
    if probe.texts_read:
        rewarded = f"; true answers rewarded: {probe.rewarded_rows:,}" if probe.rewards else ""
        yield f"prompts read: {probe.texts_read:,}{rewarded}"
    if probe.images:
        sizes = f"{probe.image_shapes:,} size{'s' * (probe.image_shapes != 1)}"
        yield f"images: {probe.images:,} distinct ones, {sizes} given to the processor"
    share = probe.trainable / max(probe.parameters, 1)
    yield f"parameters: {probe.trainable:,} of {probe.parameters:,} are trained ({share:.1%})"
    if probe.hint is not None:
        yield from _hint_lines(probe.hint)
    yield from (f"note: {note}" for note in probe.notes)
    yield "Nothing stands in the way of `kepo train`."


def _reward_lines(probe: Probe) -> Iterator[str]:
    width = max(len(check.name) for check in probe.rewards)
    yield f"{'reward':{width}}  perfect  incorrect"
    for check in probe.rewards:
        what = "  (says what is correct)" if check.correctness else ""
        yield f"{check.name:{width}}  {_number(check.perfect):>7}  {_number(check.incorrect):>9}{what}"
    yield ""


def _hint_lines(hint: HintCheck) -> Iterator[str]:
    yield from ("", "one hint of the teacher, asked with:", _indented(hint.request), "its answer:", _indented(hint.raw))
    yield f"audit: {', '.join(hint.leaks) or 'no leak'}"
    yield from (("the student is shown:", _indented(hint.shown)) if hint.shown else ("the student is shown nothing",))
    yield ""


def _batches(probe: Probe) -> str:
    if probe.per_batch is None:
        return ""
    if probe.rows is None:
        return f"; one generation batch takes {probe.per_batch:,}"
    return f", {probe.rows // probe.per_batch:,} generation batches of {probe.per_batch:,}"


def _room(probe: Probe) -> str:
    if probe.max_completion is None:
        return ""
    total = probe.longest_prompt + probe.max_completion
    limit = "its config does not say how much" if probe.context is None else f"{probe.context:,}"
    return f"; with max_completion_length {probe.max_completion:,}: {total:,}, the model reads {limit}"


def _count(rows: int | None) -> str:
    return "not counted (streamed, or made by your own code)" if rows is None else f"{rows:,}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in (text or "(empty)").splitlines())
