"""What would make a run fit: settings changed one after the other, the memory planned again each time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from kepo.planning.launch import Launch
from kepo.planning.memory import MemoryPlan, plan_memory
from kepo.planning.settings import Adapter, PlanSettings, TeacherSettings

_RANK = 32


class Advice(NamedTuple):
    """A change of settings, in the words of a recipe or of the command line, and the memory with it."""

    change: str
    plan: MemoryPlan


def single_changes(settings: PlanSettings) -> list[Advice]:
    """Every single change that makes the run fit, smallest memory last."""
    advice = [Advice(words, plan_memory(changed)) for words, changed in _changes(settings)]
    return sorted((a for a in advice if a.plan.fits), key=lambda a: -a.plan.peak)


def combined_changes(settings: PlanSettings) -> list[Advice]:
    """Changes that make the run fit together: always the one that saves most next; empty if nothing does.

    Each plan is that of its change and of those before it.
    """
    steps: list[Advice] = []
    plan = plan_memory(settings)
    while not plan.fits:
        options = [(words, changed, plan_memory(changed)) for words, changed in _changes(settings)]
        words, settings, best = min(options, key=lambda option: option[2].peak, default=("", settings, plan))
        if best.peak >= plan.peak:
            return []
        plan = best
        steps.append(Advice(words, plan))
    return steps


def _changes(s: PlanSettings) -> Iterator[tuple[str, PlanSettings]]:
    """Every single change that the settings leave, in words and done."""
    if not s.checkpointing:
        yield "gradient_checkpointing: true", replace(s, checkpointing=True)
    if s.micro_batch > 1 and s.micro_batch % 2 == 0:
        half, twice = s.micro_batch // 2, s.accumulation * 2
        words = f"per_device_train_batch_size: {half} with gradient_accumulation_steps: {twice}"
        yield words, replace(s, micro_batch=half, accumulation=twice)
    if s.teacher is not None and not s.teacher.own_device:
        for words, changed in _teacher_changes(s.teacher, s.launch.gpus):
            yield words, replace(s, teacher=changed)
    if s.adapter is None:
        adapter = Adapter(_RANK * s.student.linear_widths, tower=s.student.tower is not None)
        words = f"use_peft: true, lora_r: {_RANK}, lora_target_modules: [all-linear], dtype: bfloat16"
        yield words, replace(s, adapter=adapter, weight_bytes=2, reference=False)
    if s.vllm and not s.vllm_sleeps:
        yield "vllm_enable_sleep_mode: true", replace(s, vllm_sleeps=True)
    if s.vllm is not None and s.vllm > 0.2:
        yield "vllm_gpu_memory_utilization: 0.2", replace(s, vllm=0.2)
    if s.vllm is None and s.launch.strategy == "zero3" and s.gather:
        yield "ds3_gather_for_generation: false (slower rollouts)", replace(s, gather=False)
    for gpus in (4, 8):
        if gpus > s.launch.gpus or (gpus == s.launch.gpus and s.launch.parameter_shards == 1):
            yield f"--accelerate-config zero3-{gpus}gpu", replace(s, launch=Launch("zero3", gpus))


def _teacher_changes(teacher: TeacherSettings, gpus: int) -> Iterator[tuple[str, TeacherSettings]]:
    if teacher.bits is None:
        yield "teacher_load_in_4bit: true", replace(teacher, bits=4)
    if teacher.batch > 1:
        half = teacher.batch // 2
        yield f"teacher_batch_size: {half}", replace(teacher, batch=half)
    if gpus == 1:
        words = "teacher_device: a second GPU, as cuda:1 (its own memory is not planned here)"
        yield words, replace(teacher, own_device=True)
