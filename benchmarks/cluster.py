"""A written model of a step on 8 and 64 GPUs: nothing here was run on one.

    python -m benchmarks.cluster                          # the tables of docs/performance.md
    python -m benchmarks.cluster --figures docs/images    # the figure

Operations are those that `benchmarks.scaling` counts, with the sizes of the published models; what a machine reaches of
its peak is assumed (`Machine`). Rewards and writing are measured by `python -m benchmarks.cluster --measure`.

Legend: Q questions of a step, G rollouts of each, P prompt tokens, T completion tokens, n GPUs.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scipy.stats import binom

from benchmarks.scaling_file import load, save
from kepo.models.packing import Cost
from kepo.planning.architecture import Architecture, load_architecture

STUDENT, TEACHER = "Qwen3-VL-2B-Instruct", "Qwen3-VL-32B-Instruct"
BF16 = 2  # bytes


@dataclass(frozen=True, slots=True)
class Machine:
    """Assumed, not measured: an H100 node as in docs/reproduce.md, and several of them."""

    flops: float = 989e12  # peak in bfloat16, per second
    efficiency: float = 0.4  # of that, reached by forward and backward passes
    gpus_of_node: int = 8
    link: float = 450e9  # bytes/s of a GPU to the others of its node
    network: float = 400e9  # bytes/s of a node to the others (8 x 400 Gbit/s)
    link_efficiency: float = 0.7  # of both, reached by collectives
    token_seconds: float = 0.030  # of a decoding step of the student with transformers' generate; see docs/reproduce.md
    hint_token_seconds: float = 0.050  # of a teacher that is whole on every GPU; a sharded one also gathers itself

    def bandwidth(self, gpus: int) -> float:
        """Bytes/s that a ring of collectives reaches: between nodes the network is the narrowest place."""
        return self.link_efficiency * (self.link if gpus <= self.gpus_of_node else min(self.link, self.network))


@dataclass(frozen=True, slots=True)
class Sizes:
    """What arithmetic and messages of a model depend on."""

    decoder: Cost  # operations of a forward pass by tokens of a sequence, all layers, without the output head
    head: float  # operations of the output head per token
    image: float  # operations of tower and projections per image
    parameters: int

    @classmethod
    def of(cls, architecture: Architecture, image_size: int = 384) -> Sizes:
        """Of a published model."""
        d, tower = architecture.decoder, architecture.tower
        queries, keys = d.heads * d.head_dim, d.kv_heads * d.head_dim
        linear = d.hidden * (2 * queries + 2 * keys) + 3 * d.hidden * d.mlp_width
        image = 0.0
        if tower is not None:
            patches, merged = tower.patches(image_size), tower.hidden * tower.merge**2
            block = 2 * (4 * tower.hidden**2 + 2 * tower.hidden * tower.mlp_width) + 4 * patches * tower.hidden
            merger = 2 * merged * (merged + d.hidden)
            image = patches * tower.layers * block + tower.tokens(image_size) * tower.mergers * merger
        decoder = Cost(2.0 * d.layers * linear, 4.0 * d.layers * queries)
        return cls(decoder, 2.0 * d.vocab * d.hidden, image, architecture.parameters)


@dataclass(frozen=True, slots=True)
class Step:
    """A step, and how it is computed.

    Attributes:
        prompts: Q of the whole step, on all GPUs together.
        group: G.
        prompt: P, those of the image included.
        mean: T on average.
        longest: T of the longest completion.
        active: Share of the groups whose rollouts have a gradient.
        gated: Share of the rows that the teacher reads.
        shared: Prompts are computed once per group, images once per prompt, and rows without gradient left out.
        distills: There is a teacher.
        checkpointing: Activations are computed anew in the backward pass.
        failed: Share of the groups that are explored.
        chance: That a hinted sample is correct.
        attempts: Most attempts of exploration.
        samples: Samples per group and attempt.
        hint: Tokens of the longest hint; 0: from the hint bank, or asked for ahead.
    """

    prompts: int = 64
    group: int = 8
    prompt: int = 300
    mean: float = 250.0
    longest: int = 600
    active: float = 0.6
    gated: float = 0.4
    shared: bool = True
    distills: bool = True
    checkpointing: bool = True
    failed: float = 0.0
    chance: float = 0.3
    attempts: int = 3
    samples: int = 4
    hint: int = 200


def expected_most(units: int, processes: int, share: float) -> float:
    """Expected largest of `processes` independent counts, each of `units` trials that succeed with chance `share`.

    It is what a step waits for: every process has its own luck, and the slowest one decides.
    """
    below = [float(binom.cdf(count, units, share)) ** processes for count in range(units + 1)]
    return sum(1.0 - value for value in below[:-1])


def expected_attempts(groups: float, pending_after: float, most: int) -> float:
    """Expected attempts, at most `most`, until none of `groups` is left, each of which goes on with this chance.

    All processes sample together, so an attempt is made by all as long as one group needs it.
    """
    return sum(1.0 - (1.0 - pending_after**made) ** groups for made in range(most))


def placement(step: Step, gpus: int) -> tuple[int, int, int]:
    """Groups, or parts of groups, of a GPU; rollouts of each; and how many GPUs have luck of their own."""
    rows = step.prompts * step.group / gpus
    if rows < 1:
        raise ValueError(f"{step.prompts} x {step.group} rollouts do not give each of {gpus} GPUs one.")
    here = min(step.group, int(rows))
    return math.ceil(rows / here), here, min(gpus, step.prompts)


def reading_flops(sizes: Sizes, step: Step, rows: int) -> float:
    """Forward operations of a decoder and tower that read `rows` rollouts of one prompt; without the output head."""
    if not step.shared:
        return sizes.decoder(rows, step.prompt + step.longest) + rows * sizes.image
    packs = [(count, step.prompt + math.ceil(rows / count) * step.mean) for count in range(1, rows + 1)]
    return min(sizes.decoder(count, longest) for count, longest in packs) + sizes.image  # type: ignore[arg-type]


def student_flops(student: Sizes, teacher: Sizes, step: Step, gpus: int) -> float:
    """Operations of forward and backward on the GPU that has most."""
    units, rows, lucks = placement(step, gpus)
    busiest = expected_most(units, lucks, step.active) if step.shared else units
    passes = 4 if step.checkpointing else 3
    scored = rows * (step.mean if step.shared else step.longest)
    # As counted: forward and twice that backward; of gated tokens a second gradient, and the teacher's logits.
    head = 3 * student.head * scored
    if step.distills:
        head += step.gated / step.active * rows * step.mean * (2 * student.head + teacher.head)
    return busiest * (passes * reading_flops(student, step, rows) + head)


def teacher_flops(teacher: Sizes, step: Step, gpus: int) -> float:
    """Operations of scoring on the GPU that has most."""
    if not step.distills:
        return 0.0
    units, rows, _ = placement(step, gpus)
    busiest = expected_most(units * rows, gpus, step.gated)  # the teacher reads gated rows alone
    if not step.shared:
        return busiest * (reading_flops(teacher, step, 1) + step.longest * teacher.head)
    of_group = min(rows, max(1, round(rows * step.gated / step.active)))
    return busiest / of_group * reading_flops(teacher, step, of_group) + busiest * step.mean * teacher.head


def gather_seconds(sizes: Sizes, gpus: int, machine: Machine) -> float:
    """Of gathering the weights of a sharded model once, in bfloat16."""
    return BF16 * sizes.parameters * (gpus - 1) / gpus / machine.bandwidth(gpus)


def all_reduce_seconds(sizes: Sizes, gpus: int, machine: Machine, element: int = BF16) -> float:
    """Of averaging gradients: in a ring each GPU sends and receives twice the gradients, less its own part."""
    return 2 * element * sizes.parameters * (gpus - 1) / gpus / machine.bandwidth(gpus)


def step_seconds(
    student: Sizes, teacher: Sizes, step: Step, gpus: int, machine: Machine, per_row: Mapping[str, float]
) -> dict[str, float]:
    """Seconds of a step by term; both models are sharded (ZeRO-3), nothing overlaps.

    Args:
        student: Sizes of the student.
        teacher: Sizes of the teacher.
        step: What is computed.
        gpus: n.
        machine: What they reach.
        per_row: Measured seconds per rollout: `rewards` (each process has its own rows), `writing` (one process has
            all).
    """
    units, rows, _ = placement(step, gpus)
    reached = machine.flops * machine.efficiency
    passes = units  # a micro-batch is a group, or the part of a group that a GPU has
    gathers = 3 if step.checkpointing else 2  # forward, recomputation, backward
    failed = step.prompts * step.failed
    pending = (1 - step.chance) ** step.samples
    attempts = expected_attempts(failed, pending, step.attempts) if failed else 0.0
    hint = step.hint * (machine.hint_token_seconds + gather_seconds(teacher, gpus, machine))
    terms = {
        "rollouts": step.longest * machine.token_seconds,
        "exploration": attempts * (hint + step.longest * machine.token_seconds),
        "teacher: arithmetic": teacher_flops(teacher, step, gpus) / reached,
        "teacher: gathering": passes * gather_seconds(teacher, gpus, machine) if step.distills else 0.0,
        "student: arithmetic": student_flops(student, teacher, step, gpus) / reached,
        "student: gathering": passes * gathers * gather_seconds(student, gpus, machine),
        "gradients": all_reduce_seconds(student, gpus, machine),
        "rewards": units * rows * per_row["rewards"],
        "writing": step.prompts * step.group * per_row["writing"],
    }
    return {name: float(value) for name, value in terms.items()}


# --- measured here ------------------------------------------------------------------------------------------------


def measure_rows(count: int = 512, repeats: int = 5) -> dict[str, float]:
    """Median seconds per rollout of a reward that reads answers, and of writing the rollout log."""
    from kepo.rewards import choice_accuracy
    from kepo.runs.rollouts import rollout_schema, write_rollouts

    reasoning = "The signal is high where fluid is expected, and bone is dark in every part of the image. " * 12
    texts = [f"<think>{reasoning}</think><answer>{'ABCD'[row % 4]}</answer>" for row in range(count)]
    options = [["MRI", "CT", "X-ray", "ultrasound"]] * count
    record = dict.fromkeys(rollout_schema(["choice_accuracy"]).names)
    rows = [
        record | {"step": 1, "process": 0, "row": row, "id": str(row), "completion": text, "prompt": reasoning,
                  "injected": False}
        for row, text in enumerate(texts)
    ]  # fmt: skip
    taken: dict[str, list[float]] = {"rewards": [], "writing": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            start = time.perf_counter()
            choice_accuracy(
                [[{"role": "assistant", "content": text}] for text in texts], ["A"] * count, options=options
            )
            middle = time.perf_counter()
            write_rollouts(Path(folder), 1, rows, ["choice_accuracy"])
            taken["rewards"].append((middle - start) / count)
            taken["writing"].append((time.perf_counter() - middle) / count)
    return {name: float(f"{statistics.median(values):.2g}") for name, values in taken.items()}


# --- tables and figure --------------------------------------------------------------------------------------------

WAYS: dict[str, Step] = {
    "TRL GRPO": Step(shared=False, distills=False),
    "KEPO, prompts per rollout": Step(shared=False),
    "KEPO": Step(),
    "KEPO, a tenth explored": Step(failed=0.1),
    "the same, hints at hand": Step(failed=0.1, hint=0),
}
GPUS = (1, 8, 64)


def terms_of(step: Step, gpus: int, per_row: Mapping[str, float]) -> dict[str, float]:
    """`step_seconds` with the paper's models on the assumed machine."""
    student, teacher = (Sizes.of(load_architecture(name)) for name in (STUDENT, TEACHER))
    return step_seconds(student, teacher, step, gpus, Machine(), per_row)


def table(step: Step, gpus: Sequence[int], per_row: Mapping[str, float]) -> str:
    """Seconds by term and arm, as Markdown."""
    columns = [
        (f"{name}, {count}", terms_of(_same_questions(step, way), count, per_row))
        for count in gpus
        for name, way in WAYS.items()
    ]
    lines = ["| seconds | " + " | ".join(name for name, _ in columns) + " |", "| --- " * (len(columns) + 1) + "|"]
    for term in columns[0][1]:
        lines.append(f"| {term} | " + " | ".join(_digits(terms[term]) for _, terms in columns) + " |")
    sums = [sum(terms.values()) for _, terms in columns]
    lines.append("| all | " + " | ".join(_digits(total) for total in sums) + " |")
    return "\n".join(lines)


def _same_questions(step: Step, way: Step) -> Step:
    return replace(way, prompts=step.prompts, group=step.group)


def _digits(value: float) -> str:
    return "0" if value == 0 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def waiting(gpus: Sequence[int], prompts: Sequence[int], active: float = 0.6) -> dict[int, list[float]]:
    """By prompts of a step: what is left, on n GPUs, of the work when idle groups are left out, as a share of all."""
    found: dict[int, list[float]] = {}
    for count in prompts:
        placed = [placement(Step(prompts=count), n) for n in gpus]
        found[count] = [expected_most(units, lucks, active) / units for units, _, lucks in placed]
    return found


def draw(folder: Path, per_row: Mapping[str, float]) -> Path:
    """Seconds of a step by term on 8 and 64 GPUs, 64 and 512 questions a step."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "kepo", "svg.fonttype": "none", "font.size": 8}
    from matplotlib import pyplot as plt

    bars = [(n, prompts, name) for n, prompts in ((8, 64), (64, 512)) for name in WAYS]
    found = [terms_of(_same_questions(Step(prompts=prompts), WAYS[name]), n, per_row) for n, prompts, name in bars]
    labels = [f"{name}, {n} GPUs" for n, _, name in bars]
    figure, panels = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
    for panel, left_out, label in zip(
        panels, ((), ("rollouts", "exploration")), ("all", "without rollouts and exploration"), strict=True
    ):
        left = [0.0] * len(bars)
        for color, term in enumerate(found[0]):
            if term not in left_out:
                widths = [terms[term] for terms in found]
                panel.barh(labels, widths, left=left, label=term, color=f"C{color}")
                left = [a + b for a, b in zip(left, widths, strict=True)]
        panel.set_xlabel(f"seconds of a step, {label}")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize=6, loc="upper center", ncols=len(found[0]))
    figure.subplots_adjust(top=0.9)
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "scaling-gpus.svg"
    figure.savefig(out, bbox_inches="tight", metadata={"Date": None})
    return out


def main(given: Sequence[str] | None = None) -> None:
    """See the top of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="rewards and writing, into benchmarks/scaling.json")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="write the figure there")
    args = parser.parse_args(given)
    measured = load()
    if args.measure:
        measured["seconds per rollout"] = measure_rows()
        save(measured)
    per_row = measured["seconds per rollout"]
    if args.figures:
        draw(args.figures, per_row)
        return
    for gpus, prompts in ((8, 64), (64, 512)):
        sys.stdout.write(f"{prompts} questions a step, by GPUs\n\n{table(Step(prompts=prompts), (gpus,), per_row)}\n\n")
    for prompts, shares in waiting((8, 64), (16, 64, 512)).items():
        sys.stdout.write(f"{prompts} questions: busiest of 8 and 64 GPUs computes {shares} of its rows\n")


if __name__ == "__main__":
    main()
