"""What `kepo train` shows while it trains: a bar and a table on a terminal, a short line per step elsewhere."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from transformers import TrainerCallback

from kepo.workers import duration

# Logged value -> its name in the display, and how it is written.
_COLUMNS = {
    "reward": ("reward", "{:.3f}"),
    "exploration/all_failed_groups": ("all-failed", "{:.0%}"),
    "exploration/rescued_groups": ("rescued", "{:.0%}"),
    "gate/open_share": ("gate open", "{:.0%}"),
    "mean_token_accuracy": ("token accuracy", "{:.3f}"),
    "loss": ("loss", "{:.4g}"),
}
_SECONDS = "seconds"
_HELD_OUT = re.compile(r"eval_(?:rewards/([^/]+)/mean|(reward|loss|mean_token_accuracy))")
_ROWS = 12  # of the table


def training_display(plain: bool | None = False) -> TrainingDisplay:
    """The display that suits the standard output; lines where `plain`, or where nothing can be redrawn."""
    console = Console(highlight=False)
    live = not plain and console.is_terminal and console.file.isatty() and not console.is_dumb_terminal
    return LiveTable(console) if live else Lines(console)


def shown_values(logs: Mapping[str, Any]) -> dict[str, str]:
    """The values of a log that the display has a place for, by their names there."""
    return {
        name: form.format(logs[key]) for key, (name, form) in _COLUMNS.items() if isinstance(logs.get(key), int | float)
    }


def held_out_values(logs: Mapping[str, Any]) -> dict[str, str]:
    """The rewards on held-out questions in a log of an evaluation; empty for another log."""
    found = {name: _HELD_OUT.fullmatch(name) for name in logs}
    return {match[1] or match[2]: f"{logs[name]:.3f}" for name, match in found.items() if match}


class TrainingDisplay(TrainerCallback):
    """Keeps the time; what is shown is up to `show_step`, `show_held_out` and `show_unlogged`. Main process only."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.step = self.steps = self._first = self._shown = 0
        self._begun = self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left on the terminal that moves."""

    @property
    def elapsed(self) -> float:
        """Seconds since training began."""
        return time.monotonic() - self._begun

    @property
    def left(self) -> float | None:
        """Seconds that the remaining steps take at the speed so far; None before the first step is done."""
        done = self.step - self._first
        return None if done <= 0 else self.elapsed / done * (self.steps - self.step)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step = self._first = self._shown = state.global_step
        self.steps = state.max_steps
        self._begun = self._last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step = state.global_step
        if state.is_world_process_zero and not control.should_log:
            self.show_unlogged()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs:
            return
        if values := held_out_values(logs):
            self.show_held_out(values)
            self._last = time.monotonic()  # the seconds of a step are those of the step alone
        elif (values := shown_values(logs)) and "train_runtime" not in logs:
            now, steps = time.monotonic(), max(self.step - self._shown, 1)
            self.show_step({**values, _SECONDS: f"{(now - self._last) / steps:.1f}"})
            self._last, self._shown = now, self.step

    def show_step(self, values: Mapping[str, str]) -> None:
        """Show the values of the step just done, or the means since the step logged before."""
        raise NotImplementedError

    def show_held_out(self, values: Mapping[str, str]) -> None:
        """Show the rewards on held-out questions."""
        raise NotImplementedError

    def show_unlogged(self) -> None:
        """Show that a step is done of which nothing is logged."""


class Lines(TrainingDisplay):
    """A line per step, for files and pipes: nothing is written over."""

    def show_step(self, values: Mapping[str, str]) -> None:
        self._print([f"step {self.step}/{self.steps}", *map(" ".join, values.items()), *self._left()])

    def show_held_out(self, values: Mapping[str, str]) -> None:
        self._print([f"step {self.step}/{self.steps}", "held out:", *map(" ".join, values.items())])

    def show_unlogged(self) -> None:
        self._print([f"step {self.step}/{self.steps}", *self._left()])

    def _left(self) -> list[str]:
        return [] if self.left is None or self.step >= self.steps else [f"left {duration(self.left)}"]

    def _print(self, parts: list[str]) -> None:
        # One line, whatever the width of the console that nobody sees; at once, for who follows the file.
        print("  ".join(parts), file=self.console.file, flush=True)


class LiveTable(TrainingDisplay):
    """A bar with the time left, and a table of the last logged steps, redrawn in place."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._rows: deque[dict[str, str]] = deque(maxlen=_ROWS)
        self._held_out = ""
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=2)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        if state.is_world_process_zero:
            self._live.start()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._live.stop()

    def show_step(self, values: Mapping[str, str]) -> None:
        self._rows.append({"step": str(self.step), **values})

    def show_held_out(self, values: Mapping[str, str]) -> None:
        self._held_out = f"held out, step {self.step}: {'  '.join(map(' '.join, values.items()))}"

    def _render(self) -> Group:
        bar = Table.grid(padding=(0, 1))
        known = "" if self.left is None else f", {duration(self.left)} left"
        bar.add_row(
            f"step {self.step}/{self.steps}",
            ProgressBar(total=max(self.steps, 1), completed=self.step, width=30),
            f"{duration(self.elapsed)}{known}",
        )
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        if _SECONDS in names:  # a value that is logged later stands before it
            names.append(names.pop(names.index(_SECONDS)))
        table = Table(*names, box=None, pad_edge=False)
        for column in table.columns:
            column.justify = "right"
        for row in self._rows:
            table.add_row(*(row.get(name, "") for name in names))
        return Group(bar, *([table] if names else []), *([Text(self._held_out)] if self._held_out else []))
