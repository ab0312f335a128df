"""A pytest plugin: the tests of TRL's GRPO, run with one of three trainers on stand-ins for models and data.

`tools.trl_suite` starts it. An arm is what stands in the tests under the name `GRPOTrainer`.
"""

from __future__ import annotations

import inspect
import json
import signal
from collections.abc import Callable, Generator
from importlib import import_module
from pathlib import Path
from typing import Any

import datasets
import pytest
import transformers
from packaging import version
from trl import GRPOConfig, GRPOTrainer

from kepo import KEPOTrainer, LocalTeacher
from kepo.trainer.from_grpo import as_kepo_config
from tools import trl_standins

_LONGEST = 300  # seconds of a test

OFF: dict[str, Any] = {"exploration": "none", "distillation_weight": 0.0}
# The gate is open and, where a function says what is correct, every group is explored, so that both take part.
ON: dict[str, Any] = {"gate": "always", "correctness_threshold": 1e9, "exploration_attempts": 1}


class WithoutTeacher(KEPOTrainer):
    """`KEPOTrainer` with everything of KEPO's off."""

    def __init__(self, model: Any, reward_funcs: Any = None, args: Any = None, *rest: Any, **named: Any) -> None:
        super().__init__(model, reward_funcs, as_kepo_config(args or GRPOConfig("run"), **OFF), *rest, **named)


class WithTeacher(KEPOTrainer):
    """`KEPOTrainer` with a teacher that is the student before training, and hints where a function rewards answers."""

    def __init__(self, model: Any, reward_funcs: Any = None, args: Any = None, *rest: Any, **named: Any) -> None:
        args = args or GRPOConfig("run")
        rewards = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs]
        refused = any(named.get(name) for name in ("rollout_func", "environment_factory"))
        hints = inspect.isfunction(rewards[0]) and not refused
        teacher = LocalTeacher(
            model if isinstance(model, str) else model.config._name_or_path,
            hint_max_new_tokens=4,
            chat_template_kwargs=args.chat_template_kwargs,
            trust_remote_code=args.trust_remote_code,
        )
        settings = as_kepo_config(args, **ON, exploration="hint" if hints else "none")
        super().__init__(model, reward_funcs, settings, *rest, teacher=teacher, **named)


ARMS: dict[str, type[GRPOTrainer]] = {"grpo": GRPOTrainer, "kepo": WithoutTeacher, "kepo+teacher": WithTeacher}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds what `tools.trl_suite` says."""
    parser.addoption("--trl-arm", choices=list(ARMS), required=True)
    parser.addoption("--trl-results", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    """Before TRL's test module is imported, which takes over the names it finds here."""
    config.pluginmanager.register(_Results(config.getoption("--trl-results")))
    datasets.load_dataset = trl_standins.load_dataset
    available: Any = import_module("trl.import_utils")
    if version.parse(transformers.__version__) >= version.parse("5.13"):
        # TRL's tests skip where jmespath is missing, which TRL does not need beside this transformers.
        available.is_jmespath_available = lambda: True
    # Tests of another version ask about packages that the installed one does not know.
    available.__getattr__ = _no_such_package


def _no_such_package(name: str) -> Callable[[], bool]:
    if not (name.startswith("is_") and name.endswith("_available")):
        raise AttributeError(name)
    return lambda: False


def pytest_collection_modifyitems(config: pytest.Config, items: list[Any]) -> None:
    """Puts the arm's trainer into the test module."""
    for module in {item.module for item in items}:
        module.GRPOTrainer = ARMS[config.getoption("--trl-arm")]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call() -> Generator[None, Any, None]:
    """A test that hangs fails, so that the others run."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"The test took more than {_LONGEST} seconds.")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """A test whose model has no stand-in is skipped, not failed."""
    report = (yield).get_result()
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, OSError) and "couldn't connect to" in str(error):
        report.outcome = "skipped"
        report.longrepr = ("", 0, f"Skipped: no stand-in: {' '.join(str(error).split())[:200]}")


class _Results:
    """Writes a line for each test as it ends, so that nothing is lost when the run is stopped."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        line = {
            "test": report.nodeid.split("::", 1)[1],
            "outcome": report.outcome,
            "why": _reason(report.longrepr),
            "seconds": round(report.duration, 2),
        }
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def _reason(shown: Any) -> str:
    """Why a test was skipped or failed, in a line; empty for one that passed."""
    if isinstance(shown, tuple):
        return str(shown[2]).removeprefix("Skipped: ")
    crash = getattr(shown, "reprcrash", None)
    return "" if shown is None else " ".join(str(crash.message if crash else shown).split())[:400]
