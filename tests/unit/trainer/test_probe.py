"""The rules of the probe that need no model: enough data, columns, answers, completions, gradients, printing."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset, IterableDataset
from PIL import Image

from kepo.cli.check import lines
from kepo.errors import ConfigError, DataError
from kepo.rewards import choice_accuracy, exact_match, math_accuracy
from kepo.trainer.probe import GradientWatch, HintCheck, Probe, RewardCheck, check_input, check_trained, likely_reason
from kepo.trainer.probe.completions import forms_to_try, incorrect_answer, true_answer, write
from kepo.trainer.probe.data import check_columns, read_columns
from kepo.trainer.probe.model import check_trainable, context_length
from kepo.trainer.probe.prompts import check_shapes, read_images, read_prompts, rendered
from kepo.trainer.probe.records import QUICK, WHOLE, Rows, evenly

ARGS: Any = SimpleNamespace(
    generation_batch_size=32,
    num_generations=2,
    per_device_train_batch_size=32,
    steps_per_generation=1,
    world_size=1,
)


def _data(count: int = 16, **columns: Any) -> Dataset:
    return Dataset.from_dict({"prompt": ["What?"] * count, "id": [f"q{i}" for i in range(count)], **columns})


def test_too_few_questions_for_a_batch_are_refused_with_both_numbers() -> None:
    with pytest.raises(DataError, match=r"8 questions.* takes 16"):
        check_input(ARGS, [], [], _data(8), {})
    check_input(ARGS, [], [], _data(16), {})


def test_a_stream_is_not_read() -> None:
    def rows() -> Any:
        raise AssertionError("read")
        yield {}

    check_input(ARGS, [exact_match], ["exact_match"], IterableDataset.from_generator(rows), {})


def test_a_missing_column_is_named_with_those_that_are_there() -> None:
    with pytest.raises(DataError, match=r"'choice_accuracy'.*'answer' and 'options'.*prompt, id, solution"):
        check_input(ARGS, [choice_accuracy], ["choice_accuracy"], _data(solution=["A"] * 16), {})
    with pytest.raises(DataError, match="rename_column"):
        check_columns([exact_match], ["exact_match"], ["prompt", "solution"])
    with pytest.raises(DataError, match="'difficulty'"):
        check_columns([lambda completions, difficulty, **_: []], ["own"], ["prompt"])
    check_columns([lambda completions, difficulty=1, **_: []], ["own"], ["prompt"])
    check_columns([lambda completions, completion_finished, reasoning_opened, **_: []], ["own"], ["prompt"])
    own_rollouts = {"rollout_func": print}  # which may bring the column
    check_input(ARGS, [exact_match], ["exact_match"], _data(), own_rollouts)


def test_columns_of_reward_models_are_not_guessed() -> None:
    assert read_columns("org/reward-model") == []
    assert read_columns(torch.nn.Linear(1, 1)) == []


@pytest.mark.parametrize(
    ("reward", "columns", "words"),
    [
        (exact_match, {"answer": ["x"] * 3 + [None] + ["x"] * 12}, r"row 3 \(id 'q3'\), column 'answer' is None"),
        (exact_match, {"answer": ["x"] * 3 + [" "] + ["x"] * 12}, "row 3"),
        (exact_match, {"answer": [3] * 16}, r"row 0 .*column 'answer' is 3.*text"),
        (choice_accuracy, {"answer": ["A"] * 15 + ["C"], "options": [["x", "y"]] * 16}, r"row 15 .*'C'.*\(A, B\)"),
    ],
)
def test_an_answer_that_cannot_be_read_is_refused_with_its_row(reward: Any, columns: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        check_input(ARGS, [reward], [reward.__name__], _data(**columns), {})


def test_answers_that_can_be_read() -> None:
    options = [["x", "y"], None] * 8
    check_input(ARGS, [choice_accuracy], ["c"], _data(answer=["A", "free text"] * 8, options=options), {})
    check_input(ARGS, [math_accuracy], ["m"], _data(answer=[3] * 16), {})


@pytest.mark.parametrize(
    ("row", "true", "incorrect"),
    [
        ({"answer": "A", "options": ["MRI", "CT"]}, "A", "B"),
        ({"answer": "B", "options": ["MRI", "CT"]}, "B", "A"),
        ({"answer": "A", "options": ["MRI"]}, "A", None),
        ({"answer": "7 + 35\n#### 42"}, "42", "43"),
        ({"answer": "0.5"}, "0.5", "0.51"),
        ({"answer": None, "solution": "pneumonia"}, "pneumonia", "none of these"),
        ({"solution": ["a"]}, None, None),
        ({}, None, None),
    ],
)
def test_true_and_incorrect_answers(row: dict[str, Any], true: str | None, incorrect: str | None) -> None:
    assert true_answer(row) == true
    assert incorrect_answer(row) == incorrect


def test_completions_have_the_form_of_the_prompt() -> None:
    assert write("think", "A") == "<think>Reasoning.</think>\n<answer>A</answer>"
    assert write("think", "A", opened=True) == "Reasoning.</think>\n<answer>A</answer>"
    assert write("answer", "A", opened=True) == "Reasoning.</think>\n<answer>A</answer>"
    assert write("boxed", r"\frac12") == r"\boxed{\frac12}"
    assert forms_to_try("think", ours=True) == ["think"]
    assert forms_to_try("think", ours=False) == ["think", "plain", "answer", "boxed"]
    assert forms_to_try(None, ours=True)[0] == "plain"


def test_rows_are_taken_evenly() -> None:
    assert evenly(4, None) == evenly(4, 9) == [0, 1, 2, 3]
    assert evenly(101, 5) == [0, 25, 50, 75, 100]
    assert evenly(9, 1) == [0]


def _log(**values: float) -> dict[str, float]:
    return {"grad_norm": 0.0, "learning_rate": 1e-3, **values}


SETTINGS = {"policy_weight": 1.0, "mask_truncated_completions": False, "exploration": "hint"}


@pytest.mark.parametrize(
    ("logs", "settings", "words"),
    [
        ([_log(frac_reward_zero_std=1.0, reward=0.0)], {}, "same reward"),
        ([_log(frac_reward_zero_std=1.0, reward=0.0)], {"exploration": "none"}, "switch exploration on"),
        ([_log(**{"frac_reward_zero_std": 1.0, "gate/open_share": 0.0})], {}, "gate was closed"),
        ([_log(**{"completions/clipped_ratio": 1.0})], {"mask_truncated_completions": True}, "cut off"),
        ([_log()], {"policy_weight": 0}, "gate_threshold"),
        ([{"grad_norm": 1.0, "learning_rate": 0.0}], {}, "learning rate is 0"),
        ([_log()], {}, "no metric says why"),
    ],
)
def test_the_likely_reason_of_no_gradient(logs: Any, settings: dict[str, Any], words: str) -> None:
    assert words in likely_reason(logs, {**SETTINGS, **settings})


def _watched(caplog: pytest.LogCaptureFixture, norms: list[float]) -> list[str]:
    watch = GradientWatch(SETTINGS)
    state = SimpleNamespace(is_world_process_zero=True, global_step=0)
    with caplog.at_level(logging.WARNING):
        watch.on_train_begin(None, state, None)
        for norm in norms:
            state.global_step += 1
            watch.on_log(None, state, None, logs=_log(grad_norm=norm))
            watch.on_log(None, state, None, logs={"eval_loss": 1.0})
        watch.on_train_end(None, state, None)
    return [record.message for record in caplog.records]


def test_five_logs_without_gradient_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    [message] = _watched(caplog, [0.1, *[0.0] * 8])
    assert "from step 2 to step 6" in message


def test_a_short_run_without_gradient_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert len(_watched(caplog, [0.0, 0.0])) == 1


def test_single_steps_without_gradient_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert _watched(caplog, [0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 0.0, 0.1, 0.0]) == []


def test_no_step_is_no_training() -> None:
    with pytest.raises(DataError, match="without one optimizer step"):
        check_trained(0)
    check_trained(1)


def test_a_model_that_nothing_trains() -> None:
    model = torch.nn.Linear(2, 3)
    assert check_trainable(model) == (9, 9)
    with pytest.raises(ConfigError, match="No parameter"):
        check_trainable(model.requires_grad_(False))


def test_how_much_a_model_reads() -> None:
    def config(**fields: Any) -> Any:
        return SimpleNamespace(get_text_config=lambda: SimpleNamespace(**fields))

    assert context_length(config(max_position_embeddings=1024)) == 1024
    assert context_length(config(max_position_embeddings=None)) is None
    yarn = {"rope_type": "yarn", "factor": 4.0}
    assert context_length(config(max_position_embeddings=1024, rope_parameters=yarn)) == 4096


class _Wide:
    """An image processor that refuses what Qwen2.5-VL's refuses."""

    def __call__(self, images: list[Image.Image], **_: Any) -> None:
        [image] = images
        if max(image.size) > 200 * min(image.size):
            raise ValueError(f"absolute aspect ratio must be smaller than 200, got {max(image.size)}")


PROCESSOR: Any = SimpleNamespace(
    image_processor=_Wide(), image_token="<image>", tokenizer=SimpleNamespace(image_token=None)
)


def _images(*sizes: Any) -> Dataset:
    images = [[Image.new("RGB", size)] if size else [] for size in sizes]
    return Dataset.from_dict({"prompt": ["What?"] * len(sizes), "images": images})


def _rows(dataset: Dataset) -> Rows:
    return Rows("train_dataset", range(len(dataset)), None)


def test_an_image_that_the_processor_refuses_is_named() -> None:
    dataset = _images((8, 8), (8, 8), (2000, 4), (9, 8))
    shapes = read_images(dataset, PROCESSOR, _rows(dataset), WHOLE)
    assert shapes.distinct == 3
    with pytest.raises(DataError, match=r"row 2, image 1 .*2000 x 4 pixels.*aspect ratio"):
        check_shapes(dataset, PROCESSOR, _rows(dataset), shapes, 1, slice(None))
    fine = _images((8, 8), (8, 8), (9, 8))
    assert (
        check_shapes(fine, PROCESSOR, _rows(fine), read_images(fine, PROCESSOR, _rows(fine), WHOLE), 9, slice(None))
        == 2
    )


def test_rows_with_and_without_images_are_refused() -> None:
    dataset = _images((8, 8), None)
    with pytest.raises(DataError, match=r"row 1 has no image, but train_dataset, row 0 has"):
        read_images(dataset, PROCESSOR, _rows(dataset), WHOLE)
    assert read_images(dataset, PROCESSOR, _rows(dataset), WHOLE, mixed=True).distinct == 1


def test_images_for_a_model_that_reads_text() -> None:
    dataset = _images((8, 8))
    with pytest.raises(ConfigError, match="reads text only"):
        read_images(dataset, object(), _rows(dataset), QUICK)


def test_the_text_of_an_image_token_is_refused() -> None:
    turns = [[{"role": "user", "content": text}] for text in ("Plain.", "<image>\nWhat?")]
    dataset = Dataset.from_dict({"prompt": turns})
    with pytest.raises(DataError, match=r"row 1, column 'prompt'.*'<image>'"):
        read_prompts(dataset, PROCESSOR, _rows(dataset), QUICK)
    assert read_prompts(dataset, object(), _rows(dataset), QUICK).read == 2  # a model without images reads it as text


def test_prompts_of_each_form_and_the_longest_are_rendered() -> None:
    user = {"role": "user", "content": "a"}
    system = {"role": "system", "content": "s"}
    dataset = Dataset.from_dict({"prompt": [[user]] * 5 + [[system, user]] + [[{**user, "content": "a" * 99}], [user]]})
    assert {0, 5, 6} <= set(read_prompts(dataset, object(), _rows(dataset), WHOLE).to_render)


def test_repeated_tokens_are_written_once() -> None:
    tokenizer: Any = SimpleNamespace(decode=lambda ids: "".join(chr(token) for token in ids))
    assert rendered(tokenizer, [65, *[73] * 9, 66, 66]) == "AI[9 times]BB"
    assert rendered(tokenizer, [65, 65]) == "AA"


def test_what_is_printed() -> None:
    probe = Probe(
        rows=8,
        texts_read=8,
        per_batch=4,
        row="train_dataset, row 0",
        prompt="<|user|>What?",
        completion="<answer>A</answer>",
        incorrect="<answer>B</answer>",
        rewards=(RewardCheck("choice_accuracy", 1.0, 0.0, True), RewardCheck("judge", None, None)),
        longest_prompt=100,
        longest_row="train_dataset, row 3",
        max_completion=20,
        context=1024,
        trainable=10,
        parameters=1000,
        hint=HintCheck("Write a hint", "<hint>It is A</hint>", "It is A", ("letter",), ""),
        notes=("something",),
    )
    text = "\n".join(lines(probe))
    for words in ("2 generation batches of 4", "120, the model reads 1,024", "audit: letter", "shown nothing", "1.0%"):
        assert words in text
    assert "choice_accuracy        1          0  (says what is correct)" in text
    assert "note: something" in text
