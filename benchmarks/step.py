"""Cost of a KEPO step beside TRL's GRPO, TRL's GRPO with TRL's distillation loss, and the public KEPO pattern.

    python -m benchmarks.step                        # the small LLaVA and, if models/smollm2 is there, SmolLM2
    python -m benchmarks.step --quick                # the small LLaVA with fewer rows
    python -m benchmarks.step --cpu-time             # for a machine that does something else as well
    python -m benchmarks.step --device cuda --model qwen3-vl-2b --budget 420   # real sizes, random weights, bfloat16
    python -m benchmarks.step --model qwen3-vl-2b --shrink --quick             # the same path at a toy size, on the CPU

All arms train on the same rollouts in one process, taking turns step by step. A whole step samples (to one length, the
result is thrown away) and trains; the training phase alone is the same step without sampling. Ratios are within a
round: median, least and largest.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from trl import GRPOConfig, GRPOTrainer

from benchmarks import workload
from benchmarks.arms import PublicPattern, TRLDistillation
from benchmarks.phases import OPTIMIZER, PHASES, TEACHER, TRAINING, PeakBytes, PhaseClock, watch_decoder, watch_trainer
from benchmarks.side_by_side import Report, Samples, Spread, Table, arguments, conditions, interleave, ratio
from benchmarks.turns import Turns
from benchmarks.workload import Replay, Workload, tokens_needed
from kepo import KEPOConfig, KEPOTrainer, LocalTeacher

GRPO, TRL_DISTILLATION, PUBLIC, KEPO, PLAIN = (
    "TRL GRPO",
    "TRL GRPO + distillation",
    "public KEPO pattern",
    "kepo",
    "kepo, prompts not shared",
)
OURS: dict[str, dict[str, Any]] = {
    KEPO: {"exploration": "none"},
    "kepo, idle rows kept": {"exploration": "none", "skip_idle_rows": False},
    PLAIN: {"exploration": "none", "share_prompt": False, "skip_idle_rows": False},
    "kepo, GRPO alone": {
        "exploration": "none", "distillation_weight": 0.0, "share_prompt": True, "skip_idle_rows": True,
    },
    "kepo, one attempt of exploration": {"exploration": "resample", "exploration_attempts": 1},
}  # fmt: skip
"""Our arms: what their `KEPOConfig` has beside the workload's fields."""


class Arm:
    """A trainer under measurement.

    Args:
        trainer: It trains on `workload`.
        workload: Its rollouts are replayed.
        clock: Shared by all arms, because only one of them runs at a time.
        frozen: Models beside the student.
    """

    def __init__(self, trainer: Any, workload: Workload, clock: PhaseClock, frozen: Sequence[Any] = ()) -> None:
        self.trainer, self._clock, self._frozen = trainer, clock, list(frozen)
        self.replay = Replay(trainer, workload.rollouts)
        watch_trainer(trainer, clock)
        watch_decoder(trainer.model, "student", clock)
        self._turns = Turns(trainer)

    def turn(self, around: contextlib.AbstractContextManager[Any] | None = None) -> dict[str, float]:
        """One step: its seconds and tokens by phase; `around` is entered before and left after it."""
        self._turns.step(around)
        return self._clock.take()

    def peak(self) -> int:
        """Bytes of one more step, beyond weights and optimizer states."""
        measured = PeakBytes(self.trainer.accelerator.device)
        self._turns.step(around=measured)
        self._clock.take()
        return measured.bytes

    @property
    def weight_bytes(self) -> int:
        """Weights of the student and of all models beside it."""
        return sum(p.numel() * p.element_size() for m in (self.trainer.model, *self._frozen) for p in m.parameters())

    def close(self) -> None:
        """End training."""
        self._turns.close()


@contextlib.contextmanager
def arms_of(
    work: Workload, names: Sequence[str] | None = None, now: Callable[[], float] = time.perf_counter
) -> Iterator[dict[str, Arm]]:
    """The arms by name, each with a student of its own and all with one teacher; `names`: only these."""
    device = next(work.teacher.parameters()).device
    clock = PhaseClock(torch.cuda.synchronize if device.type == "cuda" else lambda: None, now)
    reference = work.student().eval().requires_grad_(False)
    work.teacher.eval().requires_grad_(False)
    watch_decoder(work.teacher, "teacher", clock)
    watch_decoder(reference, "reference", clock)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        built: dict[str, Arm] = {}
        for name, build in builders(work, reference, Path(folder)).items():
            if names is None or name in names:
                trainer, frozen = build()
                built[name] = Arm(trainer, work, clock, frozen)
                stack.callback(built[name].close)
        yield built


def builders(work: Workload, reference: Any, folder: Path) -> dict[str, Callable[[], tuple[Any, list[Any]]]]:
    """For every arm: makes its trainer, and says which frozen models that holds."""

    def trl(kind: Any, **models: Any) -> tuple[Any, list[Any]]:
        args = GRPOConfig(output_dir=str(folder / kind.__name__), **work.fields)
        trainer = kind(work.student(), [work.rollouts.reward], args, work.dataset, None, work.processor, **models)
        return trainer, list(models.values())

    def ours(name: str, fields: Mapping[str, Any]) -> tuple[Any, list[Any]]:
        output = folder / name.replace(" ", "-")
        args = KEPOConfig(output_dir=str(output), rollout_log=False, **{**work.fields, **fields})
        needed = args.uses_teacher_scores
        teacher = LocalTeacher(work.teacher, work.processor, share_prompt=args.share_prompt) if needed else None
        trainer = KEPOTrainer(
            work.student(), [work.rollouts.reward], args, work.dataset, None, work.processor, teacher=teacher
        )
        return trainer, [work.teacher] if needed else []

    return {
        GRPO: lambda: trl(GRPOTrainer),
        TRL_DISTILLATION: lambda: trl(TRLDistillation, teacher_model=work.teacher),
        PUBLIC: lambda: trl(PublicPattern, teacher_model=work.teacher, reference_model=reference),
        **{name: partial(ours, name, fields) for name, fields in OURS.items()},
    }


def measure(
    work: Workload,
    rounds: int,
    budget: float | None,
    names: Sequence[str] | None,
    now: Callable[[], float] = time.perf_counter,
) -> tuple[dict[str, Samples], list[Table]]:
    """Both parts of a workload: the whole step, and the step without sampling, with its peaks of memory.

    Args:
        work: Of all arms.
        rounds: Of each part, at most.
        budget: Seconds of both parts; None: all rounds are made.
        names: Of the arms; None: all.
        now: Reads the clock, in seconds.
    """
    with arms_of(work, names, now) as built:
        turns = {name: arm.turn for name, arm in built.items()}
        whole = interleave(turns, rounds, budget=None if budget is None else 0.7 * budget, clock=now)
        for arm in built.values():
            arm.replay.samples = False
        alone = interleave(turns, rounds, warmup=0, budget=None if budget is None else 0.2 * budget, clock=now)
        peaks = {name: arm.peak() for name, arm in built.items()}
        weights = {name: arm.weight_bytes for name, arm in built.items()}
    tables = [
        whole_table(work, whole),
        phase_table(work, whole),
        training_table(work, alone),
        memory_table(work, peaks, weights),
        teacher_table(work, alone),
        token_table(work, alone),
    ]
    samples = {f"{work.name}: whole step": whole, f"{work.name}: without sampling": alone}
    return samples, [table for table in tables if table.rows]


def whole_table(work: Workload, samples: Samples) -> Table:
    """Seconds of a whole step."""
    rows = [
        [name, Spread.of(one["seconds"]), *_ratios(samples, one["seconds"], "seconds")] for name, one in samples.items()
    ]
    columns = ["arm", "s/step", *_of(samples)]
    rounds = len(next(iter(samples.values()))["seconds"])
    return Table(f"{work.name}: a whole step, sampling included", columns, rows, f"{described(work)} {rounds} rounds.")


def described(work: Workload) -> str:
    """What the arms train on, in words."""
    groups = work.rollouts.groups
    rows = [(group, row) for group in groups for row in range(len(group.completions))]
    lengths = [len(group.completions[row]) for group, row in rows]
    idle = sum(not workload.has_gradient(group, row) for group, row in rows)
    return (
        f"{len(groups)} groups of {len(groups[0].completions)} rollouts, of which {work.rollouts.open_share:.0%} have "
        f"an open gate and {idle / len(rows):.0%} no gradient; prompts of {max(len(group.prompt) for group in groups)} "
        f"tokens, completions of {min(lengths)} to {max(lengths)}, {sum(lengths) / len(lengths):.0f} on average; "
        f"{work.fields.get('optim', 'adamw_torch')}, micro-batches of {work.fields['per_device_train_batch_size']}."
    )


def phase_table(work: Workload, samples: Samples) -> Table:
    """Median seconds of every phase of a whole step."""
    used = [phase for phase in PHASES if any(f"seconds/{phase}" in one for one in samples.values())]
    rows = []
    for name, one in samples.items():
        phases = [_median(one, f"seconds/{phase}") for phase in used]
        rows.append([name, *phases, max(_median(one, "seconds") - sum(phases), 0.0)])
    return Table(f"{work.name}: seconds by phase", ["arm", *used, "other"], rows)


def training_table(work: Workload, samples: Samples) -> Table:
    """The training phase (forward, backward, optimizer), and all of a step but sampling."""
    timed = {name: {"training": training_seconds(one), "rest": one["seconds"]} for name, one in samples.items()}
    rows = [
        [name]
        + [cell for part in ("training", "rest") for cell in (Spread.of(one[part]), *_ratios(timed, one[part], part))]
        for name, one in timed.items()
    ]
    columns = ["arm", "training s", *_of(samples), "all but sampling s", *_of(samples)]
    note = "Training is forward, backward and optimizer; the other columns have teacher, reference and rewards too."
    return Table(f"{work.name}: a step without sampling", columns, rows, note)


def memory_table(work: Workload, peaks: Mapping[str, int], weights: Mapping[str, int]) -> Table:
    """Peak of a step without sampling."""
    bases = [base for base in (GRPO, PUBLIC) if base in peaks]
    rows = [
        [name, round(peak / 2**20), *(peak / peaks[base] for base in bases), round(weights[name] / 2**20)]
        for name, peak in peaks.items()
    ]
    note = "Most bytes of tensors at once, beyond weights and optimizer states; and the weights of all models."
    return Table(f"{work.name}: memory", ["arm", "peak MiB", *_of(peaks), "weights MiB"], rows, note)


def teacher_table(work: Workload, samples: Samples) -> Table:
    """The teacher's phase."""
    metric = f"seconds/{TEACHER}"
    with_teacher = {name: one for name, one in samples.items() if metric in one}
    bases = [base for base in (PLAIN, PUBLIC) if base in with_teacher]
    rows = [
        [name, Spread.of(one[metric]), *(ratio(one[metric], with_teacher[base][metric]) for base in bases)]
        for name, one in with_teacher.items()
    ]
    return Table(f"{work.name}: the teacher's phase", ["arm", "s", *(f"of {base}" for base in bases)], rows)


def token_table(work: Workload, samples: Samples) -> Table:
    """Tokens that pass through decoders in the training phase, and those that would have to."""
    groups = work.rollouts.groups
    needed = {
        "student": tokens_needed(groups, workload.has_gradient),
        "teacher": tokens_needed(groups, workload.is_gated),
    }
    policy_alone = tokens_needed(groups, workload.has_advantage)
    rows = []
    for name, one in samples.items():
        computed = {
            role: sum(_median(one, metric) for metric in one if metric.startswith(f"tokens/{role}/"))
            for role in ("student", "teacher", "reference")
        }
        student = needed["student"] if computed["teacher"] else policy_alone
        teacher = needed["teacher"] if computed["teacher"] else 0
        rows.append(
            [
                name, round(computed["student"]), student, computed["student"] / student,
                round(computed["teacher"]), teacher, computed["teacher"] / teacher if teacher else None,
                round(computed["reference"]),
            ]
        )  # fmt: skip
    columns = [
        "arm", "student", "needed", "computed/needed", "teacher", "needed", "computed/needed", "reference",
    ]  # fmt: skip
    note = (
        "Computed: all that passes through a decoder, padding included. Needed: each prompt once, and the completions "
        "with a gradient (student) or an open gate (teacher)."
    )
    return Table(f"{work.name}: tokens of a step without its rollouts", columns, rows, note)


def training_seconds(one: Mapping[str, Sequence[float]]) -> list[float]:
    """Forward, backward and optimizer, round by round."""
    return [sum(parts) for parts in zip(one[f"seconds/{TRAINING}"], one[f"seconds/{OPTIMIZER}"], strict=True)]


def _ratios(samples: Mapping[str, Mapping[str, Sequence[float]]], values: Sequence[float], metric: str) -> list[Spread]:
    return [ratio(values, samples[base][metric]) for base in (GRPO, PUBLIC) if base in samples]


def _of(arms: Collection[str]) -> list[str]:
    """Headings of `_ratios`."""
    return [f"of {base}" for base in (GRPO, PUBLIC) if base in arms]


def _median(one: Mapping[str, Sequence[float]], metric: str) -> float:
    return Spread.of(one[metric]).median if metric in one else 0.0


def workloads(args: argparse.Namespace, device: torch.device) -> Iterator[Workload]:
    """What the command line asks for."""
    shape = {"group_size": args.group_size, "lengths": tuple(args.lengths), "device": device}
    if args.model == "qwen3-vl-2b":
        side = 64 if args.shrink else 384
        yield workload.qwen3_vl(
            "Qwen3-VL-2B-Instruct", args.teacher, args.correct, **shape, shrink=args.shrink, image_side=side
        )
        return
    if args.model in ("all", "llava"):
        yield workload.llava(args.correct, **shape)
    if args.model == "smollm2" or (args.model == "all" and not args.quick and Path(args.smollm2).is_dir()):
        yield workload.language_model(args.smollm2, args.correct[:1], **shape)  # a step of one group is long enough


def main(given: Sequence[str] | None = None) -> None:
    """Print the tables; see the top of this module."""
    parser = arguments(__doc__)
    parser.add_argument("--model", choices=("all", "llava", "smollm2", "qwen3-vl-2b"), default="all")
    parser.add_argument("--smollm2", default="models/smollm2", help="its folder: kepo models smollm2 FOLDER")
    parser.add_argument("--teacher", default="Qwen3-VL-8B-Instruct", help="published name, with --model qwen3-vl-2b")
    parser.add_argument("--shrink", action="store_true", help="a toy of the shape of --model qwen3-vl-2b")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--correct", type=int, nargs="+", help="correct rollouts per group (3 0 8 3; quick: 3 0)")
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--lengths", type=int, nargs=2, help="shortest, longest completion (30 90; quick: 10 40)")
    parser.add_argument("--rounds", type=int, help="(5; quick: 2)")
    parser.add_argument("--budget", type=float, help="seconds per model; fewer rounds are made if need be")
    parser.add_argument("--arms", nargs="+", help="only these")
    parser.add_argument("--cpu-time", action="store_true", help="CPU seconds of this process; with one thread")
    args = parser.parse_args(given)
    args.correct = args.correct or ([3, 0] if args.quick else [3, 0, 8, 3])
    args.lengths = args.lengths or ([10, 40] if args.quick else [30, 90])
    rounds = args.rounds or (2 if args.quick else 5)
    now = time.process_time if args.cpu_time else time.perf_counter
    seconds = {"seconds": "of CPU time" if args.cpu_time else "of the clock"}
    report = Report("step", seconds, conditions=conditions(args.device))
    for work in workloads(args, torch.device(args.device)):
        samples, tables = measure(work, rounds, args.budget, args.arms, now)
        report.samples |= samples
        report.tables += tables
    report.write(args.json)


if __name__ == "__main__":
    main()
