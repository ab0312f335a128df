"""Running a study here: its runs side by side, each command carried out by an `Executor`.

Stopped at any point, the same call goes on: a run that was finished with these settings is skipped; for the others
every command finds out by itself what is left to do.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from kepo.files import weights_fingerprint, write_json
from kepo.runs import read_metrics
from kepo.studies.commands import Stage, stages
from kepo.studies.execution import Executor, FreshProcesses, WarmProcess
from kepo.studies.plan import RunPlan
from kepo.types import SPLITS
from kepo.workers import NO_BARS, duration, progress_bars

if TYPE_CHECKING:
    from rich.progress import TaskID

_NOTE = "plan.json"  # the last thing that a run writes
_MODELS = ("model_name_or_path", "teacher_model_name_or_path")
_POLL = 1.0  # seconds between two looks at the runs
_TRAINING = 0.7  # of the time of a run, where it is evaluated too
_PATIENCE = 60.0  # seconds that runs have to save what they have after Ctrl-C


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that failed."""

    plan: RunPlan
    stage: str  # the command that failed
    problem: str  # its last line, or why it was not started


@dataclass(slots=True)
class _State:
    """What the threads of a study share."""

    free: SimpleQueue[Executor] = field(default_factory=SimpleQueue)
    running: dict[str, tuple[RunPlan, Stage]] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)


def run_plans(
    plans: Sequence[RunPlan], workers: int, devices: Sequence[str], say: Callable[[str], None], quiet: bool = False
) -> list[Failure]:
    """Run every plan that is not done; a run that fails does not stop the others.

    Args:
        plans: In this order; their recipes must be written.
        workers: Runs side by side, >= 1.
        devices: The GPUs of each worker as CUDA_VISIBLE_DEVICES writes them, "" for none; empty: whatever is visible.
        say: Called with a sentence about each run that failed.
        quiet: No progress bar.

    Returns:
        The runs that failed, in order.
    """
    todo = [plan for plan in plans if not is_done(plan)]
    if not todo:
        return []
    kind = WarmProcess if todo[0].study.workers == "in-process" else FreshProcesses
    executors = [kind(_environment(devices[place] if devices else None, workers)) for place in range(workers)]
    state, failures = _State(), list[Failure]()
    for executor in executors:
        state.free.put(executor)
    with _progress(len(plans), quiet) as show, ThreadPoolExecutor(workers) as threads:
        waiting: set[Future[Failure | None]] = {threads.submit(_run, plan, state) for plan in todo}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=_POLL, return_when=FIRST_COMPLETED)
                show(len(plans) - len(waiting), list(state.running.values()))
                for failure in filter(None, [future.result() for future in done]):
                    failures.append(failure)
                    say(f"{failure.plan.title}: {failure.stage} failed: {failure.problem}")
        except BaseException:
            state.stopped.set()
            threads.shutdown(wait=False, cancel_futures=True)
            for executor in executors:
                executor.stop()
            # A future that was cancelled before it ran never counts as done.
            wait([future for future in waiting if not future.cancelled()], timeout=_PATIENCE)
            raise
        finally:
            for executor in executors:
                executor.close()
    order = [plan.title for plan in plans]
    return sorted(failures, key=lambda failure: order.index(failure.plan.title))


def _run(plan: RunPlan, state: _State) -> Failure | None:
    """All commands of one run, in a thread that waits for them."""
    executor = state.free.get()
    try:
        with _claimed(plan) as claim:
            if claim is None:
                return Failure(plan, "start", "another process works on this run; it is left alone")
            mark_begun(plan)
            for stage in stages(plan):
                if state.stopped.is_set():
                    return Failure(plan, stage.name, "interrupted")
                state.running[plan.title] = plan, stage
                with plan.log.open("a", encoding="utf-8") as log:
                    log.write(f"\n$ {stage.line}\n")
                code = executor.run(stage.arguments, plan.log, claim)
                if code:
                    return Failure(plan, stage.name, _last_line(plan.log, code))
            mark_done(plan)
            return None
    finally:
        state.running.pop(plan.title, None)
        state.free.put(executor)


@contextmanager
def _claimed(plan: RunPlan) -> Iterator[int | None]:
    """A lock that the run's processes hold too: should this one be killed, theirs keep it until they end.

    None when another process has it.
    """
    file = plan.log.with_suffix(".lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        except OSError as error:
            # Some network file systems have no locks; then nobody can hold one either.
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
        yield lock.fileno()


def _environment(place: str | None, workers: int) -> dict[str, str]:
    environment = dict(os.environ) | NO_BARS  # what runs print goes to a file
    if place is not None:
        environment["CUDA_VISIBLE_DEVICES"] = place
    if workers > 1:
        # Processes with several threads each, side by side, are far slower than with one on a machine of few cores.
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    return environment


def _last_line(log: Path, code: int) -> str:
    """The last line that says an error, else the last line, of what a failed command printed."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    last = (errors or lines or [""])[-1]
    return f"{last[:500]} (exit code {code})"


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[int, Sequence[tuple[RunPlan, Stage]]], None]]:
    """Bars with the time left; in a file or a pipe a line for every run that ends."""
    with progress_bars(quiet) as progress:
        all_runs = progress.add_task("all runs", total=total)
        bars: dict[str, TaskID] = {}
        begun, first, told = time.monotonic(), -1.0, -1

        def show(done: int, running: Sequence[tuple[RunPlan, Stage]]) -> None:
            nonlocal first, told
            for title in set(bars) - {plan.title for plan, _ in running}:
                progress.remove_task(bars.pop(title))
            completed = float(done)
            for plan, stage in running:
                if plan.title not in bars:
                    bars[plan.title] = progress.add_task(plan.title, total=plan.steps)
                step = max((record["step"] for record in read_metrics(plan.folder)), default=0)
                progress.update(bars[plan.title], description=f"{plan.title}: {stage.name}", completed=step)
                completed += _share_done(plan, stage, step)
            progress.update(all_runs, completed=completed)
            first = completed if first < 0 else first
            if done != told and not (quiet or progress.console.is_terminal):
                speed = (completed - first) / max(time.monotonic() - begun, 1e-9)
                left = f", about {duration((total - completed) / speed)} left" if speed > 0 and done < total else ""
                progress.console.print(f"{done} of {total} runs are done{left}", highlight=False)
            told = done

        yield show


def _share_done(plan: RunPlan, stage: Stage, step: int) -> float:
    """Which part of a run is behind it, roughly: training takes most of the time."""
    names = [one.name for one in stages(plan)]
    trains = _TRAINING if len(names) > 1 else 1.0
    if stage.name == "train":
        return trains * min(step / max(plan.steps or 1, 1), 1.0)
    return trains + (1 - trains) * (names.index(stage.name) - 1) / (len(names) - 1) if len(names) > 1 else 0.0


def is_done(plan: RunPlan) -> bool:
    """Whether every command of the run succeeded with these settings, data and models; its recipe must be written."""
    note = plan.folder / _NOTE
    return note.is_file() and json.loads(note.read_text(encoding="utf-8")) == identity(plan)


def mark_done(plan: RunPlan) -> None:
    """Note that every command of the run succeeded."""
    write_json(identity(plan), plan.folder / _NOTE)


def mark_begun(plan: RunPlan) -> None:
    """Take the note away: that of a run before must not vouch for this one."""
    (plan.folder / _NOTE).unlink(missing_ok=True)


def identity(plan: RunPlan) -> dict[str, Any]:
    """Everything that decides the numbers of a run, wherever the study lies; survives JSON."""
    recipe = plan.resolved()
    found = {
        "recipe": recipe,
        "commands": [list(stage.arguments) for stage in stages(plan)],
        "data": {split: _data_state(getattr(plan.study.data, split)) for split in SPLITS},
        "models": {name: weights_fingerprint(str(recipe[name])) for name in _MODELS if recipe.get(name)},
    }
    here: dict[str, Any] = _without(json.loads(json.dumps(found, default=str)), str(plan.study.out))
    return here


def _without(value: Any, out: str) -> Any:
    """`value` with `$out` for the study's folder at the beginning of paths."""
    if isinstance(value, dict):
        return {key: _without(one, out) for key, one in value.items()}
    if isinstance(value, list):
        return [_without(one, out) for one in value]
    inside = isinstance(value, str) and (value == out or value.startswith(f"{out}/"))
    return f"$out{value[len(out) :]}" if inside else value


def _data_state(path: Path) -> str:
    """Changes when the questions at `path` are written again; cheap, as it is asked for every run."""
    state = path / "state.json"
    if state.is_file():
        return str(json.loads(state.read_text(encoding="utf-8")).get("_fingerprint", ""))
    return str(path.stat().st_mtime_ns) if path.is_file() else ""
