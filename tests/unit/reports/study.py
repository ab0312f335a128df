"""A study on disk as training and evaluation leave it, made up: no model has anything to do with it."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from kepo.evaluation.records import to_table
from tests.rollout_runs import SCHEMA

MODALITIES = ("CT", "Dermoscopy", "Fundus", "MRI", "Microscopy", "OCT", "Ultrasound", "X-Ray")
TASKS = ("Count", "Disease Diagnosis", "Modality Recognition")
OPTIONS = ("carcinoma", "cyst", "naevus", "drusen")

# Each of these would do harm, or break the layout, where it is taken for anything but text.
HOSTILE = (
    "<script>window.pwned = 1; alert(1)</script>",
    "</script><script>window.pwned = 2</script>",
    "<img src=x onerror=\"window.pwned = 3\"> <svg onload='window.pwned = 4'>",
    "{{7*7}} {% raw %} ${window.pwned = 5}",
    "unbroken" * 200,
    "nul \x00 bell \x07 escape \x1b[31mred\x1b[0m \x1b]0;title\x07",
    "right to left \u202egnp.exe\u202c and \u2066isolates\u2069",
    "emoji 👩‍⚕️🫀 and <!-- comment --> and ]]> and \u2028 line",
    "| table | `code` **bold** [link](javascript:window.pwned=6) &lt;b&gt; $x^2$ \\frac",
    "url(https://example.com/x.png) https://example.com/ //example.com",
)


@dataclass(frozen=True)
class Skill:
    """How an arm does: share right in and out of domain, at the start and at the end of training."""

    first: float
    inside: float
    outside: float
    label: str
    explores: bool = False
    gate: float = 0.0


ARMS = {
    "zero-shot": Skill(0.3, 0.32, 0.31, "Base model"),
    "sft": Skill(0.3, 0.7, 0.45, "SFT"),
    "grpo": Skill(0.3, 0.8, 0.55, "GRPO"),
    "grpo-gated": Skill(0.3, 0.82, 0.6, "GRPO + gated OPD", gate=0.6),
    "kepo": Skill(0.3, 0.88, 0.7, "KEPO", explores=True, gate=0.7),
}


def write_study(
    folder: Path,
    arms: Mapping[str, Skill] = ARMS,
    *,
    bases: int = 2,
    seeds: int = 2,
    steps: int = 40,
    rollouts: int = 8,
    questions: int = 96,
    hostile: bool = False,
) -> Path:
    """The study's folder: `study.json`, `data/` with images, and `runs/`, one for each arm, base student and seed."""
    write_training_data(folder, hostile=hostile)
    described = {
        name: {"label": HOSTILE[0] if hostile and name == "sft" else skill.label, "order": place}
        for place, (name, skill) in enumerate(arms.items())
    }
    title = {"title": "A made-up study", "arms": described, "main_arm": "kepo", "question": "Does it generalize?"}
    (folder / "study.json").write_text(json.dumps(title))
    for name, skill in arms.items():
        for base in range(1, bases + 1):
            for seed in range(1, seeds + 1):
                run = folder / "runs" / f"{name}--student-{base}--seed-{seed}"
                trained = name != "zero-shot"
                write_run(run, folder, name, f"student-{base}/seed-{seed}", seed, trained=trained)
                draw = np.random.default_rng([base, seed, len(name), ord(name[-1])])
                if trained:
                    write_metrics(run, skill, steps, draw)
                    write_rollout_log(run, skill, steps, rollouts, draw, hostile=hostile)
                write_evaluation(run, skill, questions, draw, hostile=hostile)
    return folder


def write_training_data(folder: Path, *, count: int = 40, hostile: bool = False) -> None:
    """`data/train.jsonl` with facts, and an image for all but the last question."""
    (folder / "data" / "images").mkdir(parents=True)
    rows = []
    for index in range(count):
        if index < count - 1:
            pixels = np.random.default_rng(index).integers(0, 255, (48, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "data" / "images" / f"{index}.png")
        rows.append(
            {
                "id": f"train-{index}",
                "question": f"What does image {index} show? {_hostile(index) if hostile else ''}",
                "options": [f"{option} {_hostile(index + 1) if hostile else ''}".strip() for option in OPTIONS],
                "answer": "A",
                "image": f"images/{index}.png",
                "modality": "MRI",
                "task": TASKS[index % len(TASKS)],
                "metadata": {"facts": {"size": "large", "border": "ragged", "disease": "carcinoma"}},
            }
        )
    (folder / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_run(
    run: Path, study: Path, arm: str, replicate: str, seed: int, *, trained: bool = True, status: str = "finished"
) -> Path:
    """The run folder with its `run.json`."""
    run.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {"run": {"arm": arm, "replicate": replicate}}
    manifest: dict[str, Any] = {"status": status, "seed": seed, "config": config}
    if trained:
        config["training"] = {
            "learning_rate": 2e-4,
            "exploration": "hint" if arm == "kepo" else "none",
            "correctness_reward": "choice_accuracy",
            "num_generations": 4,
            "output_dir": str(run),
        }
        config["data"] = {"data_path": str(study / "data" / "train.jsonl"), "modality": "MRI"}
        manifest |= {
            "started": "2026-01-02T03:04:05+00:00",
            "ended": "2026-01-02T03:12:05+00:00",
            "command": f"kepo train phantom/{arm} --seed {seed}",
            "device": "cpu, float32",
            "versions": {"kepo": "0.1.0", "torch": "2.13.0"},
            "python": "3.12.0",
            "platform": "Linux",
            "git": {"commit": "0123456789abcdef", "clean": seed == 1},
        }
    (run / "run.json").write_text(json.dumps(manifest))
    return run


def write_metrics(run: Path, skill: Skill, steps: int, draw: np.random.Generator) -> None:
    """`metrics.jsonl` with rewards every step and a validation every tenth."""
    records: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        progress = 1 - np.exp(-3 * step / steps)
        right = skill.first + (skill.inside - skill.first) * progress + draw.normal(0, 0.04)
        record = {
            "step": step,
            "loss": 1 / step,
            "grad_norm": 1 + draw.random(),
            "reward": 0.5 + right,
            "step_time": 2.5,
        }
        record |= {"time/rollouts_s": 1.2, "completions/mean_length": 30 + draw.random(), "entropy": 1 - 0.5 * progress}
        if skill.explores:
            record |= {"exploration/all_failed_groups": 0.3 * (1 - progress) + 0.1 * draw.random()}
            record |= {"exploration/rescued_groups": 0.6 + 0.2 * draw.random(), "exploration/injected_share": 0.1}
            record |= {"exploration/attempts_per_rescue": 2.0, "exploration/tokens_per_rescue": 90.0}
            record |= {"exploration/leaked_hints": 0.0, "exploration/correct_before": right, "time/exploration_s": 0.4}
        if skill.gate:
            record |= {"gate/open_share": skill.gate * progress, "teacher/tokens": 400.0, "time/teacher_s": 0.5}
        records.append({name: float(value) if name != "step" else value for name, value in record.items()})
        if step % 10 == 0:
            outside = skill.first + (skill.outside - skill.first) * progress
            records.append({"step": step, "validation/in_domain": right, "validation/out_of_domain": outside})
    records.append({"step": steps, "train_runtime": 120.0})
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def write_rollout_log(
    run: Path, skill: Skill, steps: int, rollouts: int, draw: np.random.Generator, *, hostile: bool = False
) -> None:
    """`rollouts/step-*.parquet`, groups of four."""
    (run / "rollouts").mkdir()
    for step in range(1, steps + 1):
        rows = [_rollout(step, row, skill, draw, hostile=hostile) for row in range(rollouts)]
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), run / "rollouts" / f"step-{step:06d}.parquet")


def _rollout(step: int, row: int, skill: Skill, draw: np.random.Generator, *, hostile: bool) -> dict[str, Any]:
    question = int(draw.integers(40))
    dead = skill.explores and row // 4 % 2 == 1
    injected = dead and row % 4 == 0
    right = injected or (not dead and draw.random() < skill.inside)
    stated = "size large; border ragged; disease carcinoma" if right else "size small; border ragged; disease cyst"
    extra = _hostile(step + row) if hostile else ""
    letter = "A" if right else "B"
    return {
        "step": step,
        "process": 0,
        "row": row,
        "id": f"train-{question}",
        "modality": "MRI",
        "task": TASKS[question % len(TASKS)],
        "prompt": f"user: [image]What does image {question} show?",
        "completion": f"<think>{stated} {extra}</think><answer>{letter}</answer>{extra}",
        "answer": "A",
        "tokens": 30,
        "reward/choice_accuracy": float(right),
        "reward/think_format": 0.5,
        "reward": right + 0.5,
        "advantage": 1.0 if right else -1.0,
        "gate": float(right) if skill.gate else 0.0,
        "group_all_failed": dead,
        "injected": injected,
        "attempt": 2 if injected else None,
        "attempts": 3 if dead else 0,
        "hint": f"Look at the border. {extra}" if injected else None,
        "hint_level": 1 if injected else None,
        "hints_tried": [f"Look at the border. {extra}"] if dead else [],
        "leaked_hints": 0,
        "exploration_failure": None,
    }


def write_evaluation(
    run: Path, skill: Skill, count: int, draw: np.random.Generator, *, prefix: str = "test", hostile: bool = False
) -> None:
    """`evaluation/test.parquet`: every modality in turn, two orders of options, harder questions wrong more often."""
    records = []
    for index in range(count):
        modality = MODALITIES[index % len(MODALITIES)]
        share = skill.inside if modality == "MRI" else skill.outside
        for permutation in range(2):
            right = bool(draw.random() < share - 0.1 * (index // 8 % 3 - 1))
            extra = _hostile(index) if hostile else ""
            record = answer_record(f"{prefix}-{index}", right, modality, output=f"<think>{extra}</think>")
            stated = 3 if index % 3 else 0
            record |= {"task": TASKS[index % len(TASKS)], "level": 1 + index // 8 % 3, "permutation": permutation}
            record |= {"statements": stated, "true_statements": stated if right else stated // 2}
            records.append({**record, "formatted": index % 10 > 0})
    write_records(run, records)


def write_answers(run: Path, right: Sequence[int], modality: str = "CT", in_domain: Sequence[str] = ("MRI",)) -> None:
    """`evaluation/test.parquet` with one question per flag."""
    records = [answer_record(f"test-{place}", bool(flag), modality) for place, flag in enumerate(right)]
    write_records(run, records, in_domain)


def write_records(run: Path, records: Sequence[dict[str, Any]], in_domain: Sequence[str] = ("MRI",)) -> None:
    """The records and the JSON file beside them."""
    (run / "evaluation").mkdir(exist_ok=True)
    pq.write_table(to_table(records), run / "evaluation" / "test.parquet")
    description = {"name": "test", "model": "m", "in_domain": list(in_domain), "generation": {"temperature": 0.0}}
    (run / "evaluation" / "test.json").write_text(json.dumps(description))


def answer_record(id_: str, right: bool, modality: str, output: str = "") -> dict[str, Any]:
    """One row of an evaluation."""
    return {
        "id": id_,
        "modality": modality,
        "task": "Count",
        "level": None,
        "permutation": 0,
        "sample": 0,
        "prompt": "user: ?",
        "completion": output,
        "answer": "A",
        "options": list(OPTIONS),
        "predicted": "A" if right else "B",
        "correct": right,
        "tokens": 30,
        "finished": True,
        "formatted": True,
        "consistent": right,
        "statements": 0,
        "true_statements": 0,
        "teacher_logp": -0.5,
        "images": [],
        "metadata": "{}",
    }


def _hostile(place: int) -> str:
    return random.Random(place).choice(HOSTILE)
