"""The backend that runs a model: the prompt of training, greedy and sampled outputs, and what a user can get wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from kepo.errors import ConfigError
from kepo.evaluation.asking import conversations, ordered_questions
from kepo.evaluation.generate import SeededSampling, TransformersBackend, load_backend, weights_fingerprint
from kepo.evaluation.run import ask
from kepo.evaluation.scoring import reasoning_logps
from kepo.evaluation.settings import Completion, EvaluationSettings
from kepo.types import Conversation, Question
from tests.tiny_models import build_text_model, build_tokenizer, build_vlm, tiny_image

GREEDY = EvaluationSettings(max_new_tokens=6)
SAMPLED = EvaluationSettings(max_new_tokens=6, temperature=1.0, samples=2)


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_text_model(tmp_path_factory.mktemp("text") / "llama", "llama")


@pytest.fixture(scope="module")
def vlm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_vlm(tmp_path_factory.mktemp("vlm") / "llava", "llava")


def _questions(count: int, images: int = 0) -> list[Question]:
    return [
        Question(
            f"q{i}",
            "What does it show? " * (1 + i),
            "A",
            ("MRI", "CT"),
            tuple(tiny_image(i + k) for k in range(images)),
        )
        for i in range(count)
    ]


def _ids(backend: TransformersBackend, prompt: Conversation) -> list[int]:
    """What the model is given for `prompt`, image tokens included."""
    ids: list[int] = backend._encode([backend._as_asked(prompt)])["input_ids"][0].tolist()
    return ids


def _prompts(count: int, images: int = 0) -> list[Conversation]:
    settings = EvaluationSettings()
    return conversations(list(ordered_questions(_questions(count, images), settings)), settings)


@pytest.mark.slow  # TRL is imported
@pytest.mark.parametrize(("kind", "images"), [("text", 0), ("vlm", 1), ("vlm", 2), ("vlm", 0)])
def test_the_prompt_has_the_token_ids_of_training(
    kind: str, images: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    from trl import GRPOConfig, GRPOTrainer
    from trl.data_utils import prepare_multimodal_messages

    from kepo.data import to_dataset

    folder = request.getfixturevalue(f"{kind}_folder")
    dataset = to_dataset(_questions(3, images), "think")
    config = GRPOConfig(str(tmp_path), num_generations=2, per_device_train_batch_size=2, report_to="none", bf16=False)
    trainer = GRPOTrainer(str(folder), reward_funcs=lambda completions, **_: [0.0] * len(completions), args=config,
                          train_dataset=dataset)  # fmt: skip
    rows = [dataset[i] for i in range(3)]
    shown = [prepare_multimodal_messages(row["prompt"], row["images"]) if images else row["prompt"] for row in rows]
    expected, _, fields = trainer._tokenize_prompts(shown)
    backend = load_backend(folder)
    prompts = _prompts(3, images)
    assert [_ids(backend, prompt) for prompt in prompts] == expected
    if images:
        pixels = backend._encode(prompts)["pixel_values"]
        assert torch.equal(pixels, torch.stack([torch.as_tensor(image) for image in fields["pixel_values"]]))


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize(("kind", "images"), [("text", 0), ("vlm", 1)])
def test_an_output_does_not_depend_on_its_batch(
    sampling: EvaluationSettings, kind: str, images: int, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(f"{kind}_folder")
    prompts, seeds = _prompts(5, images), [11, 12, 13, 14, 15]
    together = load_backend(folder, batch_size=64).generate(prompts, sampling, seeds)
    apart = load_backend(folder, batch_size=3).generate(prompts, sampling, seeds)
    assert together == apart
    assert [len(row) for row in together] == [sampling.samples] * 5
    torch.manual_seed(99)  # the global state of the random numbers plays no part
    assert load_backend(folder).generate(prompts[2:3], sampling, seeds[2:3]) == together[2:3]


def test_greedy_is_what_the_model_itself_generates(text_folder: Path) -> None:
    backend = load_backend(text_folder)
    [prompt] = _prompts(1)
    ids = torch.tensor([_ids(backend, prompt)])
    with torch.no_grad():
        for _ in range(6):
            ids = torch.cat([ids, backend._model(ids).logits[:, -1:].argmax(-1)], dim=1)
    new = ids[0, -6:].tolist()
    end = backend._tokenizer.eos_token_id
    expected = new[: new.index(end) + 1] if end in new else new
    [[output]] = backend.generate([prompt], GREEDY, [0])
    assert output == Completion(
        backend._tokenizer.decode(expected, skip_special_tokens=True), len(expected), expected[-1] == end
    )


def test_an_output_ends_at_its_first_end_token(text_folder: Path) -> None:
    """What follows in a batch is padding, which may be the end token itself."""
    backend = load_backend(text_folder)
    end = backend._tokenizer.eos_token_id
    word = backend._tokenizer.encode("image", add_special_tokens=False)
    assert backend._completion([*word, end, end, *word]) == Completion("image", len(word) + 1, True)
    assert backend._completion(word) == Completion("image", len(word), False)


def test_samples_differ_from_each_other_and_with_the_seed(text_folder: Path) -> None:
    backend = load_backend(text_folder)
    hot = EvaluationSettings(max_new_tokens=8, temperature=3.0, samples=3)
    first, other, again = backend.generate(_prompts(1) * 3, hot, [1, 2, 1])
    assert len({output.text for output in [*first, *other]}) == 6
    assert first == again
    more = backend.generate(_prompts(1), EvaluationSettings(max_new_tokens=8, temperature=3.0, samples=5), [1])
    assert more[0][:3] == first


def test_sampling_follows_the_distribution() -> None:
    """One step over three tokens with probabilities 0.5, 0.3 and 0.2, 4000 times: within 4 standard errors."""
    rows = 4000
    scores = torch.tensor([0.5, 0.3, 0.2]).log().expand(rows, 3)
    draw = SeededSampling(EvaluationSettings(max_new_tokens=1, temperature=1.0), [(seed, 0) for seed in range(rows)])
    share = draw(torch.zeros(rows, 1), scores).argmax(-1).bincount(minlength=3) / rows
    assert share.tolist() == pytest.approx([0.5, 0.3, 0.2], abs=4 * math.sqrt(0.25 / rows))


def test_temperature_and_nucleus_reach_the_sampling() -> None:
    rows = 500
    scores = torch.tensor([0.5, 0.3, 0.2]).log().expand(rows, 3)
    streams = [(seed, 0) for seed in range(rows)]
    nucleus = SeededSampling(EvaluationSettings(max_new_tokens=1, temperature=1.0, top_p=0.6), streams)(
        torch.zeros(rows, 1), scores
    ).argmax(-1)
    assert set(nucleus.tolist()) == {0, 1}
    cold = SeededSampling(EvaluationSettings(max_new_tokens=1, temperature=0.05), streams)(
        torch.zeros(rows, 1), scores
    ).argmax(-1)
    assert set(cold.tolist()) == {0}


def test_a_token_without_probability_is_never_drawn() -> None:
    scores = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).expand(3, 3)
    draw = SeededSampling(EvaluationSettings(max_new_tokens=1, temperature=1.0), [(0, 0)] * 3)
    draw._numbers = torch.tensor([[0.0], [0.5], [1.0 - 2**-53]], dtype=torch.float64)
    assert draw(torch.zeros(3, 1), scores).argmax(-1).tolist() == [1, 1, 1]


def test_the_batch_is_halved_when_memory_runs_out(text_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load_backend(text_folder).generate(_prompts(7), GREEDY, range(7))
    backend = load_backend(text_folder, batch_size=6)
    generate, sizes = backend._generate, []

    def small(prompts: Any, *rest: Any) -> Any:
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(prompts, *rest)

    monkeypatch.setattr(backend, "_generate", small)
    assert backend.generate(_prompts(7), GREEDY, range(7)) == expected
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1, 1]
    assert backend.batch_size == 1


def test_one_row_that_does_not_fit_is_an_error(text_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    backend = load_backend(text_folder)
    monkeypatch.setattr(backend, "_generate", never)
    with pytest.raises(torch.OutOfMemoryError):
        backend.generate(_prompts(2), GREEDY, [0, 0])


def test_a_loaded_model_in_training_comes_back_in_training(text_folder: Path) -> None:
    loaded = load_backend(text_folder)
    model = loaded._model.train()
    model.config.use_cache = False
    backend = TransformersBackend(model, loaded._processor, name="step 3")
    assert backend.generate(_prompts(2), GREEDY, [0, 0]) == loaded.generate(_prompts(2), GREEDY, [0, 0])
    assert model.training
    assert backend.model == "step 3"


def test_an_adapter_is_applied_to_its_base_model(text_folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = load_backend(text_folder)
    adapted = get_peft_model(
        load_backend(text_folder)._model, LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    adapted.save_pretrained(tmp_path / "adapter")
    backend = load_backend(tmp_path / "adapter")
    logits = [one._model(torch.tensor([[5, 6, 7]])).logits for one in (base, backend)]
    assert not torch.allclose(*logits)
    torch.testing.assert_close(adapted(torch.tensor([[5, 6, 7]])).logits, logits[1])
    around = TransformersBackend(adapted, base._processor)
    assert around.generate(_prompts(2), GREEDY, [0, 0]) == backend.generate(_prompts(2), GREEDY, [0, 0])


def test_a_model_without_chat_template_gets_the_bare_text(text_folder: Path) -> None:
    backend = TransformersBackend(load_backend(text_folder)._model, build_tokenizer(chat_template=None))
    [prompt] = _prompts(1)
    assert _ids(backend, prompt) == backend._tokenizer(prompt[0]["content"])["input_ids"]


def test_images_for_a_text_model_are_refused(text_folder: Path) -> None:
    with pytest.raises(ConfigError, match="reads text only, but a question has an image"):
        load_backend(text_folder).generate(_prompts(1, images=1), GREEDY, [0])


def test_an_image_token_is_never_generated(vlm_folder: Path) -> None:
    backend = load_backend(vlm_folder)
    with torch.no_grad():
        token = backend._model.config.image_token_id
        head = backend._model.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.clone())
        head.bias = torch.nn.Parameter(torch.zeros(head.weight.shape[0]).index_fill(0, torch.tensor([token]), 1e4))
    [[output]] = backend.generate(_prompts(1, images=1), GREEDY, [0])
    assert output.text


def test_folders_without_a_model_are_named(tmp_path: Path, text_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no model: there is neither config\.json nor"):
        load_backend(tmp_path)
    with pytest.raises(ConfigError, match="does not exist"):
        load_backend(tmp_path / "missing")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": None}))
    with pytest.raises(ConfigError, match="field 'base_model_name_or_path'"):
        load_backend(tmp_path)
    weightless = tmp_path / "weightless"
    weightless.mkdir()
    (weightless / "config.json").write_text((text_folder / "config.json").read_text())
    with pytest.raises(ConfigError, match="could not be loaded"):
        load_backend(weightless)


def test_the_fingerprint_follows_the_weights(text_folder: Path, tmp_path: Path) -> None:
    same = build_text_model(tmp_path / "same", "llama")
    other = build_text_model(tmp_path / "other", "llama", seed=1)
    assert weights_fingerprint(text_folder) == weights_fingerprint(same) != weights_fingerprint(other)
    assert weights_fingerprint("hub/name") == ""


def test_the_teacher_rates_the_tokens_of_the_reasoning_alone(text_folder: Path) -> None:
    from kepo import LocalTeacher
    from kepo.teachers.base import ScoreRequest

    teacher = LocalTeacher(str(text_folder))
    [prompt] = _prompts(1)
    outputs = ["<think>it is the right result</think><answer>A</answer>", "<answer>A</answer>", "<think> </think>x"]
    means = reasoning_logps(teacher, [(prompt, output) for output in outputs])
    assert means[1:] == [None, None]
    # The tags are single tokens: what lies between them is all but the first and the last four tokens.
    ids = teacher.processor.encode(outputs[0], add_special_tokens=False)
    inside = ids.index(teacher.processor.convert_tokens_to_ids("</think>"))
    [score] = teacher.score([ScoreRequest(prompt, tuple(ids))])
    assert means[0] == pytest.approx(score.token_logps[1:inside].mean().item())


def test_records_hold_the_teachers_rating(text_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kepo import LocalTeacher

    backend = load_backend(text_folder)
    monkeypatch.setattr(
        backend, "_generate", lambda prompts, *_: [Completion("<think>a b</think>", 4, True)] * len(prompts)
    )
    table = ask(_questions(2), backend, EvaluationSettings(), LocalTeacher(str(text_folder)))
    values = table["teacher_logp"].to_pylist()
    assert all(value < 0 for value in values)
    assert ask(_questions(2), backend, EvaluationSettings())["teacher_logp"].to_pylist() == [None, None]
