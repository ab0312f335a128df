"""Cost of a step against group size, completion length, vocabulary, prompts per step and processes.

    python -m benchmarks.scaling                        # what benchmarks/scaling.json does not have yet is measured
    python -m benchmarks.scaling --figures docs/images  # figures of that file
    python -m benchmarks.scaling --table                # its numbers as Markdown

One setting is varied at a time, around a step of 3 groups of 8 rollouts with completions of 30 to 60 tokens. Compared
are TRL's GRPO, KEPO with prompts and idle rows computed as TRL does, and KEPO. Sampling is left out, because it is the
same for all. Operations and tokens are counted in one step and are the same on every machine; seconds are medians of
steps that take turns.

Legend: G rollouts of a group, T tokens of the longest completion, V vocabulary, Q prompts of a step.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import workload
from benchmarks.meter import CPU_ATTENTION
from benchmarks.phases import OPTIMIZER, TEACHER, TRAINING, PhaseClock, watch_trainer
from benchmarks.scaling_file import load, save
from benchmarks.side_by_side import conditions
from benchmarks.step import GRPO, KEPO, PLAIN, Arm, arms_of
from benchmarks.workload import Workload, tokens_needed
from kepo.models.llava import LlavaSize, tokenizer_texts
from kepo.models.tokenizer import train_tokenizer

ARMS = (GRPO, PLAIN, KEPO)
MODELS = ("text", "llava")

# Widths (hidden, MLP), layers and heads of the language models; the LLaVAs' decoders are as large.
_TEXT = (192, 512, 2, 6), (256, 704, 3, 8)
_LLAVA = (
    LlavaSize(vision_width=96, vision_layers=2, text_width=192, text_layers=2),
    LlavaSize(vision_width=128, vision_layers=2, text_width=256, text_layers=3),
)


@dataclass(frozen=True, slots=True)
class Point:
    """A step that is measured."""

    model: str
    group: int = 8  # G
    completion: int = 60  # T; the shortest completion has half as many
    vocabulary: int = 2048  # V
    prompts: int = 3  # Q, a multiple of 3: of a mixed group, one without a correct rollout, and one with most correct
    processes: int = 1

    @property
    def correct(self) -> list[int]:
        """Correct rollouts of every group: a third of all rows is idle, the gate is open for three in eight."""
        return [round(self.group * 3 / 8), 0, round(self.group * 6 / 8)] * (self.prompts // 3)


_POINT = tuple(field.name for field in dataclasses.fields(Point))

AXES: dict[str, dict[str, Sequence[int]]] = {
    "text": {
        "group": (4, 8, 16),
        "completion": (30, 60, 120, 240),
        "vocabulary": (2048, 8192, 32768),
        "prompts": (3, 6, 9),
    },
    "llava": {
        "group": (4, 8, 16),
        "completion": (30, 60, 120),
        "vocabulary": (2048, 32768),
        "prompts": (3, 6),
    },
}
TWO_PROCESSES = {"prompts": 6, "processes": 2}  # beside 6 prompts of one process


def points() -> list[Point]:
    """All that is measured, each once."""
    found = [Point(model, **TWO_PROCESSES) for model in MODELS]
    for model, axes in AXES.items():
        found += [Point(model, **{axis: value}) for axis, values in axes.items() for value in values]
    return list(dict.fromkeys(found))


# --- models -------------------------------------------------------------------------------------------------------


def work_of(point: Point) -> Workload:
    """Student, teacher, prompts and rollouts of a point."""
    lengths = point.completion // 2, point.completion
    device = torch.device("cpu")
    if point.model == "llava":
        return workload.llava(point.correct, point.group, lengths, device, _LLAVA, point.vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        asked = workload.questions(point.prompts, None)
        tokenizer = train_tokenizer(tokenizer_texts(asked))
        student, teacher = (_language_model(size, tokenizer, point) for size in _TEXT)
        student.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        work = workload.language_model(folder, point.correct, point.group, lengths, device)
    return dataclasses.replace(work, teacher=teacher)


def _language_model(size: tuple[int, int, int, int], tokenizer: Any, point: Point) -> Any:
    hidden, inner, layers, heads = size
    torch.manual_seed(0)
    special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config = LlamaConfig(
        vocab_size=point.vocabulary, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads // 2, tie_word_embeddings=True, **special,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def of_process(work: Workload, index: int, count: int) -> Workload:
    """The part of the groups that process `index` of `count` has."""
    mine = len(work.rollouts.groups) // count
    work.rollouts.groups = work.rollouts.groups[index * mine : (index + 1) * mine]
    return dataclasses.replace(work, fields={**work.fields, "gradient_accumulation_steps": mine})


# --- measuring ----------------------------------------------------------------------------------------------------


class OperationsClock:
    """A `PhaseClock` whose time is the number of floating-point operations; it runs inside `with`."""

    def __init__(self) -> None:
        self._counter: FlopCounterMode | None = None
        self.phases = PhaseClock(now=self._operations)

    def _operations(self) -> float:
        return float(self._counter.get_total_flops()) if self._counter is not None else 0.0

    def __enter__(self) -> OperationsClock:
        self._counter = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)
        self._counter.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        assert self._counter is not None
        self._counter.__exit__(*error)
        self._counter = None


def measure(point: Point, rounds: int, index: int = 0) -> list[dict[str, Any]]:
    """One record per arm of a point, of process `index`.

    Args:
        point: What to measure.
        rounds: Steps of every arm that are timed.
        index: Which of the point's processes this is.
    """
    work = of_process(work_of(point), index, point.processes)
    with arms_of(work, ARMS) as built:
        clocks = {name: OperationsClock() for name in built}
        for name, arm in built.items():
            arm.replay.samples = False
            watch_trainer(arm.trainer, clocks[name].phases)
            arm.turn()  # the first batch is where packs check themselves
        records = {name: _counted(arm, clocks[name]) for name, arm in built.items()}
        timed: dict[str, list[dict[str, float]]] = {name: [] for name in built}
        for _ in range(rounds):
            for name, arm in built.items():
                timed[name].append(arm.turn())
    for name, record in records.items():
        record |= _seconds(timed[name])
        record |= _needed(work, with_teacher=name != GRPO)
    return [{**dataclasses.asdict(point), "arm": name, **record, "rounds": rounds} for name, record in records.items()]


def _counted(arm: Arm, clock: OperationsClock) -> dict[str, Any]:
    """Tokens and 10^6 operations of one step."""
    tokens = arm.turn(around=clock)
    operations = clock.phases.take()
    teacher = operations.get(f"seconds/{TEACHER}", 0.0)
    return {
        "student tokens": round(sum(n for key, n in tokens.items() if key.startswith("tokens/student"))),
        "teacher tokens": round(sum(n for key, n in tokens.items() if key.startswith("tokens/teacher"))),
        "student MFLOP": round((sum(operations.values()) - teacher) / 1e6),
        "teacher MFLOP": round(teacher / 1e6),
    }


def _seconds(turns: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median seconds of training and teacher."""

    def median(*phases: str) -> float:
        return round(statistics.median(sum(turn.get(f"seconds/{p}", 0.0) for p in phases) for turn in turns), 3)

    return {"student s": median(TRAINING, OPTIMIZER), "teacher s": median(TEACHER)}


def _needed(work: Workload, *, with_teacher: bool) -> dict[str, int]:
    """Tokens that would have to be computed, each prompt once."""
    groups = work.rollouts.groups
    if not with_teacher:
        return {"student needed": tokens_needed(groups, workload.has_advantage), "teacher needed": 0}
    return {
        "student needed": tokens_needed(groups, workload.has_gradient),
        "teacher needed": tokens_needed(groups, workload.is_gated),
    }


# --- several processes --------------------------------------------------------------------------------------------


def measure_processes(point: Point, rounds: int) -> list[dict[str, Any]]:
    """As `measure`, with the point's processes of one thread each over gloo: counts are sums, seconds the longest."""
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(point.processes), "--standalone"]
    with tempfile.TemporaryDirectory() as folder:
        given = ["--worker", json.dumps(dataclasses.asdict(point)), folder, "--rounds", str(rounds)]
        command = [sys.executable, *launch, "-m", "benchmarks.scaling", *given]
        subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
        parts = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    return [together(records) for records in zip(*parts, strict=True)]


def together(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One arm's records of all processes as one; of operations also the most that a process has."""
    joined = dict(records[0])
    for name, value in records[0].items():
        values = [record[name] for record in records]
        if name.endswith(" s"):
            joined[name] = max(values)
        elif name.endswith(("tokens", "needed", "MFLOP")):
            joined[name] = sum(values)
            if name.endswith("MFLOP"):
                joined[f"busiest {name}"] = max(values)
        else:
            assert all(other == value for other in values), f"{name} differs between processes"
    return joined


def work_as_process(point: Point, rounds: int, out: Path) -> None:
    """Measure as one of the processes that torchrun started, and write the records to `out`."""
    index = int(os.environ["RANK"])
    (out / f"{index}.json").write_text(json.dumps(measure(point, rounds, index)))
    torch.distributed.destroy_process_group()  # its threads must not outlive this one


# --- the file -----------------------------------------------------------------------------------------------------


def missing(measured: Mapping[str, Any]) -> list[Point]:
    """Points that are not in the file."""
    known = {Point(**{name: record[name] for name in _POINT}) for record in measured["steps"]}
    return [point for point in points() if point not in known]


# --- readers ------------------------------------------------------------------------------------------------------

_NAMES = {
    "group": "rollouts of a prompt (G)",
    "completion": "tokens of the longest completion (T)",
    "vocabulary": "vocabulary (V)",
    "prompts": "prompts of a step (Q)",
}


def series(
    steps: Sequence[Mapping[str, Any]], model: str, axis: str, arm: str, what: str
) -> tuple[list[int], list[Any]]:
    """Values of an axis, and `what` was measured there, of one arm."""
    base = dataclasses.asdict(Point(model))
    others = {name: value for name, value in base.items() if name != axis}
    found = [r for r in steps if r["arm"] == arm and all(r[name] == value for name, value in others.items())]
    found.sort(key=lambda record: record[axis])
    return [record[axis] for record in found], [record[what] for record in found]


def table(steps: Sequence[Mapping[str, Any]], model: str) -> str:
    """Every point of a model, as Markdown: of TRL's GRPO the operations, of KEPO those relative to it."""
    lines = [
        "| G | T | V | Q | processes | GRPO: 10^9 op. | tokens | KEPO: tokens | needed | op. | teacher's op. | plain: "
        "op. | GRPO: s | KEPO: s |",
        "| --- " * 14 + "|",
    ]
    by_point: dict[Point, dict[str, Mapping[str, Any]]] = {}
    for record in steps:
        by_point.setdefault(Point(**{name: record[name] for name in _POINT}), {})[record["arm"]] = record
    for point in (point for point in points() if point.model == model and point in by_point):
        grpo, plain, kepo = (by_point[point][arm] for arm in ARMS)
        base = grpo["student MFLOP"]
        cells = [
            *(getattr(point, name) for name in _POINT[1:]), f"{base / 1e3:.1f}",
            grpo["student tokens"], kepo["student tokens"], kepo["student needed"],
            *(f"{value / base:.2f}" for value in (kepo["student MFLOP"], kepo["teacher MFLOP"])),
            f"{plain['student MFLOP'] / base:.2f}",
            f"{grpo['student s']:.1f}", f"{kepo['student s'] / grpo['student s']:.2f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def draw(steps: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Operations of training (and of training and teacher) against every axis, relative to TRL's GRPO at the base."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "kepo", "svg.fonttype": "none", "font.size": 8}
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(MODELS), len(_NAMES), figsize=(10, 4.5))
    for row, model in zip(axes, MODELS, strict=True):
        for panel, (axis, label) in zip(row, _NAMES.items(), strict=True):
            for arm, color in zip(ARMS, ("tab:gray", "tab:orange", "tab:blue"), strict=True):
                x, student = series(steps, model, axis, arm, "student MFLOP")
                _, teacher = series(steps, model, axis, arm, "teacher MFLOP")
                panel.plot(x, [value / 1e3 for value in student], "o-", color=color, label=arm, markersize=3)
                if any(teacher):
                    both = [(a + b) / 1e3 for a, b in zip(student, teacher, strict=True)]
                    panel.plot(x, both, "--", color=color, label=f"{arm}, with teacher")
            panel.set_ylim(bottom=0)
            panel.set_xlabel(label)
            panel.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(f"{model}: 10^9 operations")
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    figure.legend(*axes[0][0].get_legend_handles_labels(), fontsize=7, loc="upper center", ncols=5)
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "scaling.svg"
    figure.savefig(out, metadata={"Date": None})
    return out


def main(given: Sequence[str] | None = None) -> None:
    """See the top of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of every arm")
    parser.add_argument("--model", choices=MODELS, help="only this one")
    parser.add_argument("--worker", nargs=2, metavar=("POINT", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="draw what was measured")
    parser.add_argument("--table", action="store_true", help="print what was measured")
    args = parser.parse_args(given)
    if args.figures:
        draw(load()["steps"], args.figures)
        return
    if args.table:
        sys.stdout.write("\n\n".join(f"{model}\n\n{table(load()['steps'], model)}" for model in MODELS) + "\n")
        return
    if args.worker:
        work_as_process(Point(**json.loads(args.worker[0])), args.rounds, Path(args.worker[1]))
        return
    measured = load()
    measured["conditions"] = measured["conditions"] or conditions()
    for point in missing(measured):
        if args.model in (None, point.model):
            sys.stdout.write(f"{point}\n")
            sys.stdout.flush()
            run = measure_processes if point.processes > 1 else measure
            measured["steps"] += run(point, args.rounds)
            save(measured)


if __name__ == "__main__":
    main()
