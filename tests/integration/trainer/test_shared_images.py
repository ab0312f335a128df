"""Equal images are encoded once, with the same features and the same gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from kepo import KEPOTrainer, LocalTeacher
from kepo.models.shared_images import share_image_features
from tests.tiny_runs import even_start, questions


def _encoded(tower: Any, images_of: Callable[[Any], int]) -> list[int]:
    """How many images the vision tower is given, call by call."""
    counts: list[int] = []
    tower.register_forward_pre_hook(
        lambda _m, args, kwargs: counts.append(images_of(args[0] if args else kwargs["pixel_values"])), with_kwargs=True
    )
    return counts


def test_a_step_encodes_each_image_once(make_trainer: Callable[..., KEPOTrainer], vlm: str) -> None:
    """Two prompts of four rollouts: two images, in generation and in the loss alike."""
    fields = {"model": vlm, "teacher": None, "distillation_weight": 0.0, "exploration": "none"}
    dataset = questions(2, images=True)
    once = make_trainer((even_start,), dataset=dataset, share_image_features=True, **fields)
    counts = _encoded(once.model.model.vision_tower, len)
    once.train()
    assert counts
    assert set(counts) == {2}
    per_rollout = make_trainer((even_start,), dataset=dataset, share_image_features=False, **fields)
    counts = _encoded(per_rollout.model.model.vision_tower, len)
    per_rollout.train()
    assert set(counts) == {8}
    for name, parameter in per_rollout.model.named_parameters():
        # Attention does not depend on the bias of its keys, so Adam turns that gradient's rounding noise into steps.
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(once.model.get_parameter(name), parameter, rtol=1e-3, atol=1e-4, msg=name)


def test_images_are_shared_where_the_run_is_not_trls_own(make_trainer: Callable[..., KEPOTrainer], vlm: str) -> None:
    def encoded(**fields: Any) -> int:
        trainer = make_trainer((even_start,), model=vlm, dataset=questions(2, images=True), **fields)
        trainer.model.train()
        counts = _encoded(trainer.model.model.vision_tower, len)
        trainer.make_generation_batch(next(iter(trainer.get_train_dataloader())))
        return counts[0]

    off: dict[str, Any] = {"teacher": None, "distillation_weight": 0.0, "exploration": "none"}
    assert encoded(**off) == 8
    assert encoded(**{**off, "exploration": "resample"}) == 2
    assert encoded(teacher=LocalTeacher(vlm), exploration="none") == 2


def test_features_and_gradients_are_those_of_the_full_batch(vlm: str) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 3, 16, 16)
    pixels = torch.stack([a, b, a, a])
    results = []
    for share in (False, True):
        model = AutoModelForImageTextToText.from_pretrained(vlm)
        if share:
            share_image_features(model)
        layer, strategy = model.config.vision_feature_layer, model.config.vision_feature_select_strategy
        features = model.model.get_image_features(
            pixel_values=pixels, vision_feature_layer=layer, vision_feature_select_strategy=strategy, return_dict=True
        ).pooler_output
        torch.cat(list(features)).pow(2).sum().backward()
        results.append((torch.stack(list(features)), next(model.model.vision_tower.parameters()).grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-3)


def test_patches_of_qwen_are_shared_image_by_image() -> None:
    """Qwen-VL lays the patches of images of different sizes end to end and returns deepstack features beside them."""
    from types import SimpleNamespace

    seen: list[Any] = []

    class Backbone:
        def get_image_features(self, pixel_values: Any, image_grid_thw: Any = None, **_: Any) -> Any:
            seen.append(image_grid_thw.tolist())
            parts = pixel_values.split(image_grid_thw.prod(-1).tolist())
            return SimpleNamespace(pooler_output=parts, deepstack_features=[[2 * part for part in parts]])

    backbone = Backbone()
    share_image_features(SimpleNamespace(base_model=backbone))
    small, large = torch.ones(4, 5), 2 * torch.ones(6, 5)
    grid = torch.tensor([[1, 2, 2], [1, 2, 3], [1, 2, 2]])
    output = backbone.get_image_features(torch.cat([small, large, small]), image_grid_thw=grid)
    assert seen == [[[1, 2, 2], [1, 2, 3]]]
    assert [part[0, 0].item() for part in output.pooler_output] == [1.0, 2.0, 1.0]
    assert [len(part) for part in output.deepstack_features[0]] == [4, 6, 4]


def test_a_language_model_is_left_alone(student: str) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(student)
    share_image_features(model)
    assert not hasattr(model.base_model, "get_image_features")


@pytest.mark.parametrize("count", [1, 3])
def test_all_different_images_stay_as_they_are(vlm: str, count: int, tmp_path: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(vlm)
    share_image_features(model)
    counts = _encoded(model.model.vision_tower, len)
    torch.manual_seed(0)
    model.model.get_image_features(
        pixel_values=torch.randn(count, 3, 16, 16),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        return_dict=True,
    )
    assert counts == [count]
