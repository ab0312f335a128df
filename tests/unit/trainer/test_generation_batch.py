"""What takes the place of a rollout leaves nothing of it behind."""

from __future__ import annotations

from typing import Any

import pytest

from kepo.trainer.generation_batch import Rollouts, completion_of
from kepo.types import Prompt, Sample

CHAT: Prompt = [{"role": "user", "content": [{"type": "image", "image": "scan"}, {"type": "text", "text": "?"}]}]


def _rollouts(**fields: Any) -> Rollouts:
    """Two rollouts of three tokens, the second of them a tool's."""
    defaults: dict[str, Any] = dict(
        prompt_ids=[[1], [1]],
        completion_ids=[[5, 6, 7], [5, 6, 7]],
        tool_mask=[[1, 0, 1], [1, 0, 1]],
        completions=["old", "old"],
        logprobs=None,
        extra_fields={},
        images=None,
        tool_images=[],
    )
    return Rollouts(**{**defaults, **fields})


def test_the_mask_is_that_of_the_sample() -> None:
    rollouts = _rollouts()
    rollouts.replace(0, Sample((8, 9, 9, 2), "new", tool_mask=(1, 0, 0, 1)), "?")
    rollouts.replace(1, Sample((8, 2), "new"), "?")
    assert rollouts.tool_mask == [[1, 0, 0, 1], [1, 1]]
    assert rollouts.completion_ids == [[8, 9, 9, 2], [8, 2]]
    assert rollouts.prompt_ids == [[1], [1]]
    bare = _rollouts(tool_mask=None)
    bare.replace(0, Sample((8, 2), "new"), "?")
    assert bare.tool_mask is None


def test_images_are_those_of_the_prompt_and_of_the_samples_tools() -> None:
    rollouts = _rollouts(images=[["scan", "old"], ["scan", "old"]], tool_images=[["old"], ["old"]])
    rollouts.replace(0, Sample((8, 2), "new", images=("new",)), CHAT)
    rollouts.replace(1, Sample((8, 2), "new"), CHAT)
    assert (rollouts.images, rollouts.tool_images) == ([["scan", "new"], ["scan"]], [["new"], []])
    text = _rollouts(images=[None, ["old"]], tool_images=[[], ["old"]])
    text.replace(0, Sample((8, 2), "new", images=("new",)), "?")
    text.replace(1, Sample((8, 2), "new"), "?")
    assert (text.images, text.tool_images) == ([["new"], None], [["new"], []])


def test_what_a_rollout_func_said_of_the_rollout_is_no_longer_said() -> None:
    rollouts = _rollouts(extra_fields={"score": [0.5, 0.7], "name": "all", "short": []})
    rollouts.replace(1, Sample((8, 2), "new"), "?")
    assert rollouts.extra_fields == {"score": [0.5, None], "name": "all", "short": []}


@pytest.mark.parametrize(
    ("prompt", "sample", "form"),
    [
        ("?", Sample((8,), "new"), "new"),
        (CHAT, Sample((8,), "new"), [{"role": "assistant", "content": "new"}]),
        (
            CHAT,
            Sample((8,), "new", completion=[{"role": "assistant"}, {"role": "tool"}]),
            [{"role": "assistant"}, {"role": "tool"}],
        ),
        ("?", Sample((8,), "new", completion="as TRL has it"), "as TRL has it"),
    ],
)
def test_completions_have_the_form_of_rollouts(prompt: Prompt, sample: Sample, form: Any) -> None:
    assert completion_of(prompt, sample) == form
