"""What a colocated vLLM is given where prompts hold images; the stand-in for its engine expands them as vLLM does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kepo import KEPOTrainer
from kepo.errors import ConfigError
from tests.tiny_models import IMAGE
from tests.tiny_runs import questions

IMAGE_TOKENS = 4  # of an image of these models


def _engine(tokens: int) -> type:
    """vLLM's interface as TRL uses it; an image becomes `tokens` tokens at the first place that marks one."""

    class Engine:
        def __init__(self, processing_class: Any, **_: Any) -> None:
            self.image = processing_class.tokenizer.convert_tokens_to_ids(IMAGE)
            self.given: list[list[int]] = []

        def sync_weights(self) -> None: ...

        def generate(self, prompts: Any, images: Any, num_generations: int, profiler: Any = None) -> Any:
            self.given += prompts
            read = []
            for ids in prompts:
                at = ids.index(self.image)
                read.append([*ids[:at], *[self.image] * tokens, *ids[at + 1 :]])
            return read, [[70, 71, 2]] * len(prompts), [[[-5.0]] * 3 for _ in prompts], None

    return Engine


@pytest.fixture
def make(
    make_trainer: Callable[..., KEPOTrainer], vlm: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., KEPOTrainer]:
    def make(tokens: int, mode: str = "colocate") -> KEPOTrainer:
        monkeypatch.setattr("trl.trainer.grpo_trainer.VLLMGeneration", _engine(tokens))
        return make_trainer(
            model=vlm,
            teacher=None,
            dataset=questions(images=True),
            exploration="none",
            distillation_weight=0.0,
            use_vllm=True,
            vllm_mode=mode,
            vllm_importance_sampling_correction=False,
        )

    return make


def _generate(trainer: KEPOTrainer) -> list[list[int]]:
    """The prompts that are trained on, of the first batch."""
    trainer.model.train()
    batch = trainer.make_generation_batch(next(iter(trainer.get_train_dataloader())))
    rows = zip(batch["prompt_ids"].tolist(), batch["prompt_mask"].tolist(), strict=True)
    return [[token for token, there in zip(ids, mask, strict=True) if there] for ids, mask in rows]


def test_it_is_given_one_token_per_image_and_comes_to_the_prompt_that_is_trained_on(
    make: Callable[..., KEPOTrainer],
) -> None:
    trainer = make(IMAGE_TOKENS)
    trained = _generate(trainer)
    engine = trainer.vllm_generation
    assert [ids.count(engine.image) for ids in engine.given] == [1] * 8
    assert [ids.count(engine.image) for ids in trained] == [IMAGE_TOKENS] * 8
    assert [[token for token in ids if token != engine.image] for ids in engine.given] == [
        [token for token in ids if token != engine.image] for ids in trained
    ]


def test_an_engine_that_comes_to_another_prompt_stops_the_run(make: Callable[..., KEPOTrainer]) -> None:
    with pytest.raises(ConfigError, match=r"vLLM reads prompt 0 of the batch as \d+ tokens") as error:
        _generate(make(IMAGE_TOKENS + 1))
    assert "image_size" in str(error.value)


def test_a_server_is_given_trls_own_prompts(make: Callable[..., KEPOTrainer]) -> None:
    trainer = make(IMAGE_TOKENS, mode="server")
    assert trainer.vllm_generation.given == []
    trained = _generate(trainer)
    assert trainer.vllm_generation.given == trained
