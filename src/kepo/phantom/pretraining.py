"""Supervised training of the base models, from random weights to a checkpoint folder, on transformers' Trainer.

Shapes: B lessons, T tokens, V vocabulary, S pixels a side.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer, TrainingArguments

from kepo.data.omnimedvqa import MODALITIES
from kepo.models.tokenizer import IMAGE
from kepo.phantom.lessons import Lesson, Role, draw_scene, lesson
from kepo.phantom.render import render
from kepo.phantom.scene import ATTRIBUTES, TEXTURES

if TYPE_CHECKING:
    from kepo.phantom.scene import Scene

_LETTER_WEIGHT = 8.0
_IGNORED = -100
# The roles' former names, by which their random streams are seeded: the shipped models were drawn from these.
_STREAMS = {"answer-letters": "letters", "vision": "eyes"}
_VISIBLE = {"texture": tuple(TEXTURES.values()), **ATTRIBUTES}
"""Name -> its values: what can be seen in an image."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of supervised training.

    The learning rate rises in a short warm-up, then falls along a cosine to a twentieth. `repeated` are (role, share of
    the lessons) of earlier phases: what is not repeated is forgotten.
    """

    role: Role
    steps: int  # optimizer steps
    batch_size: int = 64
    learning_rate: float = 1e-3  # the highest
    images: bool = True  # without, rules, writing and answer letters are learned, faster
    repeated: tuple[tuple[Role, float], ...] = ()

    def role_of(self, chance: float) -> Role:
        """Whose lesson is given, `chance` being an even random number in [0, 1)."""
        for role, share in self.repeated:
            if chance < share:
                return role
            chance -= share
        return self.role


def scene_pool(number: int, seed: int) -> list[Scene]:
    """Scenes to learn from, the modalities in turn."""
    draw = random.Random(f"pool/{seed}")
    return [draw_scene(draw, MODALITIES[index % len(MODALITIES)]) for index in range(number)]


def render_pool(scenes: list[Scene], size: int) -> np.ndarray:
    """(N, S, S, 3) uint8 images of the scenes."""
    return np.stack([np.asarray(render(scene, size)) for scene in scenes])


def pretrain(folder: Path, phase: Phase, scenes: list[Scene], pixels: np.ndarray, seed: int) -> None:
    """Train the model in `folder` for one phase and write it back.

    Args:
        folder: A model folder as `kepo.models.build_llava` writes it.
        phase: Which role, and how long.
        scenes: Pool to draw from, and `pixels` their images, (N, S, S, 3) uint8; not used in a phase without images.
        seed: Decides the lessons and their order.
    """
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    lessons = Lessons(phase, scenes, pixels, processor, seed)
    letters = processor.tokenizer.convert_tokens_to_ids(["A", "B", "C", "D"])
    Trainer(
        model=model,
        args=_arguments(folder, phase, seed),
        train_dataset=lessons,
        data_collator=lessons.collate,
        compute_loss_func=WeightedLoss(letters),
    ).train()
    model.half().save_pretrained(folder)  # as the shipped models are


def warm_up_vision(folder: Path, phase: Phase, scenes: list[Scene], pixels: np.ndarray, seed: int) -> None:
    """Train image tower and projector of the model in `folder` alone, and write it back; see `AttributeReaders`.

    Arguments as of `pretrain`; the phase's role and what it repeats have no effect.
    """
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        readers = AttributeReaders(model)
    images = LabelledImages(phase, scenes, pixels, seed)
    arguments = _arguments(folder, phase, seed)
    Trainer(model=readers, args=arguments, train_dataset=images, data_collator=images.collate).train()
    model.half().save_pretrained(folder)  # as the shipped models are


def _arguments(folder: Path, phase: Phase, seed: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=phase.batch_size,
        max_steps=phase.steps,
        learning_rate=phase.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.05},
        warmup_steps=min(50, phase.steps // 10),
        weight_decay=0.01,
        max_grad_norm=1.0,
        adam_beta2=0.98,
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        dataloader_num_workers=0,
        use_cpu=not torch.accelerator.is_available(),
        seed=seed,
        logging_steps=100,
        disable_tqdm=True,
        log_level="error",
    )


class AttributeReaders(nn.Module):
    """Image tower and projector of a model, with a linear reader for every attribute on the mean of the image's tokens.

    What is read off by a line before the decoder has learned anything, the decoder soon learns to say, and a step
    costs a tenth of one through it. The readers are thrown away afterwards.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower, self.projector = model.model.vision_tower, model.model.multi_modal_projector
        width = model.config.text_config.hidden_size
        self.readers = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in _VISIBLE.items()})

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """The summed cross-entropy of all attributes; `labels` are (B, attributes) places of the true values."""
        seen = self.projector(self.tower(pixel_values).last_hidden_state).mean(dim=1)  # (B, width)
        readings = [reader(seen) for reader in self.readers.values()]
        losses = [nn.functional.cross_entropy(reading, labels[:, place]) for place, reading in enumerate(readings)]
        return {"loss": torch.stack(losses).sum()}


class _Pool(Dataset):
    """Draws from the scenes as often as the phase needs."""

    def __init__(self, phase: Phase, scenes: list[Scene], pixels: np.ndarray, seed: int) -> None:
        self._phase, self._scenes, self._pixels, self._seed = phase, scenes, pixels, seed

    def __len__(self) -> int:
        return self._phase.steps * self._phase.batch_size


class LabelledImages(_Pool):
    """Images with the places of their attributes' values, drawn one by one."""

    def __getitem__(self, index: int) -> int:
        return random.Random(f"look/{self._seed}/{index}").randrange(len(self._scenes))

    def collate(self, numbers: list[int]) -> dict[str, torch.Tensor]:
        """(B, 3, S, S) pixels in [-1, 1] and (B, attributes) labels."""
        scenes = [self._scenes[number] for number in numbers]
        places = [[values.index(getattr(scene, name)) for name, values in _VISIBLE.items()] for scene in scenes]
        return {"pixel_values": _normalized(self._pixels[numbers]), "labels": torch.tensor(places)}


def _normalized(pixels: np.ndarray) -> torch.Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) in [-1, 1], as the processor does it."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0


class Lessons(_Pool):
    """Lessons drawn one by one; number i is always the same."""

    def __init__(self, phase: Phase, scenes: list[Scene], pixels: np.ndarray, processor: Any, seed: int) -> None:
        super().__init__(phase, scenes, pixels, seed)
        self._tokenizer = processor.tokenizer
        self._image_tokens = IMAGE * (processor.image_processor.size["height"] // processor.patch_size) ** 2

    def __getitem__(self, index: int) -> dict[str, Any]:
        role = _STREAMS.get(self._phase.role, self._phase.role)
        draw = random.Random(f"lesson/{self._seed}/{role}/{self._phase.images}/{index}")
        number = draw.randrange(len(self._scenes))
        role = self._phase.role_of(draw.random())
        return {"number": number, **self.encode(lesson(role, self._scenes[number], draw))}

    def encode(self, taught: Lesson) -> dict[str, list[int]]:
        """Token ids, and labels that leave out all but the target."""
        prompt = taught.prompt
        if self._phase.images:
            parts = [{"type": "image"}, {"type": "text", "text": prompt[-1]["content"]}]
            prompt = [{"role": "user", "content": parts}]
        before = self._tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        before = before.replace(IMAGE, self._image_tokens) + taught.given
        known = self._tokenizer(before, add_special_tokens=False)["input_ids"]
        target = self._tokenizer(taught.target + self._tokenizer.eos_token, add_special_tokens=False)["input_ids"]
        return {"input_ids": known + target, "labels": [_IGNORED] * len(known) + target}

    def collate(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """(B, T) ids, mask and labels, padded on the right, and (B, 3, S, S) pixels in [-1, 1]."""
        length = max(len(row["input_ids"]) for row in batch)
        ids = torch.full((len(batch), length), self._tokenizer.pad_token_id)
        labels = torch.full((len(batch), length), _IGNORED)
        for place, row in enumerate(batch):
            ids[place, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
            labels[place, : len(row["labels"])] = torch.tensor(row["labels"])
        mask = ids != self._tokenizer.pad_token_id
        encoded = {"input_ids": ids, "attention_mask": mask.long(), "labels": labels}
        if self._phase.images:
            encoded["pixel_values"] = _normalized(self._pixels[[row["number"] for row in batch]])
        return encoded


class WeightedLoss:
    """Cross-entropy per target token in which the answer's letter, one token of ten to thirty, counts more."""

    def __init__(self, letters: list[int]) -> None:
        self._letters = torch.tensor(letters)

    def __call__(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        logits, targets = outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:]  # (B * (T-1), V), (B, T-1)
        weights = torch.where(torch.isin(targets, self._letters.to(targets.device)), _LETTER_WEIGHT, 1.0)
        weights = weights * (targets != _IGNORED)
        losses = nn.functional.cross_entropy(logits, targets.flatten(), reduction="none", ignore_index=_IGNORED)
        return (losses * weights.flatten()).sum() / weights.sum()
