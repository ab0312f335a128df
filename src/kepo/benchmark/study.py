"""Running the plans of a study side by side, with progress; stopped at any point, it goes on where it was."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kepo.benchmark.arms import BASELINES, Arm
from kepo.benchmark.plan import RunPlan
from kepo.benchmark.worker import is_done, prepare_process, run
from kepo.errors import KepoError
from kepo.runs import read_metrics

_POLL = 0.5  # seconds between two looks at the runs


def describe_study(study: Path, arms: Sequence[Arm], title: str) -> None:
    """Write `study.json`: names and order of the arms, for the report."""
    described = {
        arm.name: {"label": arm.label, "order": order, "baseline": arm.name in BASELINES}
        for order, arm in enumerate(arms)
    }
    content = {"title": title, "arms": described, "main_arm": "kepo"}
    study.mkdir(parents=True, exist_ok=True)
    (study / "study.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def default_workers() -> int:
    """Processes side by side: one per core, one thread each."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_plans(plans: Sequence[RunPlan], workers: int, console: Console) -> None:
    """Run every plan that is not done.

    Args:
        plans: What to run, in this order.
        workers: Processes side by side, >= 1.
        console: Where the progress is shown.

    Raises:
        KepoError: A run failed; names it and its log. Others that are under way end before the program does.
        KeyboardInterrupt: Stopped by the user; runs that were finished stay.
    """
    todo = [plan for plan in plans if not is_done(plan)]
    if not todo:
        return
    # Workers are started afresh: a forked process would share the threads and locks of torch.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=prepare_process)
    try:
        with _progress(console) as progress:
            total = progress.add_task("all runs", total=len(plans), completed=len(plans) - len(todo))
            waiting = list(todo)
            running: dict[Future[None], RunPlan] = {}
            bars = {}
            while waiting or running:
                while waiting and len(running) < workers:
                    plan = waiting.pop(0)
                    running[pool.submit(run, plan)] = plan
                    bars[plan.name] = progress.add_task(plan.name, total=plan.settings.steps)
                done, _ = wait(running, timeout=_POLL, return_when=FIRST_COMPLETED)
                for plan in running.values():
                    progress.update(bars[plan.name], completed=_last_step(plan))
                for future in done:
                    plan = running.pop(future)
                    progress.remove_task(bars.pop(plan.name))
                    _check(future, plan)
                    progress.advance(total)
    except KeyboardInterrupt:
        for process in list(pool._processes.values()):  # they leave Ctrl-C to this process
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _check(future: Future[None], plan: RunPlan) -> None:
    error = future.exception()
    if error is not None:
        why = str(error) if isinstance(error, KepoError) else f"{error!r}."
        raise KepoError(f"the run {plan.name} failed: {why} What it printed is in {plan.log}.") from error


def _last_step(plan: RunPlan) -> int:
    """The last step that the run has logged; 0 while it is being set up."""
    return max((record["step"] for record in read_metrics(plan.folder)), default=0)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)
