"""Runs TRL's own tests of `GRPOTrainer` with `KEPOTrainer` in its place, and prints what differs.

    python -m tools.trl_suite PATH_OF_A_CHECKOUT_OF_TRL [--arms grpo kepo kepo+teacher] [-k EXPRESSION] [--json FILE]

The installed TRL is tested; only the tests come from the checkout, whose version should be near. There is no network:
models and data are stand-ins (`tools.trl_standins`), and tests without one are skipped. Exits with 1 if `GRPOTrainer`
passes a test that another arm fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.trl_standins import build_hub, with_small_ids

ROOT = Path(__file__).parents[1]
FILES = ("test_grpo_trainer.py", "testing_utils.py", "testing_constants.py", "conftest.py", "__init__.py")
ARMS = ("grpo", "kepo", "kepo+teacher")

Results = dict[str, dict[str, Any]]
"""Test -> its outcome ('passed', 'failed' or 'skipped'), why, and its seconds."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("checkout", type=Path, help="a checkout of TRL; its tests/ is used")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("-k", dest="expression", help="only tests that match, as in pytest")
    parser.add_argument("--json", type=Path, help="write the outcomes of all tests to this file")
    asked = parser.parse_args(arguments)
    if not (asked.checkout / "tests" / FILES[0]).is_file():
        parser.error(f"{asked.checkout} has no tests/{FILES[0]}; give the folder of a checkout of TRL")
    with tempfile.TemporaryDirectory(prefix="trl-suite-") as folder:
        found = run_arms(asked.checkout, Path(folder), asked.arms, asked.expression)
    sys.stdout.write(table(found) + "\n")
    if asked.json:
        asked.json.write_text(json.dumps({"arms": found, "differences": differences(found)}, indent=1))
    return 1 if any(differences(found).values()) else 0


def run_arms(checkout: Path, folder: Path, arms: Sequence[str], expression: str | None) -> dict[str, Results]:
    """The outcome of each test under each arm; works in `folder`."""
    tests = folder / "trl_tests"  # not `tests`, which is the name of ours; and without TRL's sources beside it
    tests.mkdir()
    for name in FILES:
        if (checkout / "tests" / name).is_file():
            (tests / name).write_text(with_small_ids((checkout / "tests" / name).read_text()))
    environment = {
        **os.environ,
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_MODULES_CACHE": str(folder / "modules"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    build_hub(folder / "hub")
    found = {}
    for arm in arms:
        results = folder / f"{arm}.jsonl"
        results.touch()
        command = [sys.executable, "-m", "pytest", "-q", "-p", "tools.trl_arm", "-p", "no:cacheprovider"]
        command += ["--disable-warnings", "--no-header", "--tb=line", f"--rootdir={folder}"]
        command += [f"--trl-arm={arm}", f"--trl-results={results}"]
        command += ["-k", expression] if expression else []
        sys.stdout.write(f"--- {arm}\n")
        sys.stdout.flush()
        subprocess.run([*command, str(tests / FILES[0])], env=environment, cwd=folder, check=False)
        if not results.stat().st_size:
            sys.exit(f"The tests did not run under {arm}; see above.")
        lines = [json.loads(line) for line in results.read_text().splitlines()]
        found[arm] = {line.pop("test"): line for line in lines}
    return found


def differences(found: dict[str, Results]) -> dict[str, list[str]]:
    """Of each arm, the tests that it does not pass and `GRPOTrainer` passes."""
    passed = [test for test, result in found.get("grpo", {}).items() if result["outcome"] == "passed"]
    return {
        arm: [test for test in passed if results.get(test, {}).get("outcome") != "passed"]
        for arm, results in found.items()
        if arm != "grpo"
    }


def table(found: dict[str, Results]) -> str:
    """The counts of each arm, and each test that differs with its reason."""
    lines = [f"{'arm':14}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}"]
    for arm, results in found.items():
        counts = Counter(result["outcome"] for result in results.values())
        seconds = sum(result["seconds"] for result in results.values())
        lines.append(f"{arm:14}{counts['passed']:8}{counts['failed']:8}{counts['skipped']:9}{seconds:9.0f}")
    for arm, tests in differences(found).items():
        lines.append(f"\nPassed by GRPOTrainer, not by {arm}: {len(tests) or 'none'}")
        lines += [f"  {test}\n      {found[arm].get(test, {}).get('why', 'did not run')}" for test in tests]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
