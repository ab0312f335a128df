"""Tokens, floating-point operations and bytes of a training step by phase, counted on fixed rollouts.

    python -m benchmarks.counts            # the table, and what differs from benchmarks/counts.json
    python -m benchmarks.counts --write    # write that file anew

Nothing is timed, so the numbers are the same on every machine with the same versions of the libraries. A test compares
them with the file: a phase that became dearer, or cheaper, by more than 1 % fails. Models are tiny, on the CPU; what
is sampled is given token by token, but sampled by the real `generate`. docs/performance.md explains the columns.

Q questions, G rollouts of each, B = Q x G rows, L positions.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path
from typing import Any
from unittest.mock import patch

import accelerate
import torch
import transformers
import trl
import trl.trainer.utils
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    LogitsProcessor,
    LogitsProcessorList,
    PrinterCallback,
    TrainerCallback,
)

from benchmarks.meter import Cost, CostMeter
from kepo import KEPOConfig, KEPOTrainer, LocalTeacher
from kepo.models.llava import LlavaSize, build_llava
from kepo.models.tokenizer import train_tokenizer
from tests.tiny_models import build_text_model, tiny_image

FILE = Path(__file__).with_suffix(".json")
TOLERANCE = 0.01  # relative; what counts are made of is exact, so this only lets trifles pass

QUESTIONS, GENERATIONS, MICRO_BATCH = 4, 8, 8
LONGEST = 60  # tokens of a completion
# How many rollouts of each question are correct: a mixed group, one without an advantage, an all-failed one, a mixed.
CORRECT = (3, GENERATIONS, 0, 2)

ARMS: dict[str, dict[str, Any]] = {
    "grpo": {"exploration": "none", "distillation_weight": 0.0},
    # A reference model, and a second optimizer step on the same rollouts, for which TRL keeps old log-probabilities.
    "grpo, KL, 2 iterations": {
        "exploration": "none", "distillation_weight": 0.0, "beta": 0.04, "num_iterations": 2,
    },
    "opd": {"exploration": "none", "gate": "always", "policy_weight": 0.0},
    "kepo": {},
}  # fmt: skip

LEFT_OUT = {("llava", "grpo, KL, 2 iterations")}  # it would show nothing that the text model does not

TEACHER_PHASES = ("hints", "teacher")  # the student does the others
PHASES = ("rollouts", "hints", "hinted samples", "teacher", "old and reference", "forward", "backward")
_ELSEWHERE = "elsewhere"  # what is in no phase: the optimizer, logging; no operation that is counted

# TRL's head computes log-probabilities in tiles of a fixed width, made for vocabularies of 100,000: with a tiny one the
# empty rest of a tile would be larger than everything else together.
_TILE = 1024

# What the cache of a shared prompt is filled and checked with, in the place of the loop of `generate`.
_SAMPLE_NOTHING = ("_cache", "_logps")

_MAGIC = 65  # the first token of a correct completion, an ordinary one
_SCENE = (
    "What does the image show? A) MRI B) CT. The bright band lies {where} and its edge is {edge}. A darker line runs "
    "beside it. Give the letter of the right option."
)
_WHERE = ("near the top", "left of the middle of the field of view", "at the lower right", "in the centre")
_EDGE = ("sharp", "blurred", "blurred on one side and sharp on the other", "broken in two places")


@dataclass
class PhaseCost(Cost):
    """What a phase of a step costs, and what it would have to.

    Attributes:
        needed: Positions that have to go through the decoder: a prompt once per group, and the completion tokens of
            the rows that matter: in forward those with a gradient, for the teacher those with an open gate.
    """

    needed: int = 0


Counts = dict[str, dict[str, dict[str, float]]]
"""Of a model and arm ("llava, kepo"), a phase: a number by its name, as in the file."""


# --- fixed rollouts -----------------------------------------------------------------------------------------------


def correct(completions: Any, completion_ids: list[list[int]], **_: Any) -> list[float]:
    """The reward: whether a completion begins with the token that makes it correct."""
    return [float(ids[0] == _MAGIC) for ids in completion_ids]


def questions(images: bool) -> Dataset:
    """Q questions of unequal length; with images, one each."""
    texts = [_SCENE.format(where=where, edge=edge) for where, edge in zip(_WHERE, _EDGE, strict=True)]
    rows: dict[str, list[Any]] = {
        "id": [f"q{n}" for n in range(QUESTIONS)],
        "prompt": [[{"role": "user", "content": text}] for text in texts],
        "answer": ["A"] * QUESTIONS,
        "options": [["MRI", "CT"]] * QUESTIONS,
    }
    if images:
        rows["images"] = [[tiny_image(n)] for n in range(QUESTIONS)]
    return Dataset.from_dict(rows)


def completion(number: int, is_correct: bool, end: int, longest: int = LONGEST) -> list[int]:
    """A completion of a third of `longest` to `longest` tokens, its end token included, other ones for every number."""
    length = longest - 7 * number % (2 * longest // 3 + 1)
    first = _MAGIC if is_correct else _MAGIC + 1
    return [first, *(100 + (13 * number + 5 * place) % 150 for place in range(length - 2)), end]


def rollouts(end: int) -> list[list[int]]:
    """The B completions of a generation batch, group after group; correct ones are spread over a group."""
    flags = [(5 * row) % GENERATIONS < right for right in CORRECT for row in range(GENERATIONS)]
    return [completion(number, flag, end) for number, flag in enumerate(flags)]


def shortened(script: Sequence[int]) -> list[int]:
    """The script in the batch that is not counted: as it begins and ends, to be sampled sooner."""
    return [*script[:3], script[-1]]


class Scripted(LogitsProcessor):
    """Leaves one token to sample: that of the row's script, and the end token after it."""

    def __init__(self, scripts: Sequence[Sequence[int]], prompt_length: int, end: int) -> None:
        self._scripts, self._prompt_length, self._end = scripts, prompt_length, end

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        place = input_ids.shape[1] - self._prompt_length
        scripts: Sequence[Sequence[int]] = self._scripts
        if len(input_ids) < len(scripts):  # rows that have ended may have left; the first two tokens tell the others
            begun = {tuple(script[:place]): script for script in scripts}
            scripts = [begun.get(tuple(ids), ()) for ids in input_ids[:, self._prompt_length :].tolist()]
        tokens = [script[place] if place < len(script) else self._end for script in scripts]
        forced = torch.full_like(scores, float("-inf"))
        forced[torch.arange(len(tokens)), tokens] = 0.0
        return forced


class ScriptedSampling:
    """Gives `generate` of student and teacher the tokens to sample, and notes how many positions that needs.

    Attributes:
        rollouts: Scripts of the B rollouts of the current generation batch.
        needed: By phase: the tokens of each call's distinct prompts, and those that were sampled.
    """

    def __init__(self, meter: CostMeter) -> None:
        self._meter = meter
        self.rollouts: list[list[int]] = []
        self.needed: dict[str, int] = {}
        self._scripts: dict[str, Iterator[list[int]]] = {}

    def restart(self, tokenizer: Any, short: bool) -> None:
        """Begin a generation batch, with `short` one that is not counted."""
        end = tokenizer.eos_token_id
        hint = tokenizer("<hint>Reason about its edge.</hint>", add_special_tokens=False)["input_ids"]
        self.rollouts = [shortened(script) if short else script for script in rollouts(end)]
        self.needed = {}
        self._scripts = {
            "rollouts": cycle(self.rollouts),
            "hints": cycle([[*hint, end]]),
            # Every second hinted sample is correct, however many an attempt takes.
            "hinted samples": (completion(n, n % 2 == 0, end, longest=LONGEST // 2) for n in count(100)),
        }
        if short:
            self._scripts = {phase: map(shortened, scripts) for phase, scripts in self._scripts.items()}

    def attach(self, model: Any) -> None:
        """Let `model` sample what it is given."""
        generate = model.generate

        def scripted(*args: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any) -> Any:
            if getattr(kwargs.get("custom_generate"), "__name__", "") in _SAMPLE_NOTHING:
                return generate(*args, input_ids=input_ids, attention_mask=attention_mask, **kwargs)
            phase = self._meter.phase
            copies = getattr(kwargs.get("generation_config"), "num_return_sequences", None) or 1
            scripts = [next(self._scripts[phase]) for _ in range(input_ids.shape[0] * copies)]
            prompts = {tuple(ids[mask.bool()].tolist()) for ids, mask in zip(input_ids, attention_mask, strict=True)}
            sampled = sum(len(script) - 1 for script in scripts)  # nothing follows the last one
            self.needed[phase] = self.needed.get(phase, 0) + sum(map(len, prompts)) + sampled
            processor = Scripted(scripts, input_ids.shape[1], model.generation_config.eos_token_id)
            kwargs["logits_processor"] = LogitsProcessorList([*(kwargs.get("logits_processor") or ()), processor])
            return generate(*args, input_ids=input_ids, attention_mask=attention_mask, **kwargs)

        model.generate = scripted


# --- counting -----------------------------------------------------------------------------------------------------


class SecondBatch(TrainerCallback):
    """Counts the second generation batch: in the first one, a trainer may check itself.

    `restart` is called when a batch begins, with whether it is the first. A batch has `steps` optimizer steps.
    """

    def __init__(self, meter: CostMeter, steps: int, restart: Callable[[bool], None]) -> None:
        self._meter, self._steps, self._restart = meter, steps, restart

    def on_step_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step % self._steps == 0:
            self._restart(state.global_step == 0)
        if state.global_step == self._steps:
            self._meter.start(_ELSEWHERE)

    def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == 2 * self._steps:
            self._meter.stop()


def needed_tokens(batch: Mapping[str, Any], beta: float) -> dict[str, int]:
    """Positions that phases after the rollouts need for TRL's batch of B rows with our keys."""
    prompts = batch["prompt_mask"].sum(1).view(QUESTIONS, GENERATIONS)[:, 0]  # (Q,)
    completions = batch["completion_mask"].sum(1)  # (B,)
    gated = batch["gate_weights"].sum(1) > 0 if "gate_weights" in batch else torch.zeros_like(completions).bool()
    learned = (batch["advantages"] != 0) | gated | (beta != 0)

    def needed(rows: torch.Tensor) -> int:
        groups = rows.view(QUESTIONS, GENERATIONS).any(1)
        return int(prompts[groups].sum() + completions[rows].sum())

    return {"teacher": needed(gated), "forward": needed(learned), "old and reference": needed(learned)}


def count_arm(student: Path, teacher_folder: Path, fields: Mapping[str, Any], images: bool) -> dict[str, PhaseCost]:
    """The costs of one generation batch by phase."""
    steps = fields.get("num_iterations", 1)
    meter = CostMeter()
    sampling = ScriptedSampling(meter)
    with tempfile.TemporaryDirectory() as folder:
        args = KEPOConfig(
            output_dir=folder, per_device_train_batch_size=MICRO_BATCH, num_generations=GENERATIONS,
            gradient_accumulation_steps=QUESTIONS * GENERATIONS // MICRO_BATCH, max_completion_length=LONGEST,
            max_steps=2 * steps, logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True, seed=0,
            rollout_log=False, gradient_checkpointing=False, shuffle_dataset=False, use_cpu=True, bf16=False, **fields,
        )  # fmt: skip
        uses_teacher = args.uses_teacher_scores or args.uses_hints
        teacher = LocalTeacher(teacher_folder, device="cpu") if uses_teacher else None
        auto = AutoModelForImageTextToText if images else AutoModelForCausalLM
        model = auto.from_pretrained(student, dtype=torch.float32)
        sampling.attach(model)  # before the trainer, which may do more than sample in `generate`
        trainer = KEPOTrainer(model, [correct], args, questions(images), teacher=teacher)
        trainer.remove_callback(PrinterCallback)  # only the table is wanted
        trainer.add_callback(SecondBatch(meter, steps, lambda first: sampling.restart(trainer.tokenizer, short=first)))
        batches = _instrument(meter, sampling, trainer, teacher)
        with patch.object(trl.trainer.utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", _TILE):
            trainer.train()
    needed = {**sampling.needed, **needed_tokens(batches[-1], args.beta)}
    needed["forward"] *= steps
    needed["old and reference"] *= 1 + (trainer.ref_model is not None)
    escaped = meter.costs.pop(_ELSEWHERE)
    if escaped.tokens or escaped.flops:
        raise RuntimeError(f"{escaped} was done in no phase; wrap the method that does it in _instrument")
    return {
        phase: PhaseCost(**_fields_of(meter.costs[phase]), needed=needed.get(phase, 0))
        for phase in PHASES
        if phase in meter.costs and meter.costs[phase].flops
    }


def _fields_of(cost: Cost) -> dict[str, int]:
    return {name: getattr(cost, name) for name in ("tokens", "flops", "attention_flops", "peak_bytes")}


def _instrument(
    meter: CostMeter, sampling: ScriptedSampling, trainer: Any, teacher: LocalTeacher | None
) -> list[Mapping[str, Any]]:
    """Let `meter` see the phases of a step, and `generate` the scripts; returns where batches will be put."""
    batches: list[Mapping[str, Any]] = []
    make = trainer.make_generation_batch

    def noted(rows: Any) -> Any:
        batch = make(rows)
        _check_rollouts(batch, sampling.rollouts)
        batches.append(batch)
        torch.manual_seed(0)  # which rows make a micro-batch does not depend on what was drawn before
        return batch

    trainer.make_generation_batch = noted
    # What is left of this call, once rollouts, exploration and teacher have paid.
    meter.wrap(trainer, "make_generation_batch", "old and reference")
    meter.wrap(trainer, "generate_rollouts", "rollouts")
    meter.wrap(trainer, "sample_completions", "hinted samples")
    meter.wrap(trainer, "compute_batch_loss", "forward")
    meter.wrap(trainer.accelerator, "backward", "backward")
    models = [trainer.model, trainer.ref_model]
    if teacher is not None:
        meter.wrap(teacher, "score", "teacher")
        meter.wrap(teacher, "write_hints", "hints")
        sampling.attach(teacher.model)
        models.append(teacher.model)
    for model in models:
        if model is not None:
            meter.count_tokens(model)
    return batches


def _check_rollouts(batch: Mapping[str, Any], scripts: Sequence[Sequence[int]]) -> None:
    """The batch has the scripted rollouts, but where exploration has put hinted samples."""
    injected = batch["injected"].tolist() if "injected" in batch else [False] * len(scripts)
    for row, script in enumerate(scripts):
        ids = batch["completion_ids"][row][batch["completion_mask"][row].bool()].tolist()
        if not injected[row] and ids != script:
            raise RuntimeError(
                f"rollout {row} is {ids}, and not {script}: it was not sampled by the model's `generate`"
            )


@contextmanager
def models() -> Iterator[dict[str, tuple[Path, Path, bool]]]:
    """Folders of student and teacher, and whether they see images, by name. Seeded, of one tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        text = [build_text_model(root / f"text-{width}", "qwen3", hidden_size=width) for width in (128, 192)]
        # Not of the package's own prompts: other words there would change the length of these.
        train_tokenizer([_SCENE], vocab_size=320).save_pretrained(root / "tokenizer")
        llava = [
            build_llava(root / f"llava-{width}", [], size=size, tokenizer_from=root / "tokenizer")
            for width in (96, 128)
            for size in (LlavaSize(vision_width=64, vision_layers=2, text_width=width, text_layers=2),)
        ]
        yield {"text": (text[0], text[1], False), "llava": (llava[0], llava[1], True)}


def count_everything() -> Counts:
    """All arms on all models."""
    with models() as folders:
        return {
            f"{model}, {arm}": {
                phase: in_units(cost) for phase, cost in count_arm(student, teacher, fields, images).items()
            }
            for model, (student, teacher, images) in folders.items()
            for arm, fields in ARMS.items()
            if (model, arm) not in LEFT_OUT
        }


def in_units(cost: PhaseCost) -> dict[str, float]:
    """A cost as it stands in the file."""
    return {
        "tokens": cost.tokens,
        "tokens needed": cost.needed,
        "MFLOP": round(cost.flops / 1e6, 1),
        "MFLOP of attention": round(cost.attention_flops / 1e6, 1),
        "peak KiB": round(cost.peak_bytes / 1024, 1),
    }


# --- the file -----------------------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """Of the libraries that decide what is computed, without the local part, which names a build."""
    return {module.__name__: module.__version__.split("+")[0] for module in (torch, transformers, trl, accelerate)}


def as_json(counts: Counts) -> str:
    """The text of the file: a line for each phase, so that a diff shows the phases that changed."""
    parts = [f'"versions": {json.dumps(versions())}']
    for arm, phases in counts.items():
        lines = ",\n".join(f"    {json.dumps(phase)}: {json.dumps(cost)}" for phase, cost in phases.items())
        parts.append(f"{json.dumps(arm)}: {{\n{lines}\n  }}")
    return "{\n  " + ",\n  ".join(parts) + "\n}\n"


def read_file(path: Path = FILE) -> tuple[Counts, dict[str, str]]:
    """The counts of the file, and the versions that they were made with."""
    recorded = json.loads(path.read_text())
    made_with = recorded.pop("versions")
    return recorded, made_with


def differences(found: Counts, recorded: Counts) -> list[str]:
    """What differs by more than the tolerance, one line each; empty where the file tells the truth."""
    lines = []
    for arm in dict.fromkeys((*recorded, *found)):
        now, before = found.get(arm, {}), recorded.get(arm, {})
        for phase in dict.fromkeys((*before, *now)):
            if phase not in now or phase not in before:
                lines.append(f"{arm}, {phase}: {'new' if phase in now else 'in the file, but nothing was counted'}")
                continue
            lines += [
                f"{arm}, {phase}: {value:,} {name}, in the file {old:,} ({_change(value, old)})"
                for name, value in now[phase].items()
                if abs(value - (old := before[phase].get(name, 0))) > TOLERANCE * old
            ]
    return lines


def _change(value: float, old: float) -> str:
    return f"{value / old - 1:+.1%}" if old else "new"


def explain(lines: Sequence[str], made_with: Mapping[str, str]) -> str:
    """What to tell about differences, or versions, that are not those of the file; empty where all is well."""
    parts = []
    here = versions()
    moved = [
        f"{name} {here.get(name)} instead of {of_file}"
        for name, of_file in made_with.items()
        if here.get(name) != of_file
    ]
    if moved:
        parts.append(
            f"{FILE.name} was made with other versions: here is {', '.join(moved)}, which may change what is computed. "
            "Install requirements/constraints.txt, or, if the pin was moved, write the file anew."
        )
    if lines:
        parts.append(f"The cost of a step is not that of {FILE.name} (tolerance {TOLERANCE:.0%}):")
        parts += [f"  {line}" for line in lines]
    if parts:
        parts.append(
            "What became dearer needs a reason; what became cheaper is written down, so that it stays so. To accept: "
            "python -m benchmarks.counts --write"
        )
    return "\n".join(parts)


# --- the command --------------------------------------------------------------------------------------------------


def table(counts: Counts) -> Iterator[str]:
    """Markdown: the costs of every phase, and the sums of student and teacher."""
    names = ("tokens", "tokens needed", "MFLOP", "MFLOP of attention", "peak KiB")
    yield f"| model, arm | phase | {' | '.join(names)} |"
    yield f"| --- | --- |{' ---: |' * len(names)}"
    for arm, phases in counts.items():
        for phase, cost in phases.items():
            yield f"| {arm} | {phase} | {' | '.join(f'{cost[name]:,}' for name in names)} |"
        for who in ("student", "teacher"):
            own = [cost for phase, cost in phases.items() if (phase in TEACHER_PHASES) == (who == "teacher")]
            if own:
                sums = [f"{round(sum(cost[name] for cost in own), 1):,}" for name in names[:-1]]
                peak = max(cost[names[-1]] for cost in own)
                yield f"| {arm} | **{who}** | {' | '.join(sums)} | {peak:,} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {FILE.name} anew")
    write = parser.parse_args().write
    torch.set_num_threads(1)  # more would only wait for each other
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    counts = count_everything()
    sys.stdout.write("\n".join(table(counts)) + "\n")
    if write:
        FILE.write_text(as_json(counts))
        return
    recorded, made_with = read_file()
    if problem := explain(differences(counts, recorded), made_with):
        sys.exit("\n" + problem)


if __name__ == "__main__":
    main()
