"""What the arms of benchmarks/step.py train on: models, questions, and rollouts that are the same for every arm.

Legend: G rollouts of a group, T completion tokens.
"""

from __future__ import annotations

import copy
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from kepo.data.dataset import to_dataset
from kepo.models.llava import LlavaSize, build_llava, tokenizer_texts
from kepo.models.tokenizer import IMAGE, train_tokenizer
from kepo.planning.architecture import published_config
from kepo.types import Question

# Rows of the LLaVAs' embeddings: the output head then has about the share of a decoder's arithmetic that it has in
# Qwen3-VL-2B.
LLAVA_VOCABULARY = 4096
LLAVA_STUDENT = LlavaSize(vision_width=96, vision_layers=2, text_width=256, text_layers=4)
LLAVA_TEACHER = LlavaSize(vision_width=128, vision_layers=3, text_width=384, text_layers=6)


@dataclass(frozen=True, slots=True)
class Group:
    """The rollouts of one prompt."""

    completions: tuple[tuple[int, ...], ...]  # G rows of token ids, the end token included
    correct: tuple[bool, ...]  # G
    prompt: list[int] = field(default_factory=list)  # token ids, once a trainer has asked for its rollouts

    @property
    def has_advantage(self) -> bool:
        """Whether some, and not all, of its rollouts are correct."""
        return 0 < sum(self.correct) < len(self.correct)


class Rollouts:
    """Fixed rollouts: drawn tokens of drawn lengths, and which of them are correct.

    What the tokens say changes no arithmetic, so they need no model; they are rewarded by what they are.

    Args:
        correct: Correct rollouts of each group.
        group_size: G.
        lengths: Shortest and longest completion, in tokens, the end token included.
        tokens: Ids to draw from: no special tokens.
        eos: The end token's id.
        seed: Decides lengths and tokens.
    """

    def __init__(
        self,
        correct: Sequence[int],
        group_size: int,
        lengths: tuple[int, int],
        tokens: Sequence[int],
        eos: int,
        seed: int = 0,
    ) -> None:
        draw = random.Random(seed)
        self.groups: list[Group] = []
        for right in correct:
            rows = [(*draw.choices(tokens, k=draw.randint(*lengths) - 1), eos) for _ in range(group_size)]
            marks = [True] * right + [False] * (group_size - right)
            draw.shuffle(marks)
            self.groups.append(Group(tuple(rows), tuple(marks)))
        self._correct = {
            row: mark for group in self.groups for row, mark in zip(group.completions, group.correct, strict=True)
        }
        self.longest = max(len(row) for group in self.groups for row in group.completions)

    def of(self, prompt: Sequence[int]) -> Group:
        """The group of a prompt; groups are given to prompts in the order in which these come."""
        for group in self.groups:
            if not group.prompt:
                group.prompt.extend(prompt)
            if group.prompt == list(prompt):
                return group
        raise ValueError(f"There are {len(self.groups)} groups, but a further prompt asks for rollouts.")

    def reward(self, completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        """A reward function: 1 for a correct rollout, 0 for any other."""
        return [float(self._correct.get(tuple(ids), False)) for ids in completion_ids]

    @property
    def open_share(self) -> float:
        """Share of the rollouts whose gate is open."""
        return sum(self._correct.values()) / len(self._correct)


class Replay:
    """Puts fixed rollouts in the place of a trainer's own.

    Args:
        trainer: Of TRL or ours.
        rollouts: What it gets.

    Attributes:
        samples: Whether the trainer samples all the same, to the length of the longest rollout, and the result is
            thrown away: the time of that is every arm's own.
    """

    def __init__(self, trainer: Any, rollouts: Rollouts) -> None:
        self.samples = True
        self._sample, self._rollouts = trainer._generate_single_turn, rollouts
        trainer._generate_single_turn = self

    def __call__(self, prompt_ids: Sequence[Sequence[int]], *args: Any, **kwargs: Any) -> tuple[list[list[int]], None]:
        if self.samples:
            self._sample(prompt_ids, *args, **kwargs)
        seen: Counter[tuple[int, ...]] = Counter()
        completions = []
        for prompt in prompt_ids:
            rows = self._rollouts.of(prompt).completions
            completions.append(list(rows[seen[tuple(prompt)] % len(rows)]))
            seen[tuple(prompt)] += 1
        return completions, None


def tokens_needed(groups: Sequence[Group], rows: Callable[[Group, int], bool]) -> int:
    """Tokens that must pass through a decoder when only some rollouts matter: each prompt once, and these rollouts.

    Args:
        groups: Of one step, their prompts known.
        rows: Whether the rollout of a group with this index matters.
    """
    total = 0
    for group in groups:
        lengths = [len(row) for index, row in enumerate(group.completions) if rows(group, index)]
        total += len(group.prompt) + sum(lengths) if lengths else 0
    return total


def has_advantage(group: Group, _: int) -> bool:
    """The rollout has a policy gradient."""
    return group.has_advantage


def is_gated(group: Group, row: int) -> bool:
    """The rollout's gate is open."""
    return group.correct[row]


def has_gradient(group: Group, row: int) -> bool:
    """The rollout has a policy gradient, or an open gate."""
    return has_advantage(group, row) or is_gated(group, row)


@dataclass(frozen=True, slots=True)
class Workload:
    """What all arms share.

    Attributes:
        name: Of the models.
        student: Makes a student; all are equal.
        teacher: One for all arms.
        processor: Of both.
        dataset: As many distinct prompts as there are groups, again and again.
        rollouts: Of these prompts.
        fields: Of the trainers' settings.
    """

    name: str
    student: Callable[[], Any]
    teacher: Any
    processor: Any
    dataset: Dataset
    rollouts: Rollouts
    fields: dict[str, Any]


def questions(count: int, image_side: int | None) -> list[Question]:
    """Questions that differ; each with an image of its own where its side in pixels is given."""
    made = []
    for number in range(count):
        images: tuple[Any, ...] = ()
        if image_side is not None:
            pixels = random.Random(number).randbytes(image_side * image_side * 3)
            images = (Image.frombytes("RGB", (image_side, image_side), pixels),)
        made.append(
            Question(
                id=str(number),
                text=f"Case {number}: which of these imaging methods was used to make the image that is shown?",
                answer="A",
                options=("magnetic resonance imaging", "computed tomography", "ultrasound", "fundus photography"),
                images=images,
            )
        )
    return made


def repeated(asked: Sequence[Question], times: int = 64) -> Dataset:
    """The data set in which every step of `len(asked)` groups has the same questions."""
    return to_dataset(list(asked) * times, "think")


def tokens_to_draw(tokenizer: Any) -> list[int]:
    """All ids but those of special tokens."""
    special = {*tokenizer.all_special_ids, tokenizer.convert_tokens_to_ids(IMAGE)}
    return [index for index in range(len(tokenizer)) if index not in special]


def llava(
    correct: Sequence[int],
    group_size: int,
    lengths: tuple[int, int],
    device: torch.device,
    sizes: tuple[LlavaSize, LlavaSize] = (LLAVA_STUDENT, LLAVA_TEACHER),
    vocabulary: int = LLAVA_VOCABULARY,
) -> Workload:
    """Small LLaVAs, untrained, images of 64 tokens; at the default sizes a student of 5, a teacher of 14 million."""
    asked = questions(len(correct), 96)
    with tempfile.TemporaryDirectory() as name:
        student, teacher = Path(name) / "student", Path(name) / "teacher"
        build_llava(student, asked, size=sizes[0], image_size=96, patch_size=12)
        build_llava(teacher, [], size=sizes[1], tokenizer_from=student, image_size=96, patch_size=12)
        processor = AutoProcessor.from_pretrained(student)
        models = [_load(AutoModelForImageTextToText, folder, device) for folder in (student, teacher)]
    for model in models:
        model.resize_token_embeddings(vocabulary, mean_resizing=False)
    return workload_of("small LLaVA", *models, processor, asked, Rollouts(
        correct, group_size, lengths, tokens_to_draw(processor.tokenizer), processor.tokenizer.eos_token_id
    ))  # fmt: skip


def language_model(
    folder: str, correct: Sequence[int], group_size: int, lengths: tuple[int, int], device: torch.device
) -> Workload:
    """A language model's folder, as student and as teacher, without images; for example SmolLM2."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    models = [_load(AutoModelForCausalLM, Path(folder), device) for _ in range(2)]
    rollouts = Rollouts(correct, group_size, lengths, tokens_to_draw(tokenizer), tokenizer.eos_token_id)
    # The states of Adam for all arms at once would be gigabytes.
    return workload_of(Path(folder).name, *models, tokenizer, questions(len(correct), None), rollouts, optim="sgd")


def qwen3_vl(
    student: str,
    teacher: str,
    correct: Sequence[int],
    group_size: int,
    lengths: tuple[int, int],
    device: torch.device,
    *,
    shrink: bool = False,
    image_side: int = 384,
) -> Workload:
    """Qwen3-VL in the shape of its published config, random weights in bfloat16, with a tokenizer made here.

    Args:
        student: Published name, for example `Qwen3-VL-2B-Instruct`.
        teacher: The same of the teacher.
        correct: As in `Rollouts`, with the two following.
        group_size: As in `Rollouts`.
        lengths: As in `Rollouts`.
        device: Where the models are made.
        shrink: Narrow and shallow models, to try this path on a CPU.
        image_side: Pixels per side of the images.
    """
    asked = questions(len(correct), image_side)
    tokenizer = train_tokenizer(tokenizer_texts(asked))
    processor = qwen_processor(tokenizer, image_side)
    models = [_qwen(name, tokenizer, device, shrink) for name in (student, teacher)]
    rollouts = Rollouts(correct, group_size, lengths, tokens_to_draw(tokenizer), tokenizer.eos_token_id)
    fields = {"optim": "sgd", "bf16": True}
    return workload_of(student, *models, processor, asked, rollouts, **fields)


def workload_of(
    name: str, student: Any, teacher: Any, processor: Any, asked: list[Question], rollouts: Rollouts, **fields: Any
) -> Workload:
    """A workload whose micro-batches are the groups; `fields` are more settings of the trainers."""
    on_cpu = student.device.type == "cpu"
    shared = {
        "use_cpu": on_cpu,
        "bf16": False,
        "per_device_train_batch_size": len(rollouts.groups[0].completions),
        "gradient_accumulation_steps": len(rollouts.groups),
        "num_generations": len(rollouts.groups[0].completions),
        "max_completion_length": rollouts.longest,
        "generation_kwargs": {"min_new_tokens": rollouts.longest},
        "shuffle_dataset": False,
        "learning_rate": 1e-7,  # the policy, and with it the arithmetic, stays
        "max_steps": 100_000,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "seed": 0,
        **fields,
    }
    return Workload(name, partial(copy.deepcopy, student), teacher, processor, repeated(asked), rollouts, shared)


def _load(auto: Any, folder: Path, device: torch.device) -> Any:
    return auto.from_pretrained(folder, dtype=torch.float32).to(device)


def _qwen(name: str, tokenizer: Any, device: torch.device, shrink: bool) -> Any:
    found = published_config(name)
    if found is None:
        raise ValueError(f"{name} is not in the shipped table of published configs.")
    fields = found[0].to_dict()
    if shrink:
        _shrink(fields)
    # The tokenizer has no vocabulary of 151,936, the model has.
    fields["image_token_id"] = tokenizer.convert_tokens_to_ids(IMAGE)
    fields |= {"video_token_id": -1, "vision_start_token_id": -2, "vision_end_token_id": -3}
    special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    fields["text_config"] |= special
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    with device:
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    model.generation_config.update(**special)
    model.config._name_or_path = name
    return model


def _shrink(fields: dict[str, Any]) -> None:
    fields["text_config"] |= {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 2048,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 128,
    }  # fmt: skip
    fields["vision_config"] |= {
        "depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "out_hidden_size": 64,
        "deepstack_visual_indexes": [0], "num_position_embeddings": 64,
    }  # fmt: skip


def qwen_processor(tokenizer: Any, image_side: int) -> Any:
    """Qwen-VL's image processor and a tokenizer as one processor, without videos, which would need torchvision."""
    from transformers import ProcessorMixin, Qwen2VLImageProcessorPil

    class Processor(ProcessorMixin):
        """As `Qwen3VLProcessor`, for images alone."""

        def __init__(self, image_processor: Any, tokenizer: Any, chat_template: str | None = None) -> None:
            super().__init__(image_processor, tokenizer, chat_template=chat_template)

        def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> Any:
            given = kwargs.pop("text_kwargs", {})
            kwargs.pop("images_kwargs", None)
            text = [text] if isinstance(text, str) else list(text)
            fields: dict[str, Any] = {}
            if images is not None:
                flat = [image for one in images for image in (one if isinstance(one, list) else [one])]
                fields = dict(self.image_processor(images=flat, return_tensors="pt"))
                counts = iter((fields["image_grid_thw"].prod(-1) // self.image_processor.merge_size**2).tolist())
                text = [_expanded(row, counts) for row in text]
            kwargs.pop("return_mm_token_type_ids", None)
            encoded = self.tokenizer(text, **given, **kwargs)
            if images is not None:
                image = self.tokenizer.convert_tokens_to_ids(IMAGE)
                ids = encoded["input_ids"]
                encoded["mm_token_type_ids"] = (
                    (ids == image).long() if torch.is_tensor(ids) else [[int(i == image) for i in row] for row in ids]
                )
            return type(encoded)({**encoded, **fields})

    pixels = image_side * image_side
    size = {"shortest_edge": pixels, "longest_edge": pixels}
    images = Qwen2VLImageProcessorPil(size=size, patch_size=16, merge_size=2)
    return Processor(images, tokenizer, chat_template=tokenizer.chat_template)


def _expanded(text: str, counts: Any) -> str:
    """`text` with every image token as often as its image needs."""
    first, *rest = text.split(IMAGE)
    return first + "".join(IMAGE * next(counts) + part for part in rest)
