"""Running a study here: its runs side by side, each command in a process of its own.

Stopped at any point, the same call goes on: a run whose note says that it was finished with these settings is not
looked at again; for the others every command finds out by itself what is left to do.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from kepo.studies.commands import Stage, stages
from kepo.studies.plan import RunPlan
from kepo.types import SPLITS

_NOTE = "plan.json"
_POLL = 1.0  # seconds between two looks at the runs
_PATIENCE = 60.0  # seconds that a run has to save what it has after Ctrl-C


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that failed.

    Attributes:
        plan: Which one.
        stage: The command that failed.
        problem: Its last line, or why it was not started.
    """

    plan: RunPlan
    stage: str
    problem: str


@dataclass(slots=True)
class _Crew:
    """The processes that run now, so that all can be stopped."""

    stopped: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    running: dict[str, tuple[RunPlan, Stage, subprocess.Popen[bytes]]] = field(default_factory=dict)

    def stop(self) -> None:
        """End all processes as Ctrl-C does; those that do not are killed after a while."""
        self.stopped.set()
        with self.lock:
            processes = [process for _, _, process in self.running.values()]
        for sign in (signal.SIGINT, signal.SIGKILL):
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, sign)
            for process in processes:
                try:
                    process.wait(_PATIENCE)
                except subprocess.TimeoutExpired:
                    continue


def is_done(plan: RunPlan) -> bool:
    """Whether every command of the run succeeded with these settings on these data; its recipe must be written."""
    note = plan.folder / _NOTE
    return note.is_file() and json.loads(note.read_text(encoding="utf-8")) == _identity(plan)


def _identity(plan: RunPlan) -> dict[str, Any]:
    """Everything that decides the numbers of a run, as far as the study knows; survives JSON."""
    data = plan.study.data
    identity = {
        "recipe": plan.resolved(),
        "commands": [list(stage.arguments) for stage in stages(plan)],
        "data": {name: _fingerprint(getattr(data, name)) for name in SPLITS},
    }
    plain: dict[str, Any] = json.loads(json.dumps(identity, default=str))
    return plain


def _fingerprint(path: Path) -> str:
    """Changes when the questions at `path` are written again; cheap, as it is asked for every run."""
    state = path / "state.json"
    if state.is_file():
        return str(json.loads(state.read_text(encoding="utf-8")).get("_fingerprint", ""))
    return str(path.stat().st_mtime_ns) if path.is_file() else ""


def run_plans(
    plans: Sequence[RunPlan], workers: int, devices: Sequence[str], say: Callable[[str], None], quiet: bool = False
) -> list[Failure]:
    """Run every plan that is not done; a run that fails does not stop the others.

    Args:
        plans: What to run, in this order; their recipes must be written.
        workers: Runs side by side, >= 1.
        devices: The GPUs of each worker as CUDA_VISIBLE_DEVICES writes them, "" for none; empty: whatever is visible.
        say: Called with a sentence about each run that ended.
        quiet: No progress bar.

    Returns:
        The runs that failed.

    Raises:
        KeyboardInterrupt: Stopped by the user; what was finished stays.
    """
    todo = [plan for plan in plans if not is_done(plan)]
    places: SimpleQueue[str | None] = SimpleQueue()
    for worker in range(workers):
        places.put(devices[worker] if devices else None)
    crew, failures = _Crew(), list[Failure]()
    with _progress(len(plans), quiet) as show, ThreadPoolExecutor(workers) as pool:
        try:
            waiting: set[Future[Failure | None]] = {pool.submit(_run, plan, crew, places, workers) for plan in todo}
            while waiting:
                done, waiting = wait(waiting, timeout=_POLL, return_when=FIRST_COMPLETED)
                show(len(plans) - len(waiting), crew)
                for future in done:
                    failure = future.result()
                    if failure is not None:
                        failures.append(failure)
                        say(f"{failure.plan.title}: {failure.stage} failed: {failure.problem}")
        except BaseException:
            crew.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    order = [plan.title for plan in plans]
    return sorted(failures, key=lambda failure: order.index(failure.plan.title))


def _run(plan: RunPlan, crew: _Crew, places: SimpleQueue[str | None], workers: int) -> Failure | None:
    """All commands of one run, in a thread that waits for them."""
    place = places.get()
    try:
        with _claimed(plan) as claim:
            if claim is None:
                return Failure(plan, "start", "another process works on this run; it is left alone")
            plan.log.parent.mkdir(parents=True, exist_ok=True)
            for stage in stages(plan):
                if crew.stopped.is_set():
                    return Failure(plan, stage.name, "interrupted")
                code = _command(plan, stage, crew, _environment(place, workers), claim)
                if code:
                    return Failure(plan, stage.name, _last_words(plan.log, code))
            note = json.dumps(_identity(plan), indent=2) + "\n"
            (plan.folder / _NOTE).write_text(note, encoding="utf-8")
            return None
    finally:
        places.put(place)


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


def _command(plan: RunPlan, stage: Stage, crew: _Crew, environment: Mapping[str, str], claim: int) -> int:
    with plan.log.open("ab") as log:
        log.write(f"\n$ {stage.line}\n".encode())
        log.flush()
        # A group of its own: Ctrl-C comes from `_Crew.stop`, once, and reaches what the command starts as well.
        process = subprocess.Popen(
            [sys.executable, "-m", "kepo", *stage.arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            pass_fds=(claim,),
        )
        with crew.lock:
            crew.running[plan.title] = (plan, stage, process)
        if crew.stopped.is_set():
            process.terminate()
        try:
            return process.wait()
        finally:
            with crew.lock:
                crew.running.pop(plan.title, None)


def _environment(place: str | None, workers: int) -> dict[str, str]:
    environment = dict(os.environ)
    if place is not None:
        environment["CUDA_VISIBLE_DEVICES"] = place
    if workers > 1:
        # Processes with several threads each, side by side, are far slower than with one on a machine of few cores.
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    return environment


def _last_words(log: Path, code: int) -> str:
    """The last line that says an error, else the last line, of what a failed command printed."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    last = (errors or lines or [""])[-1]
    return f"{last[:500]} (exit code {code})"


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[int, _Crew], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        bar = progress.add_task("all runs", total=total)
        bars: dict[str, TaskID] = {}

        def show(done: int, crew: _Crew) -> None:
            progress.update(bar, completed=done)
            with crew.lock:
                running = {title: (plan, stage) for title, (plan, stage, _) in crew.running.items()}
            for title in set(bars) - set(running):
                progress.remove_task(bars.pop(title))
            for title, (plan, stage) in running.items():
                if title not in bars:
                    bars[title] = progress.add_task(title, total=None)
                progress.update(bars[title], description=f"{title}: {stage.name}{_step(plan, stage)}")

        yield show


def _step(plan: RunPlan, stage: Stage) -> str:
    from kepo.runs import read_metrics

    if stage.name != "train":
        return ""
    steps = [record["step"] for record in read_metrics(plan.folder)]
    return f", update {max(steps)}" if steps else ""
