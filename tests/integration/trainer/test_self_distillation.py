"""A teacher with the student's own weights has nothing to teach: it reads what the student reads, in every setting."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoProcessor

from kepo import KEPOConfig, KEPOTrainer, LocalTeacher, RemoteTeacher
from kepo.teachers.base import ScoreRequest
from tests.fake_vllm import MODEL
from tests.http_server import serving
from tests.model_server import ModelServer
from tests.tiny_models import BOS, EOS, IMAGE, build_text_model, build_tokenizer, build_vlm, tiny_image
from tests.tiny_runs import even_start, has_magic, questions

TEMPLATE = (
    "{{- bos_token -}}{%- if tools -%}{{- '<|system|>tools ' -}}{%- for tool in tools -%}"
    "{{- (tool.function if tool.function is defined else tool) | tojson -}}{%- endfor -%}{{- eos_token -}}{%- endif -%}"
    "{%- if style is defined -%}{{- '<|system|>' + style + eos_token -}}{%- endif -%}"
    "{%- for message in messages -%}{{- '<|' + ('user' if message['role'] == 'tool' else message['role']) + '|>' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}"
    "{%- for part in message['content'] -%}{%- if part['type'] == 'image' -%}{{- '<image>' -}}"
    "{%- else -%}{{- part['text'] -}}{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{%- for call in message.tool_calls or [] -%}{{- '[[' + (call.function | tojson) + ']]' -}}{%- endfor -%}"
    "{{- eos_token -}}{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
RESPONSE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|assistant|>",
    "fields": {
        "tool_calls": {
            "open": "[[",
            "close_pattern": r"\]\]\s*",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"<\|eos\|>\s*", "content": "text"},
    },
}
CALL = '[[{"name": "add", "arguments": {"a": 1, "b": 2}}]]'


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return a + b


class Room:
    """An environment that says what is in it, and can be asked."""

    def reset(self, **_: Any) -> str:
        return " A lamp and a door are here."

    def look(self, where: str) -> str:
        """Look somewhere.

        Args:
            where: The direction.
        """
        return f"Nothing in the {where}."


def rollout_func(prompts: list[Any], trainer: Any) -> dict[str, Any]:
    """Rollouts under a prompt of its own, with tokens that an environment wrote."""
    tokenizer = trainer.tokenizer
    prompt_ids = [tokenizer(f"{BOS}Step {row}: go on.")["input_ids"] for row in range(len(prompts))]
    answers = [tokenizer(f"I go {row}. You are there. Then I stay.{EOS}")["input_ids"] for row in range(len(prompts))]
    masks = [[1] * 3 + [0] * 4 + [1] * (len(ids) - 7) for ids in answers]
    return {"prompt_ids": prompt_ids, "completion_ids": answers, "logprobs": None, "env_mask": masks}


def _texts() -> Dataset:
    return Dataset.from_dict({"prompt": [f"What is {i} plus {i}?" * (i + 1) for i in range(8)], "answer": ["A"] * 8})


def _several_images() -> Dataset:
    rows = questions().to_dict()
    return Dataset.from_dict({**rows, "images": [[tiny_image(i)] * (1 + i % 2) for i in range(8)]})


def _reversed_template(processor: Any) -> None:
    processor.chat_template = TEMPLATE.replace("'<|user|>'", "'Q: '").replace("bos_token -", "'>> ' -")


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "plain text": {"dataset": _texts},
    "tools": {"tools": [add]},
    "tools that are called": {"tools": [add], "calls": True},
    "environment": {"environment_factory": Room},
    "rollout_func": {"rollout_func": rollout_func},
    "another chat template": {"change": _reversed_template},
    "template variables of the student": {"fields": {"chat_template_kwargs": {"style": "Be brief."}}},
    "template variables of the teacher": {"of_teacher": {"style": "Be kind."}},
}
IMAGE_SETTINGS: dict[str, dict[str, Any]] = {
    "images": {"dataset": lambda: questions(images=True)},
    "several images": {"dataset": _several_images},
    "images, another chat template": {"dataset": lambda: questions(images=True), "change": _reversed_template},
    "images, template variables of the student": {
        "dataset": _several_images,
        "fields": {"chat_template_kwargs": {"style": "Be brief."}},
    },
    "images, template variables of the teacher": {"dataset": _several_images, "of_teacher": {"style": "Be kind."}},
    "images, tools": {"dataset": _several_images, "tools": [add]},
    "no images": {},
    "no images, tools that are called": {"tools": [add], "calls": True},
    "plain text, no images": {"dataset": _texts},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    text = build_text_model(root / "text", tokenizer=build_tokenizer(chat_template=TEMPLATE))
    vlm = build_vlm(root / "vlm")
    (vlm / "chat_template.jinja").write_text(TEMPLATE)
    return {"text": text, "vlm": vlm}


@pytest.fixture(scope="module")
def teachers(folders: dict[str, Path]) -> dict[str, LocalTeacher]:
    return {kind: LocalTeacher(folder) for kind, folder in folders.items()}


@pytest.fixture(scope="module")
def servers(teachers: dict[str, LocalTeacher]) -> Iterator[dict[str, ModelServer]]:
    with serving(ModelServer(teachers["text"])) as text, serving(ModelServer(teachers["vlm"])) as vlm:
        yield {"text": text, "vlm": vlm}  # type: ignore[dict-item]


def _script_calls(trainer: Any) -> None:
    """Every second rollout calls the tool once; the answers differ in length."""
    texts = [CALL if row % 2 else f"I do not know {'at all' * row}" for row in range(8)]

    def generate(prompt_ids: Any, *_: Any, **__: Any) -> Any:
        said = texts if len(prompt_ids) == 8 else [f"It is {3 + row}." for row in range(len(prompt_ids))]
        return [trainer.tokenizer(text + EOS)["input_ids"] for text in said], None

    trainer._generate_single_turn = generate


def _divergence(
    config: Callable[..., KEPOConfig], folder: Path, teacher: Any, setting: dict[str, Any]
) -> tuple[torch.Tensor, dict[str, Any]]:
    processor = AutoProcessor.from_pretrained(folder, padding_side="left")
    getattr(processor, "tokenizer", processor).response_template = RESPONSE
    setting.get("change", lambda _: None)(processor)
    fields = {"exploration": "none", "gate": "always", "rollout_log": False, **setting.get("fields", {})}
    given = {name: setting[name] for name in ("tools", "environment_factory", "rollout_func") if name in setting}
    trainer = KEPOTrainer(
        str(folder),
        [even_start],
        config(max_completion_length=160, **fields),
        setting.get("dataset", questions)(),
        processing_class=processor,
        teacher=teacher,
        **given,
    )
    if setting.get("calls"):
        _script_calls(trainer)
    else:  # a random policy writes for ever, and image tokens too
        trainer.generation_config.max_new_tokens = 8
        trainer.generation_config.suppress_tokens = [trainer.tokenizer.convert_tokens_to_ids(IMAGE)]
    trainer.model.train()
    trainer.create_optimizer_and_scheduler(1)
    trainer.current_gradient_accumulation_steps = 1
    batch = trainer.make_generation_batch(next(iter(trainer.get_train_dataloader())))
    _, divergence = trainer.compute_policy_loss(trainer.model, batch, trainer._distillation_target(batch))
    assert divergence is not None
    assert len(divergence) == batch["gate_weights"].sum() > 8
    return divergence, batch


@pytest.mark.parametrize("name", [*SETTINGS, *IMAGE_SETTINGS])
@pytest.mark.parametrize("where", ["local", "remote"])
def test_the_divergence_from_oneself_is_zero(
    config: Callable[..., KEPOConfig],
    folders: dict[str, Path],
    teachers: dict[str, LocalTeacher],
    servers: dict[str, ModelServer],
    name: str,
    where: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    setting = {**SETTINGS, **IMAGE_SETTINGS}[name]
    kind = "vlm" if name in IMAGE_SETTINGS else "text"
    variables = setting.get("of_teacher")
    teacher: Any = teachers[kind] if variables is None else LocalTeacher(folders[kind], chat_template_kwargs=variables)
    if where == "remote":
        teacher = RemoteTeacher(servers[kind].url, MODEL, top_k=8, chat_template_kwargs=variables)
    with caplog.at_level(logging.WARNING):
        divergence, batch = _divergence(config, folders[kind], teacher, setting)
    assert divergence.abs().max() < 1e-6
    assert "reads the prompt as its own processor renders it" not in caplog.text
    if setting.get("calls"):
        assert (batch["completion_mask"] * batch["tool_mask"]).sum() < batch["completion_mask"].sum()


@pytest.mark.parametrize(
    "name", ["tools", "rollout_func", "template variables of the student", "another chat template"]
)
def test_without_the_students_ids_it_would_not_be_zero(
    config: Callable[..., KEPOConfig], folders: dict[str, Path], teachers: dict[str, LocalTeacher], name: str
) -> None:
    class Rendering(LocalTeacher):
        """Reads the prompt as its own template writes it."""

        def score(self, requests: Sequence[ScoreRequest]) -> Any:
            return super().score([replace(request, prompt_ids=None) for request in requests])

    divergence, _ = _divergence(config, folders["text"], Rendering(folders["text"]), SETTINGS[name])
    assert divergence.max() > 1e-3


@pytest.mark.parametrize("context", ["original", "hinted"])
def test_injected_rows_are_taught_under_the_prompt_that_they_are_trained_under(
    make_trainer: Callable[..., KEPOTrainer], student: str, rescuing_sampler: list[list[Any]], context: str
) -> None:
    teacher = LocalTeacher(student)
    teacher.write_hints = lambda conversations: ["<hint>Think of colours.</hint>"] * len(conversations)
    asked: list[ScoreRequest] = []
    score = teacher.score
    teacher.score = lambda requests: [asked.extend(requests), score(requests)][1]
    trainer = make_trainer((has_magic,), teacher=teacher, injection_context=context)
    trainer.model.train()
    trainer.create_optimizer_and_scheduler(1)
    trainer.current_gradient_accumulation_steps = 1
    batch = trainer.make_generation_batch(next(iter(trainer.get_train_dataloader())))
    assert batch["injected"].sum() == len(asked) == 4
    hinted = [trainer.tokenizer.decode(request.prompt_ids).count("Think of colours.") for request in asked]
    assert hinted == [int(context == "hinted")] * 4
    _, divergence = trainer.compute_policy_loss(trainer.model, batch, trainer._distillation_target(batch))
    assert divergence is not None
    assert divergence.abs().max() < 1e-6


def test_references_beside_the_mask_of_an_environment(
    config: Callable[..., KEPOConfig], folders: dict[str, Path], teachers: dict[str, LocalTeacher]
) -> None:
    dataset = questions().add_column("reference", ["A reference of its own."] * 8)
    setting = {"rollout_func": rollout_func, "dataset": lambda: dataset, "fields": {"lmbda": 0.5, "seed": 0}}
    divergence, batch = _divergence(config, folders["text"], teachers["text"], setting)
    whole = (batch["completion_mask"] * batch["tool_mask"]).sum(1) == batch["completion_mask"].sum(1)
    assert whole.tolist().count(True) == 4, "one group of references, one of rollouts"
    assert divergence.abs().max() < 1e-6
